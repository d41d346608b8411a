"""What a verification's trials say of each arm and of the differences between arms.

In: stored `Trial`s whose fates are kept, and a way to read blobs. Out: plain figures with intervals over
images and seeds (`statistics`), differences from a reference arm with Holm's correction over the arms, and
one sentence of advice that only these figures carry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from curator.prove.arms.base import split_label
from curator.prove.fates import Holdout, unpack_holdout, unpack_matched
from curator.prove.readings import Base, Matched
from curator.prove.statistics import (
    LESS_IS_BETTER,
    Estimate,
    Values,
    arm_estimate,
    holm,
    measure,
    worse_of,
)
from store.records import Trial

REFERENCES = ("random", "nothing")  # what an arm is compared with; the first that was run stands in the table
REAL = 0.05  # family-wise error rate at which a difference is called real
FEW_SEEDS = 5
LEAST_SEEDS = 2  # in common, before a difference may be called real
UNEQUAL = 1.1  # times as many batches: arms that differ more are told
FEW_CLUSTERS = 20  # images or videos with failures, below which intervals are too narrow
FEWEST_SEEDS = 3  # before a verification may stop early
PRIMARY = "fn_fixed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of one arm minus that of another, in the reading that says least for the first.

    Attributes:
        adjusted: Holm's p over the arms that are compared with the same one. seeds: that both have.
    """

    arm: str
    against: str
    figure: str
    value: Estimate
    adjusted: float
    seeds: int

    @property
    def real(self) -> bool:
        """Does it differ from zero at the family-wise rate? One seed cannot say what other trainings give."""
        return self.adjusted <= REAL and self.seeds >= LEAST_SEEDS

    @property
    def better(self) -> bool:
        """Does it speak for the first arm?"""
        return (self.value.mean < 0) == (self.figure in LESS_IS_BETTER) and self.value.mean != 0

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        adjusted = None if math.isnan(self.adjusted) else self.adjusted
        return {
            "arm": self.arm,
            "against": self.against,
            "figure": self.figure,
            **self.value.plain(),
            "p_holm": adjusted,
            "real": self.real,
            "seeds": self.seeds,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What trials over one holdout say.

    Attributes:
        arms: arm -> figure -> the worse reading. differences: against every reference that was run.
        notes: what the reader must know of the figures.
        looks: how often a verification that may stop early looks at most; every p is multiplied by it.
    """

    arms: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Fates:
    """What trials over one holdout kept.

    Attributes:
        bases, matched, seeds: per arm, trial by trial. cluster: per image what it is drawn with.
        missing: categories that the detector cannot produce.
    """

    holdout: Holdout
    cluster: tuple[str, ...]
    bases: Mapping[str, Sequence[Base]]
    matched: Mapping[str, Sequence[Matched]]
    seeds: Mapping[str, Sequence[int]]
    missing: tuple[str, ...]


def read_fates(
    trials: Sequence[Trial], blob: Callable[[str], bytes], *, groups: Mapping[str, str] | None = None
) -> Fates | None:
    """Read what trials kept.

    Args:
        trials: one per arm and seed, of one verification. blob: bytes by sha256.
        groups: sha256 of a holdout image -> the video or place that it shares with others, as known now.
    Returns:
        None where a trial keeps no fates (it was run by an older version) or where holdouts differ.
    """
    if not trials or any("fates" not in trial.metrics for trial in trials):
        return None
    holdouts = {
        key: unpack_holdout(blob(key)) for key in {str(trial.metrics["base_fates"]) for trial in trials}
    }
    holdout = next(iter(holdouts.values()))
    if any(not _same_objects(holdout, other) for other in holdouts.values()):
        return None
    own = {arm: [t for t in trials if t.arm == arm] for arm in dict.fromkeys(t.arm for t in trials)}
    return Fates(
        holdout=holdout,
        cluster=tuple((groups or {}).get(s, c) for s, c in zip(holdout.sha256, holdout.cluster, strict=True)),
        bases={
            arm: [holdouts[str(t.metrics["base_fates"])].base for t in of_arm] for arm, of_arm in own.items()
        },
        matched={
            arm: [unpack_matched(blob(t.metrics["fates"])) for t in of_arm] for arm, of_arm in own.items()
        },
        seeds={arm: [t.seed for t in of_arm] for arm, of_arm in own.items()},
        missing=tuple(trials[0].metrics["base"].get("missing_classes", [])),
    )


def compare_arms(
    trials: Sequence[Trial],
    blob: Callable[[str], bytes],
    *,
    floor: float,
    groups: Mapping[str, str] | None = None,
    references: Sequence[str] = REFERENCES,
) -> Comparison | None:
    """Read the fates and compare.

    Args:
        trials, blob, groups: as `read_fates` takes them. floor: lowest score.
        references: arms that the others are compared with.
    Returns:
        None where `read_fates` gives none.
    """
    fates = read_fates(trials, blob, groups=groups)
    if fates is None:
        return None
    values: dict[str, dict[str, dict[str, Values]]] = {}
    for arm, matched in fates.matched.items():
        found = measure(fates.bases[arm], matched, fates.cluster, floor=floor, missing=fates.missing)
        own = [trial for trial in trials if trial.arm == arm]
        found["ap50"] = {"any": _as_printed(found["ap50"]["any"], own)}
        values[arm] = found
    arms = {
        arm: {figure: arm_estimate(figure, readings) for figure, readings in of_arm.items()}
        for arm, of_arm in values.items()
    }
    looks = max(int(trial.metrics.get("looks", 1)) for trial in trials)
    differences = [
        replace(d, adjusted=float(np.minimum(1.0, looks * d.adjusted)))  # Bonferroni; nan stays nan
        for reference in references
        for d in differences_from(reference, values, fates.seeds)
    ]
    notes = [*_notes(differences, fates.seeds, values), *_length_notes(trials)]
    return Comparison(arms, tuple(differences), tuple(notes), looks)


def _same_objects(one: Holdout, other: Holdout) -> bool:
    a, b = one.base.objects, other.base.objects
    return (
        one.sha256 == other.sha256
        and np.array_equal(a.image, b.image)
        and np.array_equal(a.classes, b.classes)
        and np.array_equal(a.counted, b.counted)
    )


def _as_printed(values: Values, trials: Sequence[Trial]) -> Values:
    """AP by COCO's recall points instead of the area, which the replicates take: only the level changes."""
    printed = np.array([np.nan if t.metrics["ap50"] is None else t.metrics["ap50"] for t in trials])
    return Values(printed, values.drawn - values.point + printed, values.clusters)


def differences_from(
    reference: str,
    values: Mapping[str, Mapping[str, Mapping[str, Values]]],
    seeds: Mapping[str, Sequence[int]],
) -> list[Difference]:
    """Every other arm minus the reference of the same budget, by the seeds that both have."""
    found: list[Difference] = []
    for figure in next(iter(values.values()), {}):
        estimates: dict[str, Estimate] = {}
        against: dict[str, tuple[str, int]] = {}
        for arm in values:
            other = counterpart(reference, arm, values)
            common = [] if other is None else [seed for seed in seeds[arm] if seed in seeds[other]]
            if other is None or split_label(arm)[0] == reference or not common:
                continue
            own, theirs = ([seeds[name].index(seed) for seed in common] for name in (arm, other))
            estimates[arm] = worse_of(
                figure,
                {
                    reading: of_arm.among(own) - values[other][figure][reading].among(theirs)
                    for reading, of_arm in values[arm][figure].items()
                },
            ).between_arms(figure)
            against[arm] = other, len(common)
        adjusted = holm({arm: estimate.p for arm, estimate in estimates.items()})
        found += [
            Difference(arm, against[arm][0], figure, e, adjusted[arm], against[arm][1])
            for arm, e in estimates.items()
        ]
    return found


def counterpart(reference: str, arm: str, known: Collection[str]) -> str | None:
    """The reference arm with the budget of `arm`, or without any; None where there is none."""
    budget = split_label(arm)[1]
    wanted = reference if budget is None else f"{reference}@{budget}"
    return next((label for label in (wanted, reference) if label in known), None)


def images_for_the_same(comparison: Comparison, trials: Sequence[Trial]) -> list[str]:
    """Per arm and budget of a learning curve: how many random images would fix as many missed objects."""
    added: dict[str, list[int]] = {}
    for trial in trials:
        added.setdefault(trial.arm, []).append(int(trial.metrics["n_added"]))
    count = {arm: sum(numbers) / len(numbers) for arm, numbers in added.items()}
    points = {
        count[arm]: figures[PRIMARY].mean
        for arm, figures in comparison.arms.items()
        if split_label(arm)[0] in REFERENCES and not math.isnan(figures[PRIMARY].mean)
    }
    curve = sorted(points.items())
    if sum(split_label(arm)[0] == "random" for arm in comparison.arms) < 2 or len(curve) < 2:
        return []
    amounts, rates = np.array([c[0] for c in curve], float), np.array([c[1] for c in curve])
    said = []
    for arm, figures in comparison.arms.items():
        name, budget = split_label(arm)
        if name in (*REFERENCES, "oracle") or budget is None or math.isnan(figures[PRIMARY].mean):
            continue
        reached = np.flatnonzero(rates >= figures[PRIMARY].mean)
        if not len(reached):
            amount = f"more than {amounts[-1]:.0f}"
        elif reached[0] == 0:
            amount = f"at most {amounts[0]:.0f}"
        else:
            k = int(reached[0])
            share = (figures[PRIMARY].mean - rates[k - 1]) / (rates[k] - rates[k - 1])
            amount = f"about {amounts[k - 1] + share * (amounts[k] - amounts[k - 1]):.0f}"
        said.append(f"{name} with {count[arm]:.0f} images fixes as much as random with {amount}")
    return said


def _notes(
    differences: Sequence[Difference],
    seeds: Mapping[str, Sequence[int]],
    values: Mapping[str, Mapping[str, Mapping[str, Values]]],
) -> list[str]:
    fewest = min([len(of_arm) for of_arm in seeds.values()] + [d.seeds for d in differences])
    notes = []
    if fewest < LEAST_SEEDS:
        notes.append(
            "one training seed: the intervals speak of other images, not of other trainings, and no "
            "difference is called real"
        )
    elif fewest < FEW_SEEDS:
        notes.append(
            f"{fewest} training seeds: the intervals are wide; {FEW_SEEDS} or more make them narrower"
        )
    clusters = min(v.clusters for readings in values.values() for v in readings[PRIMARY].values())
    if clusters < FEW_CLUSTERS:
        notes.append(f"missed objects in only {clusters} images or videos: the intervals are too narrow")
    return notes


def _length_notes(trials: Sequence[Trial]) -> list[str]:
    """Programs train whole epochs: arms with other numbers of images may train for longer."""
    steps = {
        t.arm: int(t.metrics["training"]["iterations"])
        for t in trials
        if "iterations" in t.metrics.get("training", {})
    }
    if not steps or max(steps.values()) <= UNEQUAL * min(steps.values()):
        return []
    said = ", ".join(f"{arm} {number}" for arm, number in steps.items())
    return [f"trainings differ in length, since the program trains whole epochs: batches of {said}"]


def answered(comparison: Comparison, smallest: float | None, looks: int) -> str:
    """May a verification stop before its last seed? Why, or "".

    Clear: every judged arm is told from the reference at the family-wise rate shared among the looks
    (Bonferroni). Hopeless: the intervals of all of them end below what the holdout can show.

    Args:
        smallest: difference that the holdout can show (`statistics.smallest_effect`). looks: how often this
            is asked at most.
    """
    judged = [
        d
        for d in comparison.differences
        if d.figure == PRIMARY
        and split_label(d.arm)[0] not in (*REFERENCES, "oracle")
        and split_label(d.against)[0] == split_label(comparison.differences[0].against)[0]
    ]
    if not judged:
        return ""
    if all(d.adjusted <= REAL * comparison.looks / max(looks, 1) for d in judged):
        return "the differences are clear"
    if smallest is not None and all(d.value.high < smallest for d in judged):
        return f"no arm can be shown to be {smallest:.2f} better than {judged[0].against} on this holdout"
    return ""


def advice(comparison: Comparison, trials: Sequence[Trial]) -> str:
    """One sentence: which arm's images to add, or that none is surely better than the reference."""
    reference = next((r for r in REFERENCES if any(split_label(a)[0] == r for a in comparison.arms)), None)
    compared = [
        d
        for d in comparison.differences
        if split_label(d.against)[0] == reference and split_label(d.arm)[0] != "oracle"
    ]
    of_figure = {(d.arm, d.figure): d for d in compared}
    rivals = [
        d
        for d in compared
        if d.figure == PRIMARY and split_label(d.arm)[0] not in REFERENCES and not math.isnan(d.value.mean)
    ]
    if reference is None or not rivals:
        return ""
    best = max([d for d in rivals if d.real and d.better] or rivals, key=lambda d: d.value.mean)
    count = next(t.metrics["n_added"] for t in trials if t.arm == best.arm)
    said = f"{best.value.mean:+.2f}{_bounds(best.value, 2)} of the missed objects fixed"
    ap = of_figure[best.arm, "ap50"].value
    rest = f"; AP50 {ap.mean:+.3f}{_bounds(ap, 3)}"
    if best.real and best.better:
        harm = of_figure[best.arm, "broken"]
        lower = of_figure[best.arm, "ap50"]
        harms = ["it breaks more found objects"] if harm.real and not harm.better else []
        harms += ["its AP50 is surely lower"] if lower.real and not lower.better else []
        warned = f" (but {' and '.join(harms)})" if harms else ""
        unsure = [d.arm for d in rivals if d is not best and not (d.real and d.better)]
        others = f"; not surely better than {reference}: {', '.join(unsure)}" if unsure else ""
        return f"add the {count} images of {best.arm}: {said} against {reference}{rest}{warned}{others}"
    worse = [d.arm for d in rivals if (own := of_figure[d.arm, "ap50"]).real and not own.better]
    warned = f"; surely worse than {reference} in AP50: {', '.join(worse)}" if worse else ""
    surely = " surely" if best.value.mean > 0 else ""
    called = "the best, " if best.value.mean > 0 and not ap.high < 0 else ""
    more = "" if best.value.high < 0 else "; more holdout images or seeds would tell"
    return f"no arm is{surely} better than {reference} here; {called}{best.arm}: {said}{rest}{warned}{more}"


def _bounds(value: Estimate, digits: int) -> str:
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return ""
    return f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
