"""Is the memory of `index` flat while the pool grows?

    python benchmarks/index_memory.py [--sizes 1000 5000 20000] [--folder FOLDER] [--out FILE.json]

The rule, stated before the figures: the highest resident memory of `curator index` over 20,000 images is at
most 1.1 times that over 1,000. Above 300,000 boxes `index` makes FAISS's index too, so the largest pool pays
for that as well.

The detector is the built-in one, which fills its share of boxes with anything. 60 scenes of the built-in
example are mined; the pool is made up: 160 x 120 JPEGs, each two crops of photographs (../shared/data) laid
over one another at a keyed place and share, so that no two are near-duplicates. Every command is a process
of its own with the defaults; its seconds and its highest resident memory are the system's (wait4), beside
those of `add`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import CURATOR

MOST_GROWTH = 1.1
WIDTH, HEIGHT = 160, 120
PHOTOGRAPHS = ("vehicles_openimages/**/*.jpg", "voc100/**/*.jpg", "coco_val128/**/*.jpg")
SHARED = Path(os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def made_up(folder: Path, count: int) -> None:
    """Write pictures 0 to count - 1; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    paths = [path for pattern in PHOTOGRAPHS for path in sorted((SHARED / "data").glob(pattern))]
    opened = []
    for path in paths:
        picture = Image.open(path)
        picture.draft("RGB", (512, 512))
        opened.append(picture.convert("RGB").resize((320, 240), Image.Resampling.BOX))
    for number in range(count):
        out = folder / f"{number:06d}.jpg"
        if out.is_file():
            continue
        draw = random.Random(number)
        layers = []
        for source in draw.sample(opened, 2):
            share = draw.uniform(0.4, 1)
            left, top = draw.uniform(0, 320 * (1 - share)), draw.uniform(0, 240 * (1 - share))
            box = (left, top, left + 320 * share, top + 240 * share)
            crop = source.resize((WIDTH, HEIGHT), Image.Resampling.BOX, box=box)
            turned = Image.Transpose.FLIP_LEFT_RIGHT
            layers.append(crop.transpose(turned) if draw.random() < 0.5 else crop)
        Image.blend(layers[0], layers[1], draw.uniform(0.35, 0.5)).save(out, quality=85)


def run(folder: Path, *words: str) -> dict[str, float]:
    """A command to its end: seconds, and the highest resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([*CURATOR, *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    row = {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(used.ru_maxrss / 1024, 1)}
    print(f"  {' '.join(words)[:60]:60s} {row}", flush=True)
    if process.returncode:
        raise SystemExit(f"rc {process.returncode}: {' '.join(words)}")
    return row


def measure(folder: Path, count: int) -> dict[str, Any]:
    """A workspace with a pool of `count` images: what `add` and `index` take."""
    # In a process of its own: a child's highest memory is at least what its parent holds.
    subprocess.run([sys.executable, __file__, "--make", str(folder / "pictures"), str(count)], check=True)
    pool, workspace = folder / f"pool-{count}", f"ws-{count}"
    shutil.rmtree(folder / workspace, ignore_errors=True)
    pool.mkdir(exist_ok=True)
    for number in range(count):
        link = pool / f"{number:06d}.jpg"
        if not link.exists():
            os.link(folder / "pictures" / link.name, link)
    run(folder, "-w", workspace, "init")
    run(folder, "-w", workspace, "add", "coco", "data/mine", "--role", "mine")
    added = run(folder, "-w", workspace, "add", "images", pool.name, "--role", "pool")
    run(folder, "-w", workspace, "detect", "--detector", "builtin:")
    run(folder, "-w", workspace, "diagnose")
    indexed = run(folder, "-w", workspace, "index")
    files = (folder / workspace).rglob("*")
    size = sum(path.stat().st_size for path in files if path.is_file())
    shutil.rmtree(folder / workspace)
    return {"images": count, "add": added, "index": indexed, "workspace_kb_an_image": size / 1024 / count}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20_000])
    parser.add_argument("--folder", type=Path, help="keeps the pictures")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        made_up(Path(options.make[0]), int(options.make[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = (options.folder or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        words = ["--train", "1", "--mine", "60", "--pool", "1", "--holdout", "1"]
        if not (folder / "data").exists():
            run(folder, "example", "render", "data", *words)
        rows = [measure(folder, count) for count in sorted(options.sizes)]
    growth = rows[-1]["index"]["peak_mb"] / rows[0]["index"]["peak_mb"]
    claim = {
        "claim": f"highest memory of index, {rows[-1]['images']} over {rows[0]['images']} images",
        "target": MOST_GROWTH,
        "value": round(growth, 3),
        "ok": growth <= MOST_GROWTH,
    }
    print(f"{'ok  ' if claim['ok'] else 'MISS'} {claim['claim']}: {growth:.3f} (at most {MOST_GROWTH})")
    if options.out:
        from environment import machine, versions

        ran_on = {"machine": machine(), "versions": versions("faiss-cpu")}
        report = {**ran_on, "rows": rows, "acceptance": [claim]}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
