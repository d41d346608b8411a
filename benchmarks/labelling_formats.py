"""How long the annotations of 10,000 images take: `python benchmarks/labelling_formats.py [IMAGES]`.

Generates images of 40 x 30 pixels with eight boxes each, writes them in every format of a labelling tool,
reads them back (all boxes must be there), and adds them to a workspace. Roboflow's layout is made of the COCO
file. Prints a table and writes benchmarks/results/labelling_formats.json. Wall time of a shared machine
varies: CPU seconds stand beside it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions

from curator.data.formats.base import LabelledImage, OutputImage
from curator.data.formats.placement import place
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.progress import set_quiet
from curator.registry import FORMATS
from store.images import encode_png
from store.records import NewAnnotation
from store.store import Store

FORMATS_TIMED = ("cvat", "label-studio", "labelme", "coco", "roboflow")
CLASSES = tuple(f"class {number}" for number in range(10))
BOXES = 8
SIZE = (40, 30)


def generated(count: int) -> Iterator[OutputImage]:
    random.seed(0)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        pixels = np.kron(noise, np.ones((5, 5, 1), np.uint8))
        boxes = []
        for _ in range(BOXES):
            x, y = random.uniform(0, 30), random.uniform(0, 20)
            box = (x, y, x + random.uniform(1, 9), y + random.uniform(1, 9))
            score = {"score": round(random.random(), 4)}
            boxes.append(NewAnnotation(category=random.choice(CLASSES), box=box, attributes=score))
        yield OutputImage(
            name=f"image-{number:012x}",
            data=encode_png(pixels),
            suffix=".png",
            width=SIZE[0],
            height=SIZE[1],
            annotations=tuple(boxes),
            lineage={"role": "train"},
        )


def write(name: str, out: Path, count: int) -> None:
    form = FORMATS.load("coco" if name == "roboflow" else name)()
    for _ in form.write(out, CLASSES, generated(count)):
        pass
    if name == "roboflow":
        (out / "images").rename(out / "train")
        (out / "annotations.json").rename(out / "train/_annotations.coco.json")


def timed(name: str, folder: Path, count: int) -> dict[str, Any]:
    out, asked = folder / name, "coco" if name == "roboflow" else name
    found: dict[str, Any] = {"format": name}
    steps = {
        "write": lambda: write(name, out, count),
        "read": lambda: check(asked, out, count),
        "add": lambda: added(asked, out, folder / f"{name}-workspace", count),
    }
    for step, work in steps.items():
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found[step] = {
            "cpu": round(time.process_time() - cpu, 1),
            "wall": round(time.perf_counter() - wall, 1),
        }
    return found


def check(asked: str, out: Path, count: int) -> None:
    """Read all; every image must have all its boxes."""
    read = 0
    for item in FORMATS.load(asked)().open(out).items:
        assert isinstance(item, LabelledImage), item
        placed = place(item, SIZE)
        assert len(placed.annotations or ()) == BOXES, item.name
        read += 1
    assert read == count


def added(asked: str, out: Path, workspace: Path, count: int) -> None:
    with Store.create(workspace) as store:
        result = add(store, AddConfig(format=asked, path=out, role="mine", near_duplicates=0.0))
        assert result.summary["images"] == count, result.summary


def main() -> None:
    set_quiet(True)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rows = []
    print(f"{count} images, {BOXES} boxes each; CPU seconds (wall)")
    for name in FORMATS_TIMED:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(timed(name, Path(folder), count))
        row = rows[-1]
        steps = ("write", "read", "add")
        print(
            f"{name:13}",
            "  ".join(f"{s} {row[s]['cpu']:6.1f} ({row[s]['wall']:.1f})" for s in steps),
            flush=True,
        )
    result = {"images": count, "boxes": BOXES, "rows": rows, "machine": machine(), "versions": versions()}
    path = Path(__file__).parent / "results" / "labelling_formats.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
