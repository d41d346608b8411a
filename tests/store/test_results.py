"""Runs, resuming, detections, outcomes, explanations: idempotence and what readers see."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import NotFoundError
from store.records import Attribution, GridMap, Group, ItemStatus, Region, Segmentation, SegmentMap
from store.store import Store


@pytest.fixture
def image(store: Store, run: int, build: Any) -> int:
    return store.add_images(run, [build.image(1)])[0].image_id


@pytest.fixture
def model(store: Store) -> int:
    return store.put_model("python:x:y", "fingerprint", ["car", "bus"])


# ---------------------------------------------------------------- runs and resuming


def test_runs_tell_what_was_done(store: Store) -> None:
    first = store.begin_run("detect", config={"out": Path("a/b"), "roles": ("mine",)}, seed=3, models=["f"])
    second = store.begin_run("diagnose", config={}, parents=[first])
    store.finish_run(first, status="partial", counts={"done": 2, "failed": 1})
    newest, oldest = store.runs()
    assert (newest.id, newest.status, newest.parents, newest.finished_at) == (
        second,
        "running",
        (first,),
        None,
    )
    assert oldest.config == {"out": "a/b", "roles": ["mine"]}
    assert (oldest.status, oldest.counts, oldest.seed, oldest.models) == (
        "partial",
        {"done": 2, "failed": 1},
        3,
        ("f",),
    )
    assert oldest.finished_at is not None
    assert oldest.started_at <= oldest.finished_at
    assert oldest.started_at.utcoffset() is not None
    assert [run.id for run in store.runs(stage="detect")] == [first]
    with pytest.raises(NotFoundError, match="no run 99"):
        store.finish_run(99, status="done", counts={})


def test_failed_items_are_tried_again_and_done_ones_skipped(store: Store, image: int) -> None:
    run = store.begin_run("detect", config={})
    store.record_items(
        run,
        [
            ItemStatus(key="a", status="done", image_id=image),
            ItemStatus(key="b", status="failed", image_id=image, message="no file"),
        ],
    )
    assert store.done_keys("detect", ["a", "b", "c"]) == {"a"}
    assert store.done_keys("diagnose", ["a"]) == set()
    assert store.failed_items(run) == [
        ItemStatus(key="b", status="failed", image_id=image, message="no file")
    ]
    again = store.begin_run("detect", config={})
    store.record_items(again, [ItemStatus(key="b", status="done", image_id=image)])
    assert store.done_keys("detect", ["a", "b"]) == {"a", "b"}
    assert store.failed_items(run) == []
    with pytest.raises(NotFoundError):
        store.record_items(99, [ItemStatus(key="a", status="done")])


def test_more_keys_than_a_statement_takes(store: Store) -> None:
    run = store.begin_run("detect", config={})
    keys = [f"key{n}" for n in range(40_000)]
    store.record_items(run, [ItemStatus(key=key, status="done") for key in keys[:100]])
    assert store.done_keys("detect", keys) == set(keys[:100])


# ---------------------------------------------------------------- detections


def test_detections_come_back_equal_and_newest_first(
    store: Store, run: int, build: Any, image: int, model: int
) -> None:
    first = build.detections(image, model, "k1")
    assert store.put_model("python:x:y", "fingerprint", ["car", "bus"]) == model
    ids = store.put_detections(run, [first])
    assert store.put_detections(run, [first]) == ids
    found = store.detections(model, [image])[image]
    assert (found.id, found.run_id) == (ids[0], run)
    assert found.pin.to_json() == first.pin.to_json()
    for name in ("boxes", "scores", "labels", "candidates"):
        np.testing.assert_array_equal(getattr(found.detections, name), getattr(first.detections, name))
    store.put_detections(run, [build.detections(image, model, "k2", count=0)])
    assert len(store.detections(model, [image])[image].detections) == 0
    store.set_current("detect", ["k1"], run_id=run)  # the first configuration was run again and skipped
    assert store.detections(model, [image])[image].key == "k1"
    assert store.detections(model + 1, [image]) == {}
    assert store.model(model).classes == ("car", "bus")
    with pytest.raises(NotFoundError, match="curator detect"):
        store.model(99)


def test_keys_are_required(store: Store, run: int, build: Any, image: int, model: int) -> None:
    with pytest.raises(ValueError, match="content key"):
        store.put_outcomes(run, image, [build.outcome(image, model, "")], item_key="i")
    with pytest.raises(ValueError, match="item's key"):
        store.put_outcomes(run, image, [build.outcome(image, model, "k")], item_key="")
    with pytest.raises(ValueError, match="content key"):
        store.put_detections(run, [build.detections(image, model, "")])
    with pytest.raises(ValueError, match="expected image"):
        store.put_outcomes(run, image, [build.outcome(image + 1, model, "k")], item_key="i")
    assert store.counts()["outcomes"] == store.counts()["detections"] == 0


# ---------------------------------------------------------------- outcomes


def test_outcomes_of_the_current_diagnosis(
    store: Store, run: int, build: Any, image: int, model: int
) -> None:
    a, b = build.outcome(image, model, "a"), build.outcome(image, model, "b", "FP", "background", "bus")
    success = build.outcome(image, model, "c", "TP", None)
    ids = store.put_outcomes(run, image, [a, success], item_key="item1")
    assert store.outcomes() == []  # no diagnosis has finished yet
    assert store.outcomes(run_id=run) == [replace(a, id=ids[0]), replace(success, id=ids[1])]
    store.set_current("diagnose", ["item1", "item-without-outcomes"], run_id=run)
    assert [outcome.id for outcome in store.outcomes()] == ids
    assert [o.key for o in store.outcomes(kind="FN")] == ["a"]
    assert [o.key for o in store.outcomes(kind="FN", cause="suppressed")] == []
    assert store.counts()["failures_FN"] == store.counts()["successes"] == 1

    second = store.begin_run("diagnose", config={"other": 1})
    assert store.put_outcomes(second, image, [a, b], item_key="item2")[0] == ids[0]  # shared by both
    store.set_current("diagnose", ["item2"], run_id=second)
    assert [outcome.key for outcome in store.outcomes()] == ["a", "b"]
    assert [outcome.key for outcome in store.outcomes(category="bus")] == ["b"]
    assert [outcome.key for outcome in store.outcomes(ids=[ids[1]])] == ["c"]

    third = store.begin_run("diagnose", config={})  # the first configuration again: every item is skipped
    store.set_current("diagnose", ["item1"], run_id=third)
    assert [outcome.key for outcome in store.outcomes()] == ["a", "c"]


def test_current_items_of_one_run_add_up(store: Store, run: int, build: Any, image: int, model: int) -> None:
    for key in ("a", "b"):
        store.put_outcomes(run, image, [build.outcome(image, model, key)], item_key=key)
        store.set_current("diagnose", [key], run_id=run)
    assert [outcome.key for outcome in store.outcomes()] == ["a", "b"]
    store.set_current("diagnose", [], run_id=store.begin_run("diagnose", config={}))
    assert store.outcomes() == []


# ---------------------------------------------------------------- explanations


@pytest.fixture
def outcome(store: Store, run: int, build: Any, image: int, model: int) -> int:
    found = store.put_outcomes(run, image, [build.outcome(image, model, "o")], item_key="item")
    store.set_current("diagnose", ["item"], run_id=run)
    return found[0]


def segment_map(seed: int = 0) -> SegmentMap:
    phi = np.random.default_rng(seed).normal(size=50).astype(np.float32)
    return SegmentMap(
        phi=phi, full=0.7, empty=0.1, gap=-1e-9, passes=32, evidence=False, extra={"steps": 16.0}
    )


def test_segmentations_come_back_equal(store: Store, image: int) -> None:
    labels = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 30
    new = Segmentation(image_id=image, labels=labels, key="s")
    found = store.put_segmentation(new)
    assert store.put_segmentation(new) == found
    np.testing.assert_array_equal(store.segmentation(found).labels, labels)
    assert store.segmentation(found).labels.dtype == np.uint16
    with pytest.raises(ValueError, match="uint16"):
        store.put_segmentation(Segmentation(image_id=image, labels=labels.astype(np.int64), key="t"))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        store.segmentation(99)


def test_attributions_come_back_equal(store: Store, run: int, image: int, outcome: int) -> None:
    segmentation = store.put_segmentation(
        Segmentation(image_id=image, labels=np.zeros((2, 2), np.uint16), key="s")
    )
    grid = GridMap(
        values=np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        scale=(8.0, 8.5),
        offset=(3.5, 4.0),
        full=0.5,
        empty=math.nan,
        gap=math.nan,
        passes=3,
        extra={"sum": math.nan},
    )
    made = [
        Attribution(
            outcome_id=outcome, method="e2x", map=segment_map(), key="a1", segmentation_id=segmentation
        ),
        Attribution(outcome_id=outcome, method="rise", map=grid, key="a2"),
    ]
    ids = store.put_attributions(run, made)
    assert store.put_attributions(run, made) == ids
    rise, e2x = store.attributions()
    assert isinstance(e2x.map, SegmentMap)
    np.testing.assert_array_equal(e2x.map.phi, segment_map().phi)
    assert (e2x.map.full, e2x.map.gap, e2x.map.passes, e2x.map.evidence) == (0.7, -1e-9, 32, False)
    assert (e2x.map.extra, e2x.segmentation_id) == ({"steps": 16.0}, segmentation)
    assert isinstance(rise.map, GridMap)
    np.testing.assert_allclose(rise.map.values, grid.values, rtol=1e-3)
    assert (rise.map.scale, rise.map.offset, rise.map.full) == ((8.0, 8.5), (3.5, 4.0), 0.5)
    assert math.isnan(rise.map.gap)
    assert math.isnan(rise.map.extra["sum"])


def test_the_newest_attribution_counts(store: Store, run: int, outcome: int) -> None:
    for n in range(3):
        store.put_attributions(
            run, [Attribution(outcome_id=outcome, method="e2x", map=segment_map(n), key=f"a{n}")]
        )
    assert [found.key for found in store.attributions(outcome_ids=[outcome], method="e2x")] == ["a2"]
    assert store.attributions(method="rise") == []
    store.set_current("diagnose", [], run_id=store.begin_run("diagnose", config={}))
    assert store.attributions() == []
    assert [found.key for found in store.attributions(outcome_ids=[outcome])] == ["a2"]


def test_regions_of_the_newest_attribution(store: Store, run: int, image: int, outcome: int) -> None:
    def region(attribution: int, key: str) -> Region:
        return Region(
            attribution_id=attribution,
            outcome_id=outcome,
            image_id=image,
            kind="culprit",
            box=(1.0, 2.0, 3.5, 4.5),
            segments=(3, 1, 2),
            weight=0.25,
            key=key,
        )

    first, second = store.put_attributions(
        run,
        [Attribution(outcome_id=outcome, method="e2x", map=segment_map(n), key=f"a{n}") for n in range(2)],
    )
    ids = store.put_regions(run, [region(first, "r1"), region(first, "r2")])
    assert store.put_regions(run, [region(first, "r1"), region(first, "r2")]) == ids
    assert store.regions() == [
        replace(region(first, "r1"), id=ids[0]),
        replace(region(first, "r2"), id=ids[1]),
    ]
    store.put_regions(run, [region(second, "r3")])
    assert [found.key for found in store.regions(outcome_ids=[outcome])] == ["r3"]


def test_groups_of_the_newest_grouping(store: Store, run: int, build: Any, image: int, model: int) -> None:
    ids = store.put_outcomes(
        run, image, [build.outcome(image, model, str(n)) for n in range(4)], item_key="i"
    )
    group = Group(
        name="FN:miss:car",
        kind="FN",
        cause="miss",
        category="car",
        outcome_ids=(ids[2], ids[0]),
        success_ids=(ids[3],),
    )
    store.put_groups(run, [group])
    store.put_groups(run, [group])
    assert store.groups() == [group]
    second = store.begin_run("query", config={})
    other = replace(group, outcome_ids=(ids[1],), success_ids=())
    store.put_groups(second, [other])
    assert store.groups() == [other]
    third = store.begin_run("query", config={})
    store.put_groups(third, [group])
    assert store.groups() == [group]
    assert store.counts()["groups"] == 2
