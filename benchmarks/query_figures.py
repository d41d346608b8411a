"""Figures, tables and claims of `query_real.py`.

In: per episode and method the scores of the pool images and their true failures. Out: figures of an episode;
means with intervals (clustered by selector); the claims.

    hit    share of the chosen images that hold such a failure; left out where more than half of the pool do
    fpi    such failures per chosen image
    ap     average precision over images
    ratio  expected over true number of failures in the pool

Budgets are 5, 10 and 20% of the pool, and 20, 40 and 80 images where that is at most half of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from query_episodes import Answer, Episode

from curator.bootstrap import Interval, bootstrap_interval, paired_difference

SHARES, COUNTS = (0.05, 0.10, 0.20), (20, 40, 80)
BUDGETS = (*(f"{share:.0%}" for share in SHARES), *map(str, COUNTS))
RIVALS = ("class-uncertainty", "cosine")
LEAST_RATIO, GOAL_RATIO = 1.05, 1.10
FACTOR, WITHIN, LEAST_TRUE = 1.5, 0.8, 10  # calibration: so near, for such a share, with so many failures
SELECTORS = 25
Row = dict[str, Any]


def sizes(pool: int) -> dict[str, int]:
    """Images per budget."""
    found = {f"{share:.0%}": max(1, round(share * pool)) for share in SHARES}
    return found | {str(count): count for count in COUNTS if 2 * count <= pool}


def figures(truth: NDArray[np.int64], answer: Answer) -> dict[str, float]:
    """Figures of one answer; of several draws the mean. Of equal scores the earlier image comes first."""
    draws = np.atleast_2d(answer.scores)
    if draws.shape[1] != len(truth) or np.isnan(draws).any():
        raise ValueError(f"expected {len(truth)} scores that are numbers, got {draws.shape}")
    found: dict[str, list[float]] = defaultdict(list)
    common = (truth > 0).mean() > 0.5
    for scores in draws:
        ranked = truth[np.argsort(-scores, kind="stable")]
        held = ranked > 0
        for budget, size in sizes(len(truth)).items():
            first = ranked[:size] if answer.chosen is None else truth[answer.chosen(size)]
            found[f"hit@{budget}"].append(math.nan if common else float((first > 0).mean()))
            found[f"fpi@{budget}"].append(float(first.mean()))
        precision = np.cumsum(held) / np.arange(1, len(held) + 1)
        found["ap"].append(float(precision[held].mean()))
    result = {name: float(np.mean(values)) for name, values in found.items()}
    result["fell back"] = float(bool(answer.note))
    if answer.expected is not None:
        result["expected"] = float(np.sum(answer.expected))
    return result


def row(episode: Episode, truth: NDArray[np.int64], answers: Mapping[str, Answer]) -> Row:
    """What is kept of an episode."""
    return {
        "set": episode.half.dataset,
        "detector": episode.half.detector,
        "kind": episode.kind,
        "class": episode.category,
        "cause": episode.cause,
        "selector": episode.selector,
        "split": episode.half.split,
        "asked": len(episode.failures),
        "pool": len(truth),
        "base": float((truth > 0).mean()),
        "true": int(truth.sum()),
        "methods": {name: figures(truth, answer) for name, answer in answers.items()},
    }


def values(rows: Sequence[Row], method: str, name: str) -> list[float]:
    """A figure of a method, per row; nan where it has none."""
    return [r["methods"][method].get(name, math.nan) for r in rows]


def mean(rows: Sequence[Row], method: str, name: str) -> Interval:
    """Mean over episodes, interval over selectors."""
    return bootstrap_interval(values(rows, method, name), clusters=[r["selector"] for r in rows])


def difference(rows: Sequence[Row], method: str, other: str, name: str) -> Interval:
    """Mean difference of two methods."""
    return paired_difference(
        values(rows, method, name), values(rows, other, name), clusters=[r["selector"] for r in rows]
    )


def table(rows: Sequence[Row], methods: Sequence[str]) -> dict[str, Any]:
    """Means of every figure per method."""
    names = [f"{kind}@{budget}" for kind in ("hit", "fpi") for budget in BUDGETS]
    return {
        "episodes": len(rows),
        "selectors": len({r["selector"] for r in rows}),
        "methods": {
            method: {name: _plain(mean(rows, method, name)) for name in [*names, "ap"]} for method in methods
        },
    }


def parts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows as the tables divide them."""
    divided: dict[str, list[Row]] = defaultdict(list)
    for r in rows:
        names = ["all", "by cause" if r["cause"] else "by class", r["set"], f"{r['set']} {r['detector']}"]
        if r["cause"]:
            names.append(f"{r['kind']}:{r['cause']}")
        else:
            names.append(f"by class, {r['kind']}")
        for name in names:
            divided[name].append(r)
    order = ["all", "by class", "by class, FN", "by class, FP", "by cause"]
    return {name: divided[name] for name in [*order, *sorted(set(divided) - set(order))] if divided[name]}


