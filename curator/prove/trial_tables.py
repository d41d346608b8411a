"""What trials say: the table for people and the figures for machines.

In: stored `Trial`s, and where their fates are kept what `comparisons` made of them. Out: rows of text, and
means over the training seeds with 95% intervals over images and seeds. Every figure is the worse of its two
readings (docs/decisions/0004). Trials of an older version keep no fates: their intervals are drawn over the
seeds alone, say nothing of other holdout images and are too narrow with few seeds (`bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student

from curator.bootstrap import Interval, bootstrap_interval
from curator.prove.arms.base import place, split_label
from curator.prove.comparisons import Comparison, advice, images_for_the_same
from curator.prove.group_readings import Group
from curator.prove.statistics import FIGURES, Estimate
from store.records import Trial

COLUMNS = ("arm", "seeds", "added", "FN fixed", "FP fixed", "broken", "new FP/img", "AP50")
ROUNDING = 0.00151  # three numbers are printed with three digits each
DIFFERENCES = ("arm", "minus", *COLUMNS[3:])
QUALITY = {"ap": "AP", "ar": "AR", "calibration_error": "calibration error"}
"""Figures of a trial that say nothing of the base: means over the IoU .5 to .95, and of all scores."""


def newest_trials(trials: Sequence[Trial]) -> list[Trial]:
    """One trial per arm and seed, arms in their usual order."""
    newest = {(trial.arm, trial.seed): trial for trial in sorted(trials, key=lambda t: t.id or 0)}
    return sorted(newest.values(), key=lambda t: (*place(t.arm), t.seed))


def _figures(trial: Trial) -> dict[str, float | None]:
    worse = trial.metrics["worse"]
    return {
        "fn_fixed": worse["fn"]["rate"],
        "fp_fixed": worse["fp"]["rate"],
        "broken": worse["broken"]["rate"],
        "new_false_per_image": worse["new_false_per_image"],
        "ap50": trial.metrics["ap50"],
    }


def summarise(
    trials: Sequence[Trial], compared: Comparison | None = None, groups: Sequence[Group] = ()
) -> dict[str, Any]:
    """Plain JSON: the table, and per arm the mean and 95% interval of every figure.

    Args:
        compared: of the same trials; adds "differences", "difference_columns", "difference_rows",
            "difference_note", "advice".
        groups: of the same trials; their "groups", "group_columns", "group_rows".
    """
    newest = newest_trials(trials)
    arms = {}
    for arm in dict.fromkeys(trial.arm for trial in newest):
        of_arm = [trial for trial in newest if trial.arm == arm]
        figures = {name: _figure(of_arm, name, compared) for name in FIGURES}
        arms[arm] = {
            "seeds": [trial.seed for trial in of_arm],
            "n_added": [trial.metrics["n_added"] for trial in of_arm],
            **{name: _plain(found) for name, found in figures.items()},
            **{name: _plain(_quality(of_arm, name)) for name in QUALITY},
            "ap50_per_class": _per_class(of_arm),
        }
    columns, table = trial_table(newest, compared)
    quality_columns, quality = quality_table(newest)
    summary = {
        "columns": list(columns),
        "rows": [list(row) for row in table],
        "quality_columns": list(quality_columns),
        "quality_rows": [list(row) for row in quality],
        "arms": arms,
        "base": newest[0].metrics["base"] if newest else None,
        "unscored_conditions": newest[0].metrics.get("unscored_conditions", []) if newest else [],
    }
    if newest and compared is None:
        summary["notes"] = [
            "some of these trials keep no fates or are over another holdout: differences between arms cannot "
            "be told; verify under another --name"
        ]
    if compared is not None:
        summary |= {
            "differences": [difference.plain() for difference in compared.differences],
            "difference_columns": list(DIFFERENCES),
            "difference_rows": [list(row) for row in difference_table(compared)[1]],
            "difference_note": difference_note(compared),
            "advice": advice(compared, newest),
            "notes": [*images_for_the_same(compared, newest), *compared.notes],
        }
    if groups:
        columns, table = group_table(groups)
        summary |= {
            "groups": [group.plain() for group in groups],
            "group_columns": list(columns),
            "group_rows": [list(row) for row in table],
        }
    return summary


def unchanged(trials: Sequence[Trial]) -> list[str]:
    """A warning where no training changed anything."""
    known = [t.metrics for t in trials if "ar" in t.metrics and "ar" in t.metrics["base"]]
    names = ("ap50", "ap", "ar", "calibration_error")
    if not known or any(own[name] != own["base"][name] for own in known for name in names):
        return []
    return ["each trained detector finds exactly what the base finds; does the trainer save what it trained?"]


def difference_table(compared: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: each arm minus the reference; a star where a difference is real (Holm)."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    first = next((split_label(d.against)[0] for d in compared.differences), None)
    for d in compared.differences:
        if split_label(d.against)[0] == first:
            text = _number(d.value.mean, sign="+") + _bounds(d.value) + ("*" if d.real else "")
            cells.setdefault((d.arm, d.against), {})[d.figure] = text
    rows = [(*names, *(of_arm[figure] for figure in FIGURES)) for names, of_arm in cells.items()]
    return DIFFERENCES, rows


def difference_note(compared: Comparison) -> str:
    """Why differences are not those of the rows above, "" where they are (as far as three digits show)."""
    first = next((split_label(d.against)[0] for d in compared.differences), None)
    for d in compared.differences:
        of_rows = compared.arms[d.arm][d.figure].mean - compared.arms[d.against][d.figure].mean
        if split_label(d.against)[0] == first and abs(d.value.mean - of_rows) > ROUNDING:
            return (
                "a difference is taken within each reading, over the seeds that both arms have, and the "
                "worse one stands: it need not equal the difference of the rows"
            )
    return ""


def _figure(trials: Sequence[Trial], figure: str, compared: Comparison | None) -> Estimate | Interval:
    if compared is not None:
        return compared.arms[trials[0].arm][figure]
    return _over_seeds([_figures(trial)[figure] for trial in trials], trials)


def _per_class(trials: Sequence[Trial]) -> dict[str, float]:
    """Mean AP50 of every class over the trials of an arm."""
    found = [trial.metrics.get("ap50_per_class", {}) for trial in trials]
    names = dict.fromkeys(name for of_trial in found for name in of_trial)
    return {name: sum(own) / len(own) for name in names if (own := [f[name] for f in found if name in f])}


def _quality(trials: Sequence[Trial], figure: str) -> Interval:
    """Mean of a figure over the trials of an arm, with Student's interval over the training seeds."""
    known = [float(v) for t in trials if (v := t.metrics.get(figure)) is not None]
    mean = sum(known) / len(known) if known else math.nan
    if len(known) < 2:
        return Interval(mean, math.nan, math.nan, len(known))
    spread = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1) / len(known))
    reach = float(student.ppf(0.975, len(known) - 1)) * spread
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach), len(known))


