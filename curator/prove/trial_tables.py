"""What trials say: the table for people and the figures for machines.

In: stored `Trial`s. Out: rows of text, and means over the training seeds with 95% intervals by the clustered
bootstrap. A trial holds one figure for the whole holdout, so the seed is the cluster: the interval says what
other training seeds would give on this holdout, nothing of other holdout images, and with few seeds it is too
narrow (`bootstrap`). Every figure is the worse of a trial's two readings (docs/decisions/0004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from curator.bootstrap import Interval, bootstrap_interval
from curator.prove.arms.base import ORDER
from store.records import Trial

COLUMNS = ("arm", "seeds", "added", "FN fixed", "FP fixed", "broken", "new FP/img", "AP50")
FIGURES = ("fn_fixed", "fp_fixed", "broken", "new_false_per_image", "ap50")  # the last five columns


def _newest(trials: Sequence[Trial]) -> list[Trial]:
    """One trial per arm and seed, arms in their usual order."""
    newest = {(trial.arm, trial.seed): trial for trial in sorted(trials, key=lambda t: t.id or 0)}
    return sorted(
        newest.values(), key=lambda t: (ORDER.index(t.arm) if t.arm in ORDER else len(ORDER), t.arm, t.seed)
    )


def _figures(trial: Trial) -> dict[str, float | None]:
    worse = trial.metrics["worse"]
    return {
        "fn_fixed": worse["fn"]["rate"],
        "fp_fixed": worse["fp"]["rate"],
        "broken": worse["broken"]["rate"],
        "new_false_per_image": worse["new_false_per_image"],
        "ap50": trial.metrics["ap50"],
    }


def summarise(trials: Sequence[Trial]) -> dict[str, Any]:
    """Plain JSON: the table, and per arm the mean and 95% interval of every figure over its seeds."""
    newest = _newest(trials)
    arms = {}
    for arm in dict.fromkeys(trial.arm for trial in newest):
        of_arm = [trial for trial in newest if trial.arm == arm]
        arms[arm] = {
            "seeds": [trial.seed for trial in of_arm],
            "n_added": [trial.metrics["n_added"] for trial in of_arm],
            **{name: _plain(_over_seeds(of_arm, name)) for name in FIGURES},
        }
    columns, table = trial_table(newest)
    return {
        "columns": list(columns),
        "rows": [list(row) for row in table],
        "arms": arms,
        "base": newest[0].metrics["base"] if newest else None,
        "unscored_conditions": newest[0].metrics.get("unscored_conditions", []) if newest else [],
    }


def _over_seeds(trials: Sequence[Trial], figure: str) -> Interval:
    """Mean of a figure over the trials of an arm; a trial without it is left out."""
    values = [_figures(trial)[figure] for trial in trials]
    return bootstrap_interval(
        [math.nan if value is None else value for value in values], clusters=[trial.seed for trial in trials]
    )


def _plain(interval: Interval) -> dict[str, float | None] | None:
    return interval.plain() if interval.count else None


def trial_table(trials: Sequence[Trial]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: the base, then one row per arm.

    Each figure is the worse of its two readings, averaged over the seeds, with the 95% interval of the mean
    where there are several seeds.
    """
    newest = _newest(trials)
    rows: list[tuple[str, ...]] = []
    if newest:
        base = newest[0].metrics["base"]
        rows.append(
            (
                "base",
                "",
                "",
                f"0 of {base['missed']}",
                f"0 of {base['false']}",
                f"0 of {base['found']}",
                "",
                _number(base["ap50"]),
            )
        )
    for arm in dict.fromkeys(trial.arm for trial in newest):
        of_arm = [trial for trial in newest if trial.arm == arm]
        added = {trial.metrics["n_added"] for trial in of_arm}
        rows.append(
            (
                arm,
                str(len(of_arm)),
                "-".join(str(n) for n in sorted({min(added), max(added)})),
                *(_mean(_over_seeds(of_arm, name)) for name in FIGURES),
            )
        )
    return COLUMNS, rows


def _mean(found: Interval) -> str:
    if not found.count:
        return "-"
    known = math.isfinite(found.low)
    return f"{found.mean:.3f}" + (f" [{found.low:.3f}, {found.high:.3f}]" if known else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def fix_rates(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Per arm the share of missed objects that each seed fixed (the worse of both readings); no values where
    the base missed nothing."""
    rates: dict[str, list[float]] = {}
    for trial in _newest(trials):
        value = _figures(trial)["fn_fixed"]
        rates.setdefault(trial.arm, [])
        if value is not None:
            rates[trial.arm].append(value)
    return rates
