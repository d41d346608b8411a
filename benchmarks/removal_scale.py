"""What removing images costs, and whether it grows with the workspace.

    python benchmarks/removal_scale.py [--images 100000] [--url postgresql://...] [--out FILE]

Fills a workspace with rows of images that have a thumbnail, two labels, detections, two failures and four
items each, and ten boxes in a vector space; removes 1,000 and a tenth of them; then a few without the indexes
that `store.removal` makes for the time of a removal, to show what these are worth. Prints a table and writes
JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from environment import machine, versions
from sqlalchemy import insert

from store import models, removal
from store.records import MembershipFilter, SpaceShape
from store.session import table
from store.store import Store

BOX = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
PART = 20_000  # rows of an insert
STAGES = ("add", "detect", "diagnose", "index")


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def rows(images: int, run: int) -> Iterator[tuple[type[models.Base], list[dict[str, Any]]]]:
    """The rows of each table."""
    ids = range(1, images + 1)
    own = {"run_id": run}
    yield models.Dataset, [{"id": 1, "name": "field"}]
    yield models.Category, [{"id": 1, "name": "car"}]
    yield models.Model, [{"id": 1, "spec": "x", "fingerprint": "f" * 64, "classes": ["car"]}]
    size = {"width": 64, "height": 48, **own}
    yield (
        models.Image,
        [{"id": i, "uri": f"/{i}", "sha256": digest(f"{i}"), "phash": "0" * 16, **size} for i in ids],
    )
    yield models.Member, [{"image_id": i, "dataset_id": 1, "role": "mine", **own} for i in ids]
    seen = {"hashes": b"0" * 40, "thumbnail": b"1" * 300, **own}
    yield models.AppearanceRow, [{"image_id": i, **seen} for i in ids]
    human = {"version": 1, "status": "human", **own}
    yield (
        models.AnnotationVersion,
        [{"id": i, "image_id": i, "key": digest(f"v{i}"), **human} for i in ids],
    )
    label = {"category_id": 1, "crowd": False, "difficult": False, "polygon": None, "attributes": {}, **BOX}
    yield models.AnnotationRow, [{"id": 2 * i + k, "version_id": i, **label} for i in ids for k in (0, 1)]
    found = {"boxes": b"0" * 160, "scores": b"0" * 40, "labels": b"0" * 80, "candidates": b"0" * 80}
    found |= {"pin": "{}", "config_key": "d"}
    yield (
        models.DetectionRow,
        [{"image_id": i, "model_id": 1, "key": digest(f"d{i}"), **found, **own} for i in ids],
    )
    missed = {"model_id": 1, "kind": "FN", "cause": "miss", "category": "car", "score": 0.1, "iou": 0.1}
    missed |= {"target_candidate": 1, "target_label": 0, "target_rule": "matched", "target_score": 0.1}
    missed |= {"target_iou": 0.1, "detection_index": None, **BOX, **own}
    pairs = [(i, 2 * i + k) for i in ids for k in (0, 1)]
    yield (
        models.OutcomeRow,
        [{"id": o, "image_id": i, "annotation_id": o, "key": digest(f"o{o}"), **missed} for i, o in pairs],
    )
    yield models.OutcomeItem, [{"item_key": digest(f"i{i}"), "outcome_id": o, **own} for i, o in pairs]
    for stage in STAGES:
        done = {"stage": stage, "status": "done", "message": None, "config_key": stage, **own}
        yield models.Item, [{"key": digest(f"{stage}{i}"), "image_id": i, **done} for i in ids]
    place = {"space_id": 1, "kind": 0, "boxes": 10, "candidates": 5, **own}
    yield (
        models.IndexedImage,
        [
            {
                "place": i - 1,
                "image_id": i,
                "key": sha256(f"{i}".encode()).digest()[:16],
                "first_box": 10 * (i - 1),
                "first_candidate": 5 * (i - 1),
                **place,
            }
            for i in ids
        ],
    )


def fill(store: Store, images: int) -> None:
    run = store.begin_run("add", config={})
    store.create_space(run, "s", SpaceShape(views={"object": 8}, image_views={}, classes=6))
    for model, found in rows(images, run):
        with store._database.writing() as connection:
            for start in range(0, len(found), PART):
                connection.execute(insert(table(model)), found[start : start + PART])
    store.finish_run(run, status="done", counts={})


def timed(store: Store, ids: Sequence[int], how: str) -> dict[str, Any]:
    """Plan and remove some images."""
    start = time.perf_counter()
    store.plan_images(ids, MembershipFilter())
    planned = time.perf_counter()
    run = store.begin_run("remove", config={}, facts=store.removal_facts())
    gone = store.remove_images(ids, MembershipFilter())
    end = time.perf_counter()
    store.finish_run(run, status="done", counts={})
    told = {"images": len(ids), "rows": sum(gone.values()), "how": how}
    return {**told, "plan_seconds": round(planned - start, 2), "remove_seconds": round(end - planned, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--url", default=None, help="of an empty PostgreSQL database; default: SQLite")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/removal_scale.json")
    options = parser.parse_args()
    last = options.images
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.create(Path(folder) / "workspace", url=options.url) as store,
    ):
        fill(store, last)
        found = [
            timed(store, range(1, last, last // 1000), "indexes for its time"),
            timed(store, range(2, last, 10), "indexes for its time"),
        ]
        removal.FEW = last
        found.append(timed(store, range(3, last, last // 20), "no indexes"))
    for row in found:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    report = {
        "images": last,
        "database": "postgresql" if options.url else "sqlite",
        "rows": found,
        "machine": machine(),
        "versions": versions("sqlalchemy"),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
