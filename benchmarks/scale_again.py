"""A workspace in which `detect` and `index` have done all: what they take when they are given again.

Images exist only as rows, with ten detections each; one in a hundred is mined, the rest pool. `fill` makes
them, `measure` gives the commands again in a process of its own: microseconds of the processor an item, and
the bytes an item by which the process grew at most, after the detector was loaded. `scale.py` runs both.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from curator.detect.load import load_detector
from curator.detect.run import DetectWork, detect
from curator.detect.settings import DetectConfig
from curator.query.index_work import IndexedOutcome, IndexItem
from curator.query.run_index import index, index_work, space_name
from curator.query.settings import IndexConfig
from store.models import Dataset, DetectionRow, Image, Item, Member
from store.records import ItemStatus, Outcome, Pin, SpaceShape, TargetRecord
from store.session import table
from store.store import Store

SPEC, PIECE, BOXES = "builtin:", 2000, 10
PIN = Pin(image_size=(480, 640), input_size=(192, 256), scale=(0.4, 0.4))


def role(number: int) -> str:
    """Of image `number`."""
    return "pool" if number % 100 else "mine"


def fill(folder: Path, count: int) -> None:
    """Make the workspace."""
    from sqlalchemy import insert

    model = load_detector(SPEC, "cpu")
    draw = np.random.default_rng(0)
    config = DetectConfig(detector=SPEC, roles=("mine", "pool"))
    indexing = IndexConfig()
    work = DetectWork(
        spec=SPEC, fingerprint=model.fingerprint, score_floor=config.score_floor, chunk=1, batch_size=1
    )
    with Store.create(folder / "workspace") as store:
        run = store.begin_run(
            "detect", config=config.everything(), models=(model.fingerprint,), config_key=work.config_key
        )
        number = store.put_model(SPEC, model.fingerprint, model.classes)
        store.put_categories(model.classes)
        record = store.model(number)
        shape = SpaceShape(
            views={"object": 24, "context": 24},
            image_views={"image": 24},
            classes=len(model.classes),
            facts={"weights": ""},
        )
        name = space_name(indexing, record, "")
        store.create_space(run, name, shape)
        keyed = index_work(indexing, record, shape)
        with store._database.writing() as connection:
            connection.execute(insert(table(Dataset)), [{"id": 1, "name": "made up"}])
        first = outcome(number, model.classes[0])
        for start in range(0, count, PIECE):
            numbers = range(start, min(count, start + PIECE))
            items = [
                IndexItem(image_id=i + 1, uri=f"/images/{i:09d}.jpg", sha256=f"{i:064x}") for i in numbers
            ]
            labels = draw.integers(0, len(model.classes), (len(numbers), BOXES)).astype("<i8")
            rows: dict[Any, list[dict[str, Any]]] = {
                Image: [
                    {"id": item.image_id, "uri": item.uri, "sha256": item.sha256, "phash": "0" * 16}
                    | {"width": 640, "height": 480}
                    for item in items
                ],
                Member: [{"image_id": i + 1, "dataset_id": 1, "role": role(i)} for i in numbers],
                DetectionRow: [
                    {
                        "image_id": item.image_id,
                        "model_id": number,
                        "key": work.key(item),
                        "pin": PIN.to_json(),
                    }  # type: ignore[arg-type]
                    | {"boxes": bytes(16 * BOXES), "scores": bytes(4 * BOXES), "labels": own.tobytes()}
                    | {"candidates": bytes(8 * BOXES), "config_key": work.config_key}
                    for item, own in zip(items, labels, strict=True)
                ],
                Item: [
                    {
                        "stage": stage,
                        "key": key,
                        "config_key": of,
                        "status": "done",
                        "image_id": item.image_id,
                    }
                    for item in items
                    for stage, key, of in (
                        ("detect", work.key(item), work.config_key),  # type: ignore[arg-type]
                        ("index", keyed.key(item if item.image_id > 1 else with_outcome(item, first)), name),
                    )
                ],
            }
            with store._database.writing() as connection:
                for kind, some in rows.items():
                    connection.execute(insert(table(kind)), [{**row, "run_id": run} for row in some])
        store.finish_run(run, status="done", counts={})
        facts = {"model": number, "detections_key": work.config_key, "class_map": {}}
        diagnosed = store.begin_run("diagnose", config={}, models=(model.fingerprint,), facts=facts)
        store.put_outcomes(diagnosed, 1, [first], item_key="made up")
        store.record_items(diagnosed, [ItemStatus(key="made up", status="done", image_id=1)])
        store.finish_run(diagnosed, status="done", counts={})


def outcome(model: int, name: str) -> Outcome:
    """Of image 1."""
    target = TargetRecord(candidate=0, label=0, rule="matched", score=0.1, iou=0.5)
    return Outcome(
        image_id=1,
        model_id=model,
        kind="FN",
        cause="miss",
        category=name,
        box=(1.0, 2.0, 30.0, 40.0),
        score=0.0,
        iou=0.0,
        target=target,
        key="made up",
    )


def with_outcome(item: IndexItem, found: Outcome) -> IndexItem:
    """The item of the image with the outcome."""
    own = IndexedOutcome(id=1, key=found.key, box=found.box, blamed=None)
    return IndexItem(image_id=item.image_id, uri=item.uri, sha256=item.sha256, outcomes=(own,))


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Figures of a workspace that is filled."""
    row: dict[str, Any] = {"images": count}
    load_detector(SPEC, "cpu")
    with Store.open(folder / "workspace") as store:
        for stage, again in (
            ("detect", lambda: detect(store, DetectConfig(detector=SPEC, roles=("mine", "pool")))),
            ("index", lambda: index(store, IndexConfig())),
        ):
            before, started = _peak(), time.process_time()
            result = again()
            assert (result.done, result.skipped) == (0, count), (stage, result)
            row[f"{stage} again us"] = 1e6 * (time.process_time() - started) / count
            row[f"{stage} again peak bytes"] = round((_peak() - before) / count)
    return {name: round(v, 2) if isinstance(v, float) else v for name, v in row.items()}


def _peak() -> int:
    """Highest resident bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("phase", choices=["fill", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    if options.phase == "fill":
        options.folder.mkdir(parents=True, exist_ok=True)
        fill(options.folder, options.count)
    else:
        print(json.dumps(measure(options.folder, options.count)))
