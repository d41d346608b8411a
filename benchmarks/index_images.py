"""What an indexed image costs: bytes on disk by part, and seconds beside decoding it and one forward pass.

    python benchmarks/index_images.py [--images N] [--repeats N] [--shared FOLDER] [--out FILE.json]

Vehicles (../shared/data) with YOLOX-nano. Bytes: files of the vector space, and what the SQLite file grows by
(row of the image in the space, its keys, the stage's record of the item), divided by the images. Seconds:
`curator index` of further pool images into a space that exists, and in alternation decoding the same files
and one forward pass of the detector each; medians, one thread.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from environment import machine, versions

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.one_pass import pin_of
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.query.settings import IndexConfig
from curator.tensors import image_tensor
from store.images import read_pixels
from store.store import Store

MOST_BYTES, LEAST_RATE = 4096, 0.6
CLASSES = {"car": "Car", "bus": "Bus", "truck": "Truck", "motorcycle": "Motorcycle"}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=60, help="pool images a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = f"onnx:{arguments.shared}/data/weights/yolox_nano/yolox_nano.onnx?decode=yolox"
    with tempfile.TemporaryDirectory() as folder:
        rows, sizes = measure(Path(folder), spec, arguments)
    rate = statistics.median(row["forward"] / row["index"] for row in rows)
    claims = [
        {
            "claim": "bytes an image",
            "target": MOST_BYTES,
            "value": sizes["all"],
            "ok": sizes["all"] <= MOST_BYTES,
        },
        {
            "claim": "index, images per second over decode + forward",
            "target": LEAST_RATE,
            "value": rate,
            "ok": rate >= LEAST_RATE,
        },
    ]
    print(f"bytes an image: {sizes}")
    for claim in claims:
        print(
            f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {claim['value']:.3f} ({claim['target']})"
        )
    if arguments.out:
        report = {
            "machine": machine(),
            "versions": versions(),
            "rows": rows,
            "bytes": sizes,
            "acceptance": claims,
        }
        arguments.out.write_text(json.dumps(report, indent=1))


def measure(folder: Path, spec: str, arguments: argparse.Namespace) -> tuple[list[dict[str, float]], Any]:
    """Seconds of each repeat; bytes an image by part."""
    data = arguments.shared / "data" / "vehicles_openimages"
    files = sorted((data / "train" / "images").iterdir())
    detector = load_detector(spec, "cpu")
    rows = []
    with Store.create(folder / "ws") as store:
        pipeline.add(store, AddConfig(format="yolo", path=data, split="test", role="mine"))
        pipeline.detect(store, DetectConfig(detector=spec, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(class_map=CLASSES))
        _add(store, folder, files[:1], "first")
        space = pipeline.index(store, IndexConfig(device="cpu")).summary["space"]
        for repeat in range(arguments.repeats):
            part = files[1 + repeat * arguments.images : 1 + (repeat + 1) * arguments.images]
            _add(store, folder, part, f"part{repeat}")
            before = _bytes(store, space, folder)
            start = time.perf_counter()
            done = pipeline.index(store, IndexConfig(device="cpu")).done
            index = time.perf_counter() - start
            after = _bytes(store, space, folder)
            start = time.perf_counter()
            for path in part:
                image = image_tensor(read_pixels(str(path)))
                pin = pin_of(detector, image)
                with torch.inference_mode():
                    detector.candidates(detector.prepare(image, pin)[None], pin, index=None)
            forward = time.perf_counter() - start
            grown = {name: after[name] - before[name] for name in after}
            rows.append({"images": done, "index": index, "forward": forward, **grown})
            print(f"{done} images: index {index:.1f} s, decode + forward {forward:.1f} s", flush=True)
    images = sum(row["images"] for row in rows)
    sizes = {name: round(sum(row[name] for row in rows) / images, 1) for name in ("files", "sql")}
    return rows, {**sizes, "all": round(sum(sizes.values()), 1)}


def _add(store: Store, folder: Path, files: list[Path], name: str) -> None:
    listed = folder / name
    listed.mkdir()
    for path in files:
        (listed / path.name).symlink_to(path)
    pipeline.add(store, AddConfig(format="images", path=listed, role="pool"))


def _bytes(store: Store, space: str, folder: Path) -> dict[str, int]:
    """Bytes of the space's files, and of the database."""
    with sqlite3.connect(folder / "ws" / "curator.db") as connection:
        (pages,) = connection.execute("SELECT page_count FROM pragma_page_count").fetchone()
        (size,) = connection.execute("SELECT page_size FROM pragma_page_size").fetchone()
        (free,) = connection.execute("SELECT freelist_count FROM pragma_freelist_count").fetchone()
    files = sum(path.stat().st_size for path in store.space_folder(space).rglob("*") if path.is_file())
    return {"files": files, "sql": (pages - free) * size}


if __name__ == "__main__":
    main()
