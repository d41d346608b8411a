"""Fix and break: what a retrained detector mends and what it loses, object by object, on the holdout.

In: per holdout image the ground truth with the base's and an arm's detections. Out: plain figures. FN fixed:
the object becomes a true positive. FP fixed: no false positive of that class at IoU >= 0.5 there any more.
Broken: a true positive of the base is lost. New: a false positive of the arm where the base had none of that
class.

Matching goes by descending score, so a detection's part (true, false, excused) does not depend on where the
threshold lies below it: each arm is matched once, over all its detections, and read at any threshold. Every
figure is read twice, at the base's fixed threshold and at one that forbids the trade which would buy the
figure: objects (fixed, broken) at the base's number of false positives, false positives (fixed, new) at the
base's number of found objects. A claim uses the worse (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.boxes import paired_iou
from curator.matching import GroundTruth, ImageResult, match

SAME_PLACE = 0.5  # IoU of two false positives that are the same mistake
FEWEST = 30  # a group with fewer holdout failures is not scored
NO_CONDITION = ""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objects:
    """Counted objects of all images, in one order for every arm.

    Attributes:
        image: (G,) image number. classes: (G,). condition: (G,) its condition or "". cause: (G,) why the
            base misses it, "" where it does not.
        counted: (G,) False for crowd, difficult and unproducible ones.
    """

    image: NDArray[np.int64]
    classes: NDArray[np.int64]
    condition: NDArray[np.str_]
    cause: NDArray[np.str_]
    counted: Bools


@dataclass(frozen=True, slots=True)
class Matched:
    """A detector's detections over all images, matched once.

    Attributes:
        found_at: (G,) score of the detection that finds each object, -1 where none does.
        image, classes, scores, boxes: of its false positives at any threshold, (F,) and (F, 4).
    """

    found_at: Floats
    image: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: Floats
    boxes: Floats

    def false_positives(self, threshold: float) -> Bools:
        """(F,) those that count at `threshold`."""
        return np.asarray(self.scores >= threshold)


@dataclass(frozen=True, slots=True)
class Base:
    """The base detector on the holdout, at its fixed threshold.

    Attributes:
        false_cause, false_condition: (F,) of `matched`'s false positives; "" where the score is below the
            threshold.
    """

    objects: Objects
    matched: Matched
    threshold: float
    images: int
    false_cause: NDArray[np.str_]
    false_condition: NDArray[np.str_]
    categories: tuple[str, ...]

    @property
    def false_count(self) -> int:
        """False positives at the threshold."""
        return int(self.matched.false_positives(self.threshold).sum())


def match_all(results: Sequence[ImageResult], *, iou_threshold: float = 0.5) -> Matched:
    """Match every image's detections, however low they score."""
    found_at, image, classes, scores, boxes = [], [], [], [], []
    for number, result in enumerate(results):
        matching = match(
            result.boxes, result.scores, result.classes, result.truth, iou_threshold=iou_threshold
        )
        at = np.full(len(result.truth.classes), -1.0)
        found = matching.found_by >= 0
        at[found] = np.asarray(result.scores, np.float64)[matching.found_by[found]]
        false = np.flatnonzero(matching.false_positive)
        found_at.append(at)
        image.append(np.full(len(false), number, np.int64))
        classes.append(result.classes[false])
        scores.append(np.asarray(result.scores, np.float64)[false])
        boxes.append(np.asarray(result.boxes, np.float64)[false].reshape(-1, 4))
    if not results:
        return Matched(
            np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4))
        )
    return Matched(*(np.concatenate(parts) for parts in (found_at, image, classes, scores, boxes)))


def gather_objects(
    truths: Sequence[GroundTruth],
    conditions: Sequence[Sequence[str]],
    causes: Mapping[int, str],
    producible: Bools,
) -> Objects:
    """Put the objects of all images in one order.

    Args:
        conditions: per image and object its condition, "" for none.
        causes: annotation id -> cause, of the objects that the base misses.
        producible: (K,) classes that the detector can produce.
    """
    classes = [truth.classes for truth in truths]
    every = np.concatenate(classes) if classes else np.zeros(0, np.int64)
    ignored = np.concatenate([truth.ignored for truth in truths]) if truths else np.zeros(0, bool)
    return Objects(
        image=np.repeat(np.arange(len(truths)), [len(c) for c in classes]),
        classes=every,
        condition=np.array([name for row in conditions for name in row], dtype=np.str_),
        cause=np.array([causes.get(int(i), "") for truth in truths for i in truth.ids], dtype=np.str_),
        counted=~ignored & producible[every] if len(every) else np.zeros(0, bool),
    )


