"""What the gate accepts of what recipes and inpainters make, and a sheet to look at.

    python benchmarks/synth_accept.py --set flowers|bccd|vehicles [--sheet FILE.jpg] [--out FILE.json]

24 samples are wanted, in at most 48 plans, of all failures, without explanations (so that `culprit` takes no
    part). bccd, vehicles   split 0 of loop_real.py, whose set must be prepared; real pixels composed; judge
    MobileNet flowers          scenes of the built-in example with its detector; the shipped painter at
                     strengths 1 and .4, and composition; the judge without weights
Sheets: each sample before and after, accepted ones first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from environment import machine, versions
from loop_real import opened
from loop_real_sets import EXPERIMENTS
from PIL import Image, ImageDraw
from query_sets import CACHE, SHARED
from synth_gate import MOBILENET

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.page import Picture, thumbnail
from curator.synthesize.run_sheet import pair
from curator.synthesize.settings import SynthesizeConfig
from store.images import read_bytes_as_pixels
from store.records import Role
from store.store import Store

WANTED, ATTEMPTS = 24, 2
COLUMNS, SIDE, CAPTION = 4, 300, 30  # of a sheet, pixels
ROLES: tuple[Role, ...] = ("train", "mine")


def workspace(name: str, folder: Path) -> Store:
    """A diagnosed workspace that may be written to."""
    if name in EXPERIMENTS:
        shutil.copytree(CACHE.expanduser() / "loop-real-0" / name / "workspace", folder / "workspace")
        return opened(folder)
    sizes = {"train": 80, "mine": 80, "pool": 1, "holdout": 1}
    write_dataset(folder / "data", sizes=sizes, seed=0)
    store = Store.create(folder / "workspace")
    for role in ROLES:
        pipeline.add(store, AddConfig(format="coco", path=folder / "data" / role, role=role))
    pipeline.detect(store, DetectConfig(detector="builtin:"))
    pipeline.diagnose(store, DiagnoseConfig())
    return store


def contact(store: Store, name: str) -> Image.Image:
    """The samples of a batch, accepted ones first."""
    found = sorted(store.samples(name=name), key=lambda s: not s.accepted)
    pictures: list[Picture] = [pair(store, sample) for sample in found]
    rows, height = -(-len(pictures) // COLUMNS), SIDE // 2 + CAPTION
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, sample) in enumerate(zip(pictures, found, strict=True)):
        x, y = i % COLUMNS * SIDE, i // COLUMNS * height
        tile = Image.fromarray(read_bytes_as_pixels(thumbnail(picture.pixels, SIDE - 6, boxes=picture.boxes)))
        tile.thumbnail((SIDE - 6, height - CAPTION))
        sheet.paste(tile, (x, y))
        refused = ", ".join(v.check for v in sample.verdicts if not v.accepted)
        draw.text((x, y + height - CAPTION + 2), f"{sample.recipe}, {sample.group}"[:50], fill="black")
        draw.text((x, y + height - CAPTION + 14), f"refused: {refused}" if refused else "", fill="red")
    return sheet


def main() -> None:
    """Synthesize and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("flowers", "bccd", "vehicles"), required=True)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    plain = SynthesizeConfig(name="composed", budget=WANTED, attempts=ATTEMPTS)
    if arguments.set == "flowers":
        painted = replace(plain, inpainter="builtin:")
        configs = [
            replace(painted, name="painted 1", strength=1.0),
            replace(painted, name="painted .4", strength=0.4),
            plain,
        ]
    else:
        configs = [replace(plain, judge=MOBILENET.format(weights=SHARED / "data" / "weights"))]
    rows: list[dict[str, Any]] = []
    kept = ("name", "inpainter", "strength", "accepted", "rejected", "unplaced", "plans", "per_recipe")
    with tempfile.TemporaryDirectory() as folder, workspace(arguments.set, Path(folder)) as store:
        for config in configs:
            summary = pipeline.synthesize(store, config).summary
            rows.append({key: summary[key] for key in (*kept, "reasons")})
            print(json.dumps({key: summary[key] for key in kept}), flush=True)
        if arguments.sheet:
            contact(store, configs[-1].name).save(arguments.sheet, quality=82)
    if arguments.out:
        found = {"set": arguments.set, "batches": rows, "machine": machine(), "versions": versions()}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