def _over_seeds(values: Sequence[float | None], trials: Sequence[Trial]) -> Interval:
    """Mean of a figure over the trials of an arm; a trial without it is left out."""
    return bootstrap_interval(
        [math.nan if value is None else value for value in values], clusters=[trial.seed for trial in trials]
    )


def _plain(found: Estimate | Interval) -> dict[str, float | None] | None:
    if math.isnan(found.mean):
        return None
    return {name: value for name, value in found.plain().items() if name != "p"}


def trial_table(
    trials: Sequence[Trial], compared: Comparison | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: the base, then one row per arm.

    Each figure is the worse of its two readings, averaged over the seeds, with its 95% interval where there
    is one.
    """
    newest = newest_trials(trials)
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
                *(_mean(_figure(of_arm, name, compared)) for name in FIGURES),
            )
        )
    return COLUMNS, rows


def quality_table(trials: Sequence[Trial]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: how good each arm's detectors are, whatever the base failed on.

    Intervals are over training seeds alone. No rows for trials of older versions.
    """
    newest = newest_trials(trials)
    columns = ("arm", *QUALITY.values())
    if not any("ar" in trial.metrics for trial in newest):
        return columns, []
    base = newest[0].metrics["base"]
    rows = [("base", *(_number(base.get(name)) for name in QUALITY))]
    for arm in dict.fromkeys(trial.arm for trial in newest):
        own = [trial for trial in newest if trial.arm == arm]
        found = [_quality(own, name) for name in QUALITY]
        rows.append((arm, *(_mean(of_figure) for of_figure in found)))
    return columns, rows


def group_table(groups: Sequence[Group]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for people: of every class, condition and cause the share of missed objects fixed."""
    arms = list(groups[0].compared.arms) if groups else []
    rows = [
        (
            f"{group.kind} {group.name}",
            str(group.missed),
            *(_mean(group.compared.arms[arm]["fn_fixed"]) for arm in arms),
        )
        for group in groups
    ]
    return ("group", "missed", *arms), rows


def _mean(found: Estimate | Interval) -> str:
    return _number(found.mean) + _bounds(found)


def _bounds(found: Estimate | Interval) -> str:
    return f" [{found.low:.3f}, {found.high:.3f}]" if math.isfinite(found.low) else ""


def _number(value: float | None, *, sign: str = "") -> str:
    return "-" if value is None or math.isnan(value) else f"{value:{sign}.3f}"


def learning_curves(
    trials: Sequence[Trial], compared: Comparison | None
) -> dict[str, dict[str, list[tuple[float, float, float, float]]]]:
    """Per figure and arm the points (images added, mean, low, high) of arms with several budgets."""
    added: dict[str, list[int]] = {}
    for trial in newest_trials(trials):
        added.setdefault(trial.arm, []).append(int(trial.metrics["n_added"]))
    curves: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {"fn_fixed": {}, "ap50": {}}
    for figure, lines in curves.items():
        for arm, counts in added.items():
            name, budget = split_label(arm)
            if budget is not None and compared is not None:
                e = compared.arms[arm][figure]
                lines.setdefault(name, []).append((sum(counts) / len(counts), e.mean, e.low, e.high))
        for name in list(lines):
            lines[name].sort()
            if len(lines[name]) < 2:
                del lines[name]
    return curves


def fix_rates(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Per arm the share of missed objects that each seed fixed (the worse of both readings); no values where
    the base missed nothing."""
    rates: dict[str, list[float]] = {}
    for trial in newest_trials(trials):
        value = _figures(trial)["fn_fixed"]
        rates.setdefault(trial.arm, [])
        if value is not None:
            rates[trial.arm].append(value)
    return rates
