"""What the report says about failures: their order, their facts, and why a map is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curator.config import ReportConfig
from curator.report.run import NO_EVIDENCE, _causes, _explained, _failure, _figures, report
from store.images import encode_png, probe
from store.records import (
    Attribution,
    Detections,
    DetectionSet,
    GridMap,
    ItemStatus,
    NewImage,
    Outcome,
    Pin,
    Region,
    SegmentMap,
    TargetRecord,
)
from store.store import Store

MISS = Outcome(
    image_id=1,
    model_id=1,
    kind="FN",
    cause="under-threshold",
    category="car",
    box=(2.0, 2.0, 20.0, 20.0),
    score=0.3,
    iou=0.0,
    target=TargetRecord(candidate=7, label=0, rule="matched", score=0.3, iou=0.71),
    key="miss",
)
ALARM = replace(
    MISS,
    kind="FP",
    cause="background",
    target=replace(MISS.target, rule="detection", iou=1.0),
    key="alarm",
)


def test_causes_come_largest_first() -> None:
    rare = replace(MISS, cause="suppressed")
    rows = _causes([rare, ALARM, ALARM, MISS, MISS, MISS, replace(MISS, kind="TP", cause=None)]).rows
    assert [(row[0], row[-1]) for row in rows] == [
        ("FN under-threshold", "3"),
        ("FP background", "2"),
        ("FN suppressed", "1"),
        ("found (TP)", "1"),
    ]


def test_the_overlaps_say_whose_they_are() -> None:
    assert _explained(MISS) == (
        "candidate 7 (the surest candidate on the object), score 0.300, IoU 0.71 with the object; "
        "no reported detection touches the object"
    )
    assert "nearest reported detection has IoU 0.40" in _explained(replace(MISS, iou=0.4))
    assert _explained(ALARM).endswith("(the detection itself), score 0.300; it touches no label")
    assert "IoU 0.20 with the nearest label" in _explained(replace(ALARM, iou=0.2))


def test_a_gap_that_is_not_claimed_is_no_number() -> None:
    grid = GridMap(
        values=np.zeros((2, 2), np.float32),
        scale=(1, 1),
        offset=(0, 0),
        full=0.5,
        empty=0.1,
        gap=float("nan"),
        passes=3,
    )
    text = _figures(Attribution(outcome_id=1, method="drise", map=grid, key="k"))
    assert text == "drise: as a probability, F(1) = 0.500, F(0) = 0.100, no gap claimed, 3 passes"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A diagnosed workspace: one missed object, not explained yet."""
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.full((32, 32, 3), 90, np.uint8)))
    seen = probe(path)
    with Store.create(tmp_path / "ws") as store:
        run = store.begin_run("diagnose", config={}, models=["f"], config_key="diagnosed")
        image = NewImage(
            uri=str(path), sha256=seen.sha256, phash=seen.phash, width=32, height=32, dataset="d", role="mine"
        )
        store.add_images(run, [image])
        store.put_model("python:x:y", "f", ["car"])
        store.put_categories(["car"])
        store.put_outcomes(run, 1, [MISS], item_key="item")
        store.record_items(run, [ItemStatus(key="item", status="done", image_id=1)])
        store.finish_run(run, status="done", counts={})
        yield store


def test_a_missing_map_says_why(store: Store, tmp_path: Path) -> None:
    config = ReportConfig(out=tmp_path / "report.html")
    (outcome,) = store.outcomes()
    assert "curator explain" in _failure(store, config, outcome, ()).missing
    blank = SegmentMap(phi=np.zeros(4, np.float32), full=0.3, empty=0.3, gap=0.0, passes=9, evidence=False)
    assert outcome.id is not None
    store.put_attributions(
        store.begin_run("explain", config={}, scope="f", config_key="explained"),
        [Attribution(outcome_id=outcome.id, method="e2x", map=blank, key="map")],
    )
    card = _failure(store, config, outcome, ())
    assert (card.missing, len(card.pictures)) == (NO_EVIDENCE, 1)
    report(store, config)
    html = config.out.read_text()
    assert NO_EVIDENCE in html
    assert html.count("gap = F(1) - F(0) - the sum") == 1


def test_a_grid_is_drawn_too(store: Store, tmp_path: Path) -> None:
    (outcome,) = store.outcomes()
    assert outcome.id is not None
    run = store.begin_run("explain", config={}, scope="f", config_key="explained")
    pin = Pin(image_size=(32, 32), input_size=(32, 32), scale=(1.0, 1.0), offset=(0.0, 0.0))
    nothing = Detections(
        boxes=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        labels=np.zeros(0, np.int64),
        candidates=np.zeros(0, np.int64),
    )
    store.put_detections(
        run, [DetectionSet(image_id=1, model_id=outcome.model_id, detections=nothing, pin=pin, key="d")]
    )
    values = np.array([[1.0, 0.0], [0.0, -1.0]], np.float32)
    grid = GridMap(
        values=values, scale=(16, 16), offset=(8, 8), full=0.5, empty=0.1, gap=float("nan"), passes=3
    )
    store.put_attributions(run, [Attribution(outcome_id=outcome.id, method="drise", map=grid, key="map")])
    (stored,) = store.attributions()
    box = (16.0, 16.0, 30.0, 30.0)
    store.put_regions(
        run,
        [
            Region(
                attribution_id=stored.id or 0,
                outcome_id=outcome.id,
                image_id=1,
                kind="culprit",
                box=box,
                segments=(),
                weight=1.0,
                key="culprit",
            )
        ],
    )
    card = _failure(store, ReportConfig(out=tmp_path / "report.html"), outcome, ())
    assert not card.missing
    assert card.pictures[-1].caption.endswith("blue lowers it; culprit in a black frame")
    assert (box, "#000000") in card.pictures[-1].boxes
    painted = card.pictures[-1].pixels.astype(int)
    assert painted[4, 4, 0] > painted[4, 4, 2]  # red where it raises the score
    assert painted[28, 28, 2] > painted[28, 28, 0]  # blue where it lowers it
