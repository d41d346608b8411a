"""Runs, resuming, detections, outcomes, explanations: idempotence and what readers see."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import NotFoundError
from store.records import Attribution, GridMap, ItemStatus, NewImage, Region, Segmentation, SegmentMap
from store.store import Store


@pytest.fixture
def image(store: Store, run: int, build: Any) -> int:
    return store.add_images(run, [build.image(1)])[0].image_id


@pytest.fixture
def model(store: Store) -> int:
    return store.put_model("python:x:y", "fingerprint", ["car", "bus"])


def begin(store: Store, stage: str, key: str, **more: Any) -> int:
    """A run of the configuration `key`."""
    return store.begin_run(stage, config={}, config_key=key, **more)


def done(store: Store, run: int, image: int | None, *keys: str) -> None:
    """Record items of an image as done."""
    store.record_items(run, [ItemStatus(key=key, status="done", image_id=image) for key in keys])


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


def test_the_current_run_is_the_newest_that_wants_to_be(store: Store, image: int) -> None:
    assert store.current_run("explain") is None
    first = begin(store, "explain", "a", scope="model", facts={"precision": "fp32"})
    done(store, first, image, "one")
    store.finish_run(first, status="interrupted", counts={"done": 1})
    empty = begin(store, "explain", "z", scope="model")  # stopped before it stored anything
    store.finish_run(empty, status="interrupted", counts={})
    found = store.current_run("explain", "model")
    assert found is not None
    assert (found.id, found.config_key, found.facts) == (first, "a", {"precision": "fp32"})
    aside = begin(store, "explain", "b", scope="model", aside=True)
    failed = begin(store, "explain", "c", scope="model")
    store.finish_run(failed, status="failed", counts={})
    begin(store, "explain", "d", scope="other model")
    begin(store, "index", "e", scope="model")
    assert store.current_run("explain", "model") == found
    store.finish_run(aside, status="done", counts={})
    assert store.current_run("explain", "model") == found
    store.describe_run(first, {"precision": "bf16"})
    again = store.current_run("explain", "model")
    assert again is not None
    assert again.facts == {"precision": "bf16"}


def test_items_of_an_older_version_are_claimed(store: Store, image: int) -> None:
    old = begin(store, "diagnose", "legacy")
    done(store, old, image, "a", "b")
    new = begin(store, "diagnose", "now")
    store.claim_items(new, ["a", "absent"])
    with store._database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT key, config_key FROM items ORDER BY key").all()
    assert [tuple(row) for row in rows] == [("a", "now"), ("b", "legacy")]


def test_more_keys_than_a_statement_takes(store: Store) -> None:
    run = store.begin_run("detect", config={})
    keys = [f"key{n}" for n in range(40_000)]
    store.record_items(run, [ItemStatus(key=key, status="done") for key in keys[:100]])
    assert store.done_keys("detect", keys) == set(keys[:100])


# ---------------------------------------------------------------- detections


def test_detections_of_the_configuration_that_ran_last(
    store: Store, build: Any, image: int, model: int
) -> None:
    first, second = begin(store, "detect", "floor 1"), begin(store, "detect", "floor 2")
    store.put_detections(first, [build.detections(image, model, "k1")])
    store.put_detections(second, [build.detections(image, model, "k2", count=0)])
    assert store.detections(model, [image])[image].key == "k2"
    assert store.detections(model, [image], config_key="floor 1")[image].key == "k1"
    assert store.detections(model, [image], config_key="floor 3") == {}
    begin(store, "detect", "floor 1")  # again: every image is skipped
    assert store.detections(model, [image])[image].key == "k1"
    alias = store.put_model("python:x:another_name", "fingerprint", ["car", "bus"])
    assert store.detections(alias, [image])[image].key == "k1"  # the same weights


def test_detections_come_back_equal(
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


def test_outcomes_of_the_current_diagnosis(store: Store, build: Any, image: int, model: int) -> None:
    a, b = build.outcome(image, model, "a"), build.outcome(image, model, "b", "FP", "background", "bus")
    success = build.outcome(image, model, "c", "TP", None)
    run = begin(store, "diagnose", "first")
    ids = store.put_outcomes(run, image, [a, success], item_key="item1")
    assert store.outcomes() == []  # the item is not done yet
    assert store.outcomes(run_id=run) == [replace(a, id=ids[0]), replace(success, id=ids[1])]
    done(store, run, image, "item1")
    assert [outcome.id for outcome in store.outcomes()] == ids
    assert [o.key for o in store.outcomes(kind="FN")] == ["a"]
    assert [o.key for o in store.outcomes(kind="FN", cause="suppressed")] == []
    assert store.counts()["failures_FN"] == store.counts()["successes"] == 1

    second = begin(store, "diagnose", "second")
    assert store.outcomes() == []
    assert store.put_outcomes(second, image, [a, b], item_key="item2")[0] == ids[0]  # shared by both
    done(store, second, image, "item2")
    assert [outcome.key for outcome in store.outcomes()] == ["a", "b"]
    assert [outcome.key for outcome in store.outcomes(category="bus")] == ["b"]
    assert [outcome.key for outcome in store.outcomes(ids=[ids[1]])] == ["c"]

    begin(store, "diagnose", "first")  # again: every item is skipped
    assert [outcome.key for outcome in store.outcomes()] == ["a", "c"]


def test_outcomes_of_the_newest_item_of_an_image(store: Store, build: Any, image: int, model: int) -> None:
    """Labels changed and changed again: every version is an item of its own."""
    for number, key in enumerate(("v1", "v2", "v3")):
        run = begin(store, "diagnose", "one")
        store.put_outcomes(run, image, [build.outcome(image, model, key)], item_key=key)
        done(store, run, image, key)
        assert [outcome.key for outcome in store.outcomes()] == [key], number
    failed = begin(store, "diagnose", "one")
    store.record_items(failed, [ItemStatus(key="v4", status="failed", image_id=image)])
    assert store.outcomes() == []


def test_outcomes_are_those_of_mined_images(store: Store, build: Any, image: int, model: int) -> None:
    run = begin(store, "diagnose", "one")
    pool: NewImage = build.image(2, "pool")
    (other,) = store.add_images(run, [pool])
    for number, key in ((other.image_id, "b"), (image, "a")):  # in any order
        store.put_outcomes(run, number, [build.outcome(number, model, key)], item_key=key)
        done(store, run, number, key)
    assert [outcome.key for outcome in store.outcomes()] == ["a"]
    store.add_images(run, [replace(pool, role="mine")])
    assert [outcome.key for outcome in store.outcomes()] == ["a", "b"]


# ---------------------------------------------------------------- explanations


@pytest.fixture
def outcome(store: Store, run: int, build: Any, image: int, model: int) -> int:
    run = begin(store, "diagnose", "d", models=["fingerprint"])
    found = store.put_outcomes(run, image, [build.outcome(image, model, "o")], item_key="item")
    done(store, run, image, "item")
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


def test_attributions_come_back_equal(store: Store, image: int, outcome: int) -> None:
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
    (e2x_run, rise_run) = (begin(store, "explain", key, scope="fingerprint") for key in ("e2x", "rise"))
    ids = store.put_attributions(e2x_run, made[:1])
    assert store.put_attributions(e2x_run, made[:1]) == ids
    store.put_attributions(rise_run, made[1:])
    (e2x,) = store.attributions(config_key="e2x")
    (rise,) = store.attributions()
    assert isinstance(e2x.map, SegmentMap)
    np.testing.assert_array_equal(e2x.map.phi, segment_map().phi)
    assert (e2x.map.full, e2x.map.gap, e2x.map.passes, e2x.map.evidence) == (0.7, -1e-9, 32, False)
    assert (e2x.map.extra, e2x.segmentation_id) == ({"steps": 16.0}, segmentation)
    assert isinstance(rise.map, GridMap)
    np.testing.assert_allclose(rise.map.values, grid.values, rtol=1e-3)
    assert (rise.map.scale, rise.map.offset, rise.map.full) == ((8.0, 8.5), (3.5, 4.0), 0.5)
    assert math.isnan(rise.map.gap)
    assert math.isnan(rise.map.extra["sum"])


def test_attributions_of_the_current_configuration(store: Store, outcome: int) -> None:
    def explain(key: str, **more: Any) -> None:
        run = begin(store, "explain", key, scope="fingerprint", **more)
        new = Attribution(outcome_id=outcome, method=key, map=segment_map(), key=key)
        store.put_attributions(run, [new])

    def keys() -> list[str]:
        return [found.key for found in store.attribution_keys()]

    assert store.attributions() == []
    explain("a")
    assert keys() == ["a"]
    explain("b")
    assert keys() == ["b"]
    explain("look", aside=True)
    assert keys() == ["b"]
    explain("a")  # again
    assert keys() == ["a"]
    assert [found.key for found in store.attributions(outcome_ids=[outcome], config_key="look")] == ["look"]
    (found,) = store.attribution_keys()
    assert (found.outcome_id, found.method, found.evidence) == (outcome, "a", False)
    begin(store, "diagnose", "other", models=["fingerprint"])
    assert store.attributions() == []
    assert [found.key for found in store.attributions(outcome_ids=[outcome])] == ["a"]
    begin(store, "diagnose", "other", models=["another model"])  # which nothing explained
    assert store.attributions(outcome_ids=[outcome]) == []


def test_regions_of_the_current_attributions(store: Store, image: int, outcome: int) -> None:
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

    run = begin(store, "explain", "one", scope="fingerprint")
    made = [Attribution(outcome_id=outcome, method="e2x", map=segment_map(n), key=f"a{n}") for n in range(2)]
    (first,) = store.put_attributions(run, made[:1])
    ids = store.put_regions(run, [region(first, "r1"), region(first, "r2")])
    assert store.put_regions(run, [region(first, "r1"), region(first, "r2")]) == ids
    assert store.regions() == [
        replace(region(first, "r1"), id=ids[0]),
        replace(region(first, "r2"), id=ids[1]),
    ]
    other = begin(store, "explain", "two", scope="fingerprint")
    (second,) = store.put_attributions(other, made[1:])
    store.put_regions(other, [region(second, "r3")])
    assert [found.key for found in store.regions()] == ["r3"]
    assert [found.key for found in store.regions(attribution_ids=[first])] == ["r1", "r2"]
