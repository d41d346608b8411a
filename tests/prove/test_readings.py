"""Fix and break on hand-made and generated holdouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.matching import GroundTruth, ImageResult, match
from curator.prove.readings import (
    FEWEST,
    Base,
    Matched,
    calibration_error,
    compare,
    gather_objects,
    match_all,
    matched_threshold,
    read,
    recall_threshold,
    unscored,
    worse,
)

NAMES = ("cat", "dog")


def place(number: int) -> tuple[float, float, float, float]:
    """The number-th of boxes that do not overlap."""
    return (20.0 * number, 0.0, 20.0 * number + 10, 10.0)


def truth(objects: list[tuple[int, int]], first_id: int = 1) -> GroundTruth:
    return GroundTruth(
        np.array([place(p) for p, _ in objects], float).reshape(-1, 4),
        np.array([c for _, c in objects], np.int64),
        np.zeros(len(objects), bool),
        np.arange(first_id, first_id + len(objects)),
    )


def result(objects: GroundTruth, found: list[tuple[int, int, float]]) -> ImageResult:
    return ImageResult(
        objects,
        np.array([place(p) for p, _, _ in found], float).reshape(-1, 4),
        np.array([s for _, _, s in found], float),
        np.array([c for _, c, _ in found], np.int64),
    )


def base_of(
    images: list[ImageResult], conditions: list[list[str]] | None = None, threshold: float = 0.5
) -> Base:
    matched = match_all(images)
    conditions = conditions or [[""] * len(image.truth.classes) for image in images]
    causes = {int(i): "miss" for image in images for i in image.truth.ids}
    objects = gather_objects([image.truth for image in images], conditions, causes, np.ones(2, bool))
    false = np.full(len(matched.scores), "background")
    return Base(objects, matched, threshold, len(images), false, np.full(len(false), ""), NAMES)


def test_fixed_broken_and_new() -> None:
    objects = truth([(0, 0), (1, 0), (2, 1), (3, 1)])
    base = base_of(
        [result(objects, [(0, 0, 0.9), (2, 1, 0.8), (5, 0, 0.7), (6, 0, 0.6)])],
        [["post", "post", "", "dark"]],
    )
    arm = match_all([result(objects, [(1, 0, 0.9), (2, 1, 0.8), (5, 0, 0.9), (6, 1, 0.7), (7, 0, 0.4)])])
    reading = read(base, arm, 0.5)
    assert reading["fn"] == {"n": 2, "fixed": 1, "rate": 0.5}
    assert reading["fp"] == {
        "n": 2,
        "fixed": 1,
        "rate": 0.5,
    }  # place 6 holds another class's false positive now
    assert reading["broken"] == {"n": 2, "lost": 1, "rate": 0.5}
    assert (reading["false_per_image"], reading["new_false_per_image"]) == (2.0, 1.0)
    assert reading["groups"]["condition"]["post"]["fn"] == {"n": 1, "fixed": 1, "rate": 1.0}
    assert reading["groups"]["condition"]["post"]["broken"] == {"n": 1, "lost": 1, "rate": 1.0}
    assert reading["groups"]["condition"]["dark"]["fn"]["rate"] == 0.0
    assert reading["groups"]["cause"]["FN:miss"]["fn"]["n"] == 2
    assert reading["groups"]["class"]["dog"]["fn"] == {"n": 1, "fixed": 0, "rate": 0.0}


def test_a_false_positive_that_becomes_true_is_fixed() -> None:
    objects = truth([(0, 0)])
    base = base_of([result(objects, [(0, 1, 0.9)])])
    reading = read(base, match_all([result(objects, [(0, 0, 0.9)])]), 0.5)
    assert reading["fp"]["rate"] == reading["fn"]["rate"] == 1.0


def test_the_matched_threshold_gives_at_most_the_bases_false_positives() -> None:
    objects = truth([(0, 0)])
    base = base_of([result(objects, [(5, 0, 0.9)])])
    arm = match_all([result(objects, [(5, 0, 0.9), (6, 0, 0.8), (7, 0, 0.7), (0, 0, 0.75)])])
    threshold = matched_threshold(arm, base.false_count, floor=0.05)
    assert threshold == np.nextafter(0.8, 2)
    both = compare(base, arm, floor=0.05)
    assert both["fixed_threshold"]["fn"]["rate"] == 1.0
    assert both["matched_threshold"]["fn"]["rate"] == both["worse"]["fn"]["rate"] == 0.0
    assert matched_threshold(match_all([result(objects, [])]), 0, floor=0.05) == 0.05


def test_false_positives_are_read_at_the_bases_recall() -> None:
    objects = truth([(0, 0), (1, 0)])
    base = base_of([result(objects, [(0, 0, 0.9), (5, 0, 0.8)])])  # one found, one false
    bold = match_all([result(objects, [(0, 0, 0.9), (1, 0, 0.9), (5, 0, 0.8)])])
    both = compare(base, bold, floor=0.05)  # finds more, so its threshold rises above the old mistake
    assert both["matched_recall"]["threshold"] == 0.9
    assert both["matched_recall"]["fp"]["rate"] == 1.0
    assert both["worse"]["fp"]["rate"] == both["fixed_threshold"]["fp"]["rate"] == 0.0
    shy = match_all([result(objects, [(0, 0, 0.3), (5, 0, 0.4)])])
    both = compare(base, shy, floor=0.05)  # quiet everywhere: at equal recall the mistake is back
    assert both["fixed_threshold"]["fp"]["rate"] == 1.0
    assert both["worse"]["fp"]["rate"] == both["matched_recall"]["fp"]["rate"] == 0.0


def test_objects_that_do_not_count_enter_no_rate() -> None:
    objects = GroundTruth(
        np.array([place(0), place(1)]), np.array([0, 1]), np.array([True, False]), np.array([1, 2])
    )
    gathered = gather_objects([objects], [["", ""]], {}, np.array([True, False]))
    assert gathered.counted.tolist() == [False, False]


def test_small_groups_are_named_but_not_scored() -> None:
    few, many = FEWEST - 1, FEWEST
    objects = [truth([(0, 0)], i + 1) for i in range(few + many)]
    base = base_of(
        [result(o, []) for o in objects], [["few" if i < few else "many"] for i in range(few + many)]
    )
    both = compare(base, match_all([result(o, [(0, 0, 0.9)]) for o in objects]), floor=0.05)
    assert both["worse"]["groups"]["condition"]["few"]["fn"] == {"n": few, "rate": None}
    assert both["worse"]["groups"]["condition"]["many"]["fn"] == {"n": many, "rate": 1.0}
    assert unscored(both) == [f"few (FN: {few})"]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[ImageResult], list[ImageResult]]:
    """A holdout with the detections of two detectors."""
    objects = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=4)
    found = st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([0.1, 0.4, 0.5, 0.6, 0.9])),
        max_size=6,
    )
    truths = [truth(draw(objects), 10 * i) for i in range(draw(st.integers(1, 3)))]
    return [result(t, draw(found)) for t in truths], [result(t, draw(found)) for t in truths]


def total(reading: dict[str, Any], kind: str, figure: str) -> int:
    return sum(group[kind][figure] for group in reading["groups"]["class"].values())


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_properties(pair: tuple[list[ImageResult], list[ImageResult]]) -> None:
    base, arm = base_of(pair[0]), match_all(pair[1])
    same = read(base, base.matched, 0.5)
    assert not same["fn"]["fixed"]
    assert not same["fp"]["fixed"]
    assert not same["broken"]["lost"]
    assert same["new_false_per_image"] == 0

    reading, higher = read(base, arm, 0.5), read(base, arm, 0.6)
    assert higher["fn"]["fixed"] <= reading["fn"]["fixed"]  # a higher threshold finds less ...
    assert higher["fp"]["fixed"] >= reading["fp"]["fixed"]  # ... and invents less
    assert higher["broken"]["lost"] >= reading["broken"]["lost"]
    assert reading["fn"]["n"] + reading["broken"]["n"] == int(base.objects.counted.sum())
    for kind, figure in (("fn", "fixed"), ("fp", "fixed"), ("broken", "lost")):
        assert total(reading, kind, "n") == reading[kind]["n"]
        assert total(reading, kind, figure) == reading[kind][figure]

    threshold = matched_threshold(arm, base.false_count, floor=0.05)
    assert arm.false_positives(threshold).sum() <= base.false_count
    lower = [s for s in np.unique(arm.scores) if 0.05 <= s < threshold]
    assert not lower or arm.false_positives(lower[-1]).sum() > base.false_count
    both = worse(reading, reading, higher)
    assert both["new_false_per_image"] == max(reading["new_false_per_image"], higher["new_false_per_image"])

    kept = int((base.objects.counted & (base.matched.found_at >= 0.5)).sum())
    threshold = recall_threshold(base.objects, arm, kept, floor=0.05)
    found = base.objects.counted & (arm.found_at >= threshold)
    if threshold > 0.05:
        assert found.sum() >= kept  # at least as many: scores may be tied ...
        assert not kept or (arm.found_at[found] > threshold).sum() < kept  # ... and no higher one will do
    else:
        assert (base.objects.counted & (arm.found_at > 0.05)).sum() <= kept


@settings(max_examples=100, deadline=None)
@given(pairs(), st.sampled_from([0.1, 0.4, 0.5, 0.6, 0.9, 0.95]))
def test_matching_once_equals_matching_at_the_threshold(
    pair: tuple[list[ImageResult], list[ImageResult]], threshold: float
) -> None:
    once: Matched = match_all(pair[0])
    shown = [image.above(threshold) for image in pair[0]]
    found = [match(s.boxes, s.scores, s.classes, s.truth, iou_threshold=0.5) for s in shown]
    assert np.concatenate([m.found_by >= 0 for m in found]).tolist() == (once.found_at >= threshold).tolist()
    assert sum(int(m.false_positive.sum()) for m in found) == int(once.false_positives(threshold).sum())


def test_the_calibration_error_is_the_distance_of_scores_from_the_share_that_is_right() -> None:
    objects = truth([(0, 0), (1, 0), (2, 1)])
    found = result(objects, [(0, 0, 0.95), (1, 0, 0.95), (5, 0, 0.95), (6, 1, 0.15)])
    base = base_of([found])
    # .95 three times with two right; .15 once with none: (|2.85 - 2| + .15) / 4
    assert calibration_error(base.objects, base.matched) == pytest.approx((0.85 + 0.15) / 4)
    nothing = base_of([result(objects, [])])
    assert np.isnan(calibration_error(nothing.objects, nothing.matched))