def matched_threshold(arm: Matched, false_count: int, *, floor: float) -> float:
    """The lowest threshold, at least `floor`, at which the arm has at most `false_count` false positives."""
    scores = np.sort(arm.scores[arm.scores >= floor])[::-1]
    return floor if len(scores) <= false_count else float(np.nextafter(scores[false_count], 2.0))


def recall_threshold(objects: Objects, arm: Matched, found_count: int, *, floor: float) -> float:
    """The highest threshold at which the arm finds `found_count` objects; `floor` where it never does."""
    scores = np.sort(arm.found_at[objects.counted & (arm.found_at >= floor)])[::-1]
    if found_count == 0 or len(scores) < found_count:
        return floor if found_count else float(np.nextafter(1.0, 2.0))
    return float(scores[found_count - 1])


def repeated_at(base: Base, arm: Matched) -> tuple[Floats, Bools]:
    """What the two have in common among their false positives.

    Returns:
        per false positive of the base at its threshold the highest score of the arm's at its place, -1 where
        there is none; per false positive of the arm (F,) whether the base has one at its place.
    """
    was = np.flatnonzero(base.matched.false_positives(base.threshold))
    again, known = np.full(len(was), -1.0), np.zeros(len(arm.scores), dtype=bool)
    kinds = 1 + int(max(base.matched.classes.max(initial=0), arm.classes.max(initial=0)))
    of_base = base.matched.image[was] * kinds + base.matched.classes[was]
    of_arm = arm.image * kinds + arm.classes
    order = np.argsort(of_arm, kind="stable")
    first, last = (np.searchsorted(of_arm[order], of_base, side) for side in ("left", "right"))
    here = np.repeat(np.arange(len(was)), last - first)  # all pairs of one image and class
    there = order[np.arange(len(here)) - np.repeat(np.cumsum(last - first) - last, last - first)]
    same = paired_iou(base.matched.boxes[was[here]], arm.boxes[there]) >= SAME_PLACE
    np.maximum.at(again, here[same], arm.scores[there[same]])
    known[there[same]] = True
    return again, known


def calibration_error(objects: Objects, arm: Matched, *, bins: int = 10) -> float:
    """How far scores are from the share of detections that are right: 0 where a score is that share.

    Detection expected calibration error: over bins of equal width, |mean score - share of true positives|,
    weighted by the detections in the bin (Kueppers et al., Multivariate confidence calibration for object
    detection, CVPRW 2020, eq. 4, by score alone). Every counted detection that is kept counts.

    Returns:
        0 to 1; nan without detections.
    """
    hits = arm.found_at[objects.counted & (arm.found_at >= 0)]
    scores = np.concatenate([hits, arm.scores])
    if not len(scores):
        return float("nan")
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    true = np.bincount(place[: len(hits)], minlength=bins)
    return float(np.abs(np.bincount(place, scores, bins) - true).sum() / len(scores))