def calibration(rows: Sequence[Row], method: str) -> dict[str, Any] | None:
    """Expected over true failures per selector (sums over splits), where it truly has `LEAST_TRUE` on the
    average; None where the method expects nothing."""
    sums: dict[Any, list[float]] = {}
    for r in rows:
        expected = r["methods"][method].get("expected")
        if expected is not None:
            total = sums.setdefault(r["selector"], [0.0, 0.0, 0.0])
            for place, value in enumerate((expected, r["true"], 1)):
                total[place] += value
    ratios = [e / t for e, t, n in sums.values() if t >= LEAST_TRUE * n]
    if not ratios:
        return None
    near = [1 / FACTOR <= ratio <= FACTOR for ratio in ratios]
    low, median, high = np.quantile(ratios, [0.1, 0.5, 0.9]).round(3).tolist()
    return {
        "selectors": len(ratios),
        "within": float(np.mean(near)),
        "10%": low,
        "median": median,
        "90%": high,
    }


def selectors(rows: Sequence[Row], methods: Sequence[str]) -> list[Row]:
    """A row per selector: means over its splits."""
    found = []
    for own in _grouped(rows):
        first = own[0]
        found.append(
            {
                **{name: first[name] for name in ("set", "detector", "kind", "class", "cause")},
                "splits": len(own),
                **{
                    name: round(float(np.mean([r[name] for r in own])), 3)
                    for name in ("asked", "base", "true")
                },
                "fpi@40": {m: _mean(values(own, m, "fpi@40")) for m in methods},
                "hit@40": {m: _mean(values(own, m, "hit@40")) for m in methods},
            }
        )
    return found


def claims(rows: Sequence[Row], judged: str) -> list[dict[str, Any]]:
    """Issue 10, acceptance 1 and 4, on these rows."""
    found = [_claim("selectors", SELECTORS, n := len({r["selector"] for r in rows}), n >= SELECTORS)]
    if any(name not in rows[0]["methods"] for name in (judged, *RIVALS)):
        return found
    divided = parts(rows)
    for name in ("hit@40", "fpi@40"):
        for part in ("all", "by class", "by cause"):
            if part in divided:
                rival = better(divided[part], name)
                gain = difference(divided[part], judged, rival, name)
                found.append(
                    _claim(f"{name}, {part}: above {rival}", 0.0, gain.mean, gain.low > 0, gain.plain())
                )
        if "by cause" in divided:
            gain = difference(divided["by cause"], judged, RIVALS[0], name)
            found.append(
                _claim(f"{name}, by cause: above {RIVALS[0]}", 0.0, gain.mean, gain.low > 0, gain.plain())
            )
        ratios = []
        for part in sorted({r["set"] for r in rows}):
            rival = better(divided[part], name)
            ours, theirs = (mean(divided[part], m, name).mean for m in (judged, rival))
            if not math.isnan(ours):
                ratios.append(ours / theirs if theirs else math.inf)
                found.append(
                    _claim(
                        f"{name}, {part}: times {rival}", LEAST_RATIO, ratios[-1], ratios[-1] >= LEAST_RATIO
                    )
                )
        if ratios:
            average = float(np.mean(ratios))
            found.append(
                _claim(f"{name}: times the better, mean of sets", GOAL_RATIO, average, average >= GOAL_RATIO)
            )
        worse = {}
        for part, own in divided.items():
            for rival in RIVALS:
                gain = difference(own, judged, rival, name)
                if gain.high < 0:
                    worse[f"{part}: {rival}"] = gain.plain()
        found.append(
            _claim(f"{name}: parts significantly worse than a rival", 0, len(worse), not worse, worse)
        )
    told = calibration(rows, judged)
    if told is not None:
        share = told["within"]
        found.append(_claim(f"expected within {FACTOR} of the truth", WITHIN, share, share >= WITHIN))
    return found


def better(rows: Sequence[Row], name: str) -> str:
    """The rival with the higher mean."""
    means = {rival: mean(rows, rival, name).mean for rival in RIVALS}
    return max(means, key=lambda rival: -math.inf if math.isnan(means[rival]) else means[rival])


def _claim(
    claim: str, target: float, value: float, ok: bool, interval: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"claim": claim, "target": target, "value": value, "ok": bool(ok)}
    return found if interval is None else found | {"interval": dict(interval)}


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for r in rows:
        groups.setdefault(r["selector"], []).append(r)
    return list(groups.values())


def _mean(found: Sequence[float]) -> float | None:
    known = [v for v in found if not math.isnan(v)]
    return round(float(np.mean(known)), 4) if known else None


def _plain(interval: Interval) -> list[float | None]:
    """[mean, low, high], rounded."""
    return [None if v is None else round(v, 4) for v in interval.plain().values()]
