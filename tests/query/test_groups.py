"""Groups of failures on vectors whose causes are known; their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from curator.query.asked import Mined
from curator.query.group_names import _unique
from curator.query.groups import clusters, group_failures, principal
from curator.query.looks import look
from store.records import BoxRows, ImageBoxes, Outcome, TargetRecord

CLASSES = ("Car", "Truck")
VIEWS = 8


def outcome(number: int, kind: str, cause: str | None, category: str, box: tuple[float, ...]) -> Outcome:
    return Outcome(
        image_id=number,
        model_id=1,
        kind=kind,
        cause=cause,
        category=category,
        box=box,
        score=0.2,
        iou=0.0,
        target=TargetRecord(candidate=0, label=0, rule="matched", score=0.2, iou=0.6),
        key=str(number),
        id=number,
    )


def mined(seed: int = 0, each: int = 40) -> tuple[Mined, list[Outcome], np.ndarray]:
    """Three causes of misses (a vector of their own, small boxes, seen as the other class), successes and
    false positives; one outcome an image. Classes move the vectors more than any cause."""
    rng = np.random.default_rng(seed)
    images, offered, outcomes, causes = [], [], [], []
    for number in range(1, 7 * each + 1):
        cause = ("far", "odd", "other", "right", "right", "right", "background")[number % 7]
        category = CLASSES[int(rng.integers(2))]
        side = rng.uniform(8, 12) if cause == "far" else rng.uniform(40, 60)
        x, y = rng.uniform(0, 130, 2)
        vector = rng.normal(0, 0.5, VIEWS)
        vector[0] += 3 if category == "Car" else -3
        vector[1] += 2.5 if cause == "odd" else 0
        label, score = CLASSES.index(category), 0.2
        if cause == "other":
            label, score = 1 - label, 0.8
        kind = {"right": "TP", "background": "FP"}.get(cause, "FN")
        why = {"right": None, "background": "background", "other": "misclassified"}.get(cause, "miss")
        outcomes.append(outcome(number, kind, why, category, (x, y, x + side, y + side)))
        causes.append(cause)
        codes = np.clip(np.rint(25 * vector), -127, 127).astype(np.int8)[None]
        box = np.array([outcomes[-1].box], np.float32)
        common = {"image_id": number, "key": "", "size": (200, 200), "boxes": box, "image_views": {}}
        common["views"] = {"object": codes, "context": np.zeros_like(codes)}
        images.append(
            ImageBoxes(
                **common,
                labels=np.zeros((0, 5), np.int64),
                scores=np.zeros((0, 5), np.float32),
                outcome_ids=np.array([number]),
                attribution_ids=np.array([-1]),
            )
        )
        offered.append(
            ImageBoxes(
                **common,
                labels=np.array([[label, -1, -1, -1, -1]]),
                scores=np.array([[score, 0, 0, 0, 0]], np.float32),
            )
        )
    told = Mined(
        offered=BoxRows.of(offered),
        image_ids=np.arange(1, 7 * each + 1),
        outcomes=BoxRows.of(images),
        culprits=None,
        known={o.id or 0: o for o in outcomes},
        units={},
    )
    return told, outcomes, np.array(causes)


@pytest.fixture(scope="module")
def heap() -> tuple[Mined, list[Outcome], np.ndarray]:
    return mined()


def test_causes_are_told_apart_and_classes_are_not(heap: tuple[Mined, list[Outcome], np.ndarray]) -> None:
    told, outcomes, causes = heap
    found = group_failures(outcomes, told, CLASSES, threshold=0.5)
    failing = [i for i, o in enumerate(outcomes) if o.kind != "TP"]
    places = [found.place[outcomes[i].id] for i in failing]
    assert adjusted_rand_score(causes[failing], places) >= 0.95
    assert len(found.groups) == 4
    assert found.stability["FN"] >= 0.85
    assert sum(len(group) for group in found.groups) == len(failing)
    for group in found.groups:
        assert set(group.exemplars) <= set(group.outcome_ids)
        assert len(group.exemplars) == 3
        assert set(group.told["classes"]) == set(CLASSES)


def test_names_say_what_is_special(heap: tuple[Mined, list[Outcome], np.ndarray]) -> None:
    told, outcomes, causes = heap
    odd = [o.id for o, cause in zip(outcomes, causes, strict=True) if cause == "odd"]
    looks = {o.id: {"brightness": 0.1 if o.id in odd else 0.5 + 0.001 * (o.id % 9)} for o in outcomes}
    conditions = {o.id: "night" for o in outcomes if o.id in odd}
    found = group_failures(outcomes, told, CLASSES, threshold=0.5, looks=looks, conditions=conditions)
    names = {causes[group.outcome_ids[0] - 1]: group.name for group in found.groups}
    assert names["far"].endswith("small, not seen")
    assert names["odd"].endswith("dark, not seen, night")
    assert "seen as" in names["other"]
    assert names["background"].startswith("false ")
    assert names["background"].endswith("on background")
    assert all(name.startswith(("missed Car or Truck", "missed Truck or Car")) or "false" in name
               for name in names.values())  # fmt: skip


def test_classes_can_be_kept_apart(heap: tuple[Mined, list[Outcome], np.ndarray]) -> None:
    told, outcomes, _ = heap
    found = group_failures(outcomes, told, CLASSES, threshold=0.5, apart=("kind", "class"))
    assert all(len(group.told["classes"]) == 1 for group in found.groups)
    assert set(found.stability) == {f"{k} {c}" for k in ("FN", "FP:background") for c in CLASSES}


def test_failures_without_vectors_are_told_and_few_are_one_group(
    heap: tuple[Mined, list[Outcome], np.ndarray],
) -> None:
    told, outcomes, _ = heap
    few = [o for o in outcomes if o.kind == "FN"][:3]
    found = group_failures([*few, replace(few[0], id=9999)], told, CLASSES, threshold=0.5)
    assert [len(group) for group in found.groups] == [3]
    assert found.silent == (9999,)
    assert group_failures([], told, CLASSES, threshold=0.5).groups == ()


def test_one_cloud_is_one_group() -> None:
    for seed in range(5):
        points = principal(np.random.default_rng(seed).normal(size=(120, 30)), 12)
        labels, _, stability = clusters(points)
        assert (labels.max(), stability) == (0, 1.0)


def test_the_same_failures_give_the_same_groups(heap: tuple[Mined, list[Outcome], np.ndarray]) -> None:
    told, outcomes, _ = heap
    found = [group_failures(outcomes, told, CLASSES, threshold=0.5, seed=4) for _ in range(2)]
    assert found[0] == found[1]


def test_looks_of_boxes() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 10:] = (255, 0, 0)
    dark, red, none = look(pixels, [(0, 0, 10, 20), (10, 0, 30, 20), (40, 40, 50, 50)])
    assert dark == {"brightness": 0, "contrast": 0, "colour": 0}
    assert (red["brightness"], red["colour"]) == (pytest.approx(0.299), 1)
    assert none == {}


def test_equal_names_are_numbered() -> None:
    assert _unique(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]