def read(base: Base, arm: Matched, threshold: float) -> dict[str, Any]:
    """One reading of an arm, plain JSON.

    Returns:
        "threshold"; "fn" and "fp": {"n", "fixed", "rate"}; "broken": {"n", "lost", "rate"};
        "false_per_image", "new_false_per_image"; "groups": {"condition" | "cause" | "class": {name:
        {"fn", "fp", "broken"}}}.
    """
    objects, at_base = base.objects, base.matched
    base_found = at_base.found_at >= base.threshold
    found = arm.found_at >= threshold
    missed, kept = objects.counted & ~base_found, objects.counted & base_found
    was_false, is_false = at_base.false_positives(base.threshold), arm.false_positives(threshold)
    again, known = repeated_at(base, arm)
    mended, new = again < threshold, is_false & ~known
    images = max(base.images, 1)

    def rates(of_objects: Bools, of_false: Bools) -> dict[str, Any]:
        return {
            "fn": _rate("fixed", found[missed & of_objects]),
            "fp": _rate("fixed", mended[of_false]),
            "broken": _rate("lost", ~found[kept & of_objects]),
        }

    everything = rates(np.ones(len(found), bool), np.ones(len(mended), bool))
    names = np.array([*base.categories, ""], dtype=np.str_)
    keys = {
        "condition": (objects.condition, base.false_condition[was_false]),
        "cause": (
            np.where(missed, np.char.add("FN:", objects.cause), ""),
            np.char.add("FP:", base.false_cause[was_false]),
        ),
        "class": (names[objects.classes], names[at_base.classes[was_false]]),
    }
    groups = {}
    for kind, (of_objects, of_false) in keys.items():
        members = set(of_objects[objects.counted].tolist()) | set(of_false.tolist())
        groups[kind] = {
            name: rates(of_objects == name, of_false == name) for name in sorted(members - {"", NO_CONDITION})
        }
    return {
        "threshold": threshold,
        **everything,
        "false_per_image": int(is_false.sum()) / images,
        "new_false_per_image": int(new.sum()) / images,
        "groups": groups,
    }


def _rate(name: str, values: Bools) -> dict[str, Any]:
    n, count = len(values), int(values.sum())
    return {"n": n, name: count, "rate": count / n if n else None}


def compare(base: Base, arm: Matched, *, floor: float) -> dict[str, Any]:
    """An arm's readings and the worse of each figure.

    Args:
        floor: the lowest score that the arm's detections were computed for.
    Returns:
        "fixed_threshold", "matched_threshold" (the base's false positives) and "matched_recall" (the base's
        found objects), each as `read` gives it; "worse": objects by the first two, false positives by the
        first and the last; "worse_at_matched_threshold": all figures by the first two.
    """
    kept = base.objects.counted & (base.matched.found_at >= base.threshold)
    fixed = read(base, arm, base.threshold)
    matched = read(base, arm, matched_threshold(arm, base.false_count, floor=floor))
    recall = read(base, arm, recall_threshold(base.objects, arm, int(kept.sum()), floor=floor))
    return {
        "fixed_threshold": fixed,
        "matched_threshold": matched,
        "matched_recall": recall,
        "worse": worse(fixed, matched, recall),
        "worse_at_matched_threshold": worse(fixed, matched, matched),
    }


def worse(fixed: Mapping[str, Any], matched: Mapping[str, Any], recall: Mapping[str, Any]) -> dict[str, Any]:
    """The worse reading, figure by figure: the lower fix rate, the higher break rate and new false positives.

    Objects are read in `fixed` and `matched`, false positives in `fixed` and `recall`. Groups with fewer than
    30 holdout failures of a kind keep their number but get no rate.
    """
    groups = {
        kind: {
            name: _worse_rates(*(r["groups"][kind][name] for r in (fixed, matched, recall)), fewest=FEWEST)
            for name in fixed["groups"][kind]
        }
        for kind in fixed["groups"]
    }
    return {
        **_worse_rates(fixed, matched, recall, fewest=1),
        "new_false_per_image": max(fixed["new_false_per_image"], recall["new_false_per_image"]),
        "false_per_image": max(fixed["false_per_image"], recall["false_per_image"]),
        "groups": groups,
    }


def _worse_rates(
    fixed: Mapping[str, Any], matched: Mapping[str, Any], recall: Mapping[str, Any], *, fewest: int
) -> dict[str, Any]:
    result = {}
    for kind, other, pick in (("fn", matched, min), ("fp", recall, min), ("broken", matched, max)):
        n, rates = fixed[kind]["n"], (fixed[kind]["rate"], other[kind]["rate"])
        result[kind] = {"n": n, "rate": pick(rates) if n >= fewest and None not in rates else None}
    return result


def unscored(comparison: Mapping[str, Any], kind: str = "condition") -> list[str]:
    """Groups with failures of a kind, but fewer than 30: named, not scored."""
    return [
        f"{name} ({what.upper()}: {figures[what]['n']})"
        for name, figures in comparison["worse"]["groups"][kind].items()
        for what in ("fn", "fp")
        if 0 < figures[what]["n"] < FEWEST
    ]
