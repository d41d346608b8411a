"""The data of `loop_real.py`, with the rule of its splits, written down before any arm was run.

Sources    vehicles   vehicles_openimages, whole images; published train is split, test + valid is the
                      holdout.
                      YOLOX-nano, pretrained on COCO, at 256 pixels, trained by a program of its own
                      (yolox_trainer.py): an SSD of 110 images (the first attempt on split 0, Motorcycle
                      withheld) found next to nothing. Withheld is Ambulance, the one class that COCO lacks:
                      its rows begin at a probability of .01. This was written down before any arm was run
           bccd       every 640 x 480 image as four tiles of 320 x 240; published train + val is split, test
                      is the holdout. (Whole images would leave 72 of holdout and 82 of pool.)
           deeppcb    whole 640 x 640 boards; trainval is split, the holdout is drawn from test. (As four
                      tiles each, the first attempt on split 0, boards hold too few defects for a base: AP50
                      .08; tried again with the rates of loop_real.py at 256 pixels, commit 764fbf5: .17, and
                      120 steps gave .26 without added images, .24 with random ones, .26 with the oracle's.)
                      Were a board cut, defects at a border would be replaced by the template's pixels.
           A box of bccd that a border cuts is kept while 30% of its area remain.
Splits     0 is for development: base and retraining rates were chosen on it, by arms that ask nothing
           (nothing, random, oracle). 1 reports.
Split s    orders source images by sha256("loop-real/{s}/{name}"); the first make train, the next mine, the
           rest the pool; deeppcb's holdout is likewise the first of test. Tiles of one image stay together
           (they are one group: intervals count them as one).
Withheld   one class per set is a withheld condition: Ambulance, Platelets, pin-hole. Training images hold
           none of it, and of the pool a tenth at most does, the first in the order of the split. vehicles and
           bccd: other images are left out; deeppcb: the boxes are replaced by the template's pixels.
           Mined images and the holdout are as they come.
Conditions of objects, read apart: "withheld"; "small": of the other classes, with an area below the lower
           quartile of all boxes of that class in the source; "other".

Images that are not used as they lie (tiles) are written to the cache folder as PNG; each role is a COCO file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from query_sets import SHARED

from curator.data.formats.base import LabelledImage
from curator.data.formats.placement import place
from curator.registry import FORMATS
from store.images import probe

KEPT_AREA = 0.3
POOL_SHARE = 0.1
TAG = "condition"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A data set's part in the benchmark.

    Attributes:
        split: published splits that are divided. holdout: the published ones that prove. tiles: per side.
        size, batch: of the network's input and of a step. pretrained: for every class the one of COCO whose
            rows it begins with, or "-"; "" where an SSD is trained.
        train, mine, pool: source images (before images without the withheld class are left out), pool and
            holdout 0: all the rest.
    """

    format: str
    path: str
    split: tuple[str, ...]
    holdout: tuple[str, ...]
    withheld: str
    classes: tuple[str, ...]
    anchors: str
    tiles: int
    train: int
    mine: int
    pool: int = 0
    proof: int = 0
    size: int = 192
    batch: int = 8
    pretrained: str = ""


EXPERIMENTS = {
    "vehicles": Experiment(
        format="yolo",
        path="vehicles_openimages",
        split=("train",),
        holdout=("valid", "test"),
        withheld="Ambulance",
        classes=("Ambulance", "Bus", "Car", "Motorcycle", "Truck"),
        anchors="",
        tiles=1,
        train=110,
        mine=110,
        size=256,
        pretrained="-,5,2,3,7",
    ),
    "bccd": Experiment(
        format="voc",
        path="bccd/BCCD",
        split=("train", "val"),
        holdout=("test",),
        withheld="Platelets",
        classes=("RBC", "WBC", "Platelets"),
        anchors="18,36,68,105,150",
        tiles=2,
        train=50,
        mine=60,
    ),
    "deeppcb": Experiment(
        format="deeppcb",
        path="deeppcb_1bit",
        split=("trainval",),
        holdout=("test",),
        withheld="pin-hole",
        classes=("open", "short", "mousebite", "spur", "copper", "pin-hole"),
        anchors="12,24,48,96,160",
        tiles=1,
        train=60,
        mine=60,
        pool=250,
        proof=150,
        size=320,
        batch=4,
    ),
}


@dataclass
class Tile:
    """A picture of the benchmark: a whole image or a part of one.

    Attributes:
        boxes: (class, xyxy) in its own pixels. pixels: None where the file is used as it lies. template: the
            same place without defects.
    """

    name: str
    source: str
    path: Path
    size: tuple[int, int]
    boxes: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    pixels: np.ndarray | None = None
    template: np.ndarray | None = None

    def mended(self, withheld: str) -> Tile:
        """Without a class: its boxes are replaced by the template's pixels."""
        assert self.pixels is not None
        assert self.template is not None
        pixels = self.pixels.copy()
        for name, box in self.boxes:
            if name == withheld:
                paste(pixels, self.template, box)
        kept = [(n, b) for n, b in self.boxes if n != withheld]
        for _, box in kept:  # a neighbour stays as it is
            paste(pixels, self.pixels, box)
        return Tile(f"{self.name}-mended", self.source, self.path, self.size, kept, pixels, self.template)


def paste(pixels: np.ndarray, source: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """Copy a box of `source` into `pixels`."""
    x1, y1, x2, y2 = (round(v) for v in box)
    pixels[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = source[
        max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1
    ]


def sources(experiment: Experiment, splits: Iterable[str]) -> list[LabelledImage]:
    """Labelled images of published splits, boxes in stored pixels."""
    path, found = SHARED / "data" / experiment.path, {}
    for split in splits:
        for item in FORMATS.load(experiment.format)().open(path, split=split).items:
            if isinstance(item, LabelledImage):
                seen = probe(item.path)
                placed = place(item, (seen.width, seen.height), seen.orientation)
                if placed.annotations is not None and not placed.incomplete:
                    found.setdefault(seen.sha256, placed)
    return list(found.values())


def ordered(images: list[LabelledImage], split: int) -> list[LabelledImage]:
    """In the order of a split."""

    def salted(image: LabelledImage) -> str:
        return hashlib.sha256(f"loop-real/{split}/{Path(image.name).name}".encode()).hexdigest()

    return sorted(images, key=salted)


def tiles(image: LabelledImage, per_side: int) -> list[Tile]:
    """The tiles of an image; itself where there is one."""
    name, found = Path(image.name).stem, []
    boxes = [(a.category, a.box) for a in image.annotations or ()]
    with Image.open(image.path) as opened:
        width, height = opened.size
        if per_side == 1 and "template" not in image.tags:
            return [Tile(name, name, image.path, (width, height), boxes)]
        pixels = np.asarray(opened.convert("RGB"))
    template = None
    if "template" in image.tags:
        with Image.open(image.tags["template"]) as opened:
            template = np.asarray(opened.convert("RGB"))
    w, h = width // per_side, height // per_side
    for row in range(per_side):
        for column in range(per_side):
            x, y = column * w, row * h
            part = pixels[y : y + h, x : x + w].copy()
            clean = None if template is None else template[y : y + h, x : x + w]
            own, cut = [], []
            for category, (x1, y1, x2, y2) in boxes:
                box = (max(0.0, x1 - x), max(0.0, y1 - y), min(float(w), x2 - x), min(float(h), y2 - y))
                if box[0] >= box[2] or box[1] >= box[3]:
                    continue
                share = (box[2] - box[0]) * (box[3] - box[1]) / ((x2 - x1) * (y2 - y1))
                if clean is not None and share < 0.999:
                    cut.append(box)
                elif share >= KEPT_AREA:
                    own.append((category, box))
            if clean is not None:
                whole = part.copy()
                for box in cut:
                    paste(part, clean, box)
                for _, box in own:
                    paste(part, whole, box)
            found.append(Tile(f"{name}-{row}{column}", name, image.path, (w, h), own, part, clean))
    return found


def roles(experiment: Experiment, split: int) -> dict[str, list[Tile]]:
    """The pictures of every role, by the rule above."""
    images = ordered(sources(experiment, experiment.split), split)
    proof = ordered(sources(experiment, experiment.holdout), split)
    if experiment.proof:
        proof = proof[: experiment.proof]

    def cut(of: list[LabelledImage]) -> list[Tile]:
        return [tile for image in of for tile in tiles(image, experiment.tiles)]

    def holds(tile: Tile) -> bool:
        return any(name == experiment.withheld for name, _ in tile.boxes)

    first, last = experiment.train, experiment.train + experiment.mine
    train, mine, pool = cut(images[:first]), cut(images[first:last]), cut(images[last:])
    if experiment.pool:
        pool = cut(images[last : last + experiment.pool])
    having, others = [t for t in pool if holds(t)], [t for t in pool if not holds(t)]
    if experiment.format == "deeppcb":
        kept = round(POOL_SHARE * len(pool))
        train = [t.mended(experiment.withheld) if holds(t) else t for t in train]
        others += [t.mended(experiment.withheld) for t in having[kept:]]
    else:
        kept = round(POOL_SHARE / (1 - POOL_SHARE) * len(others))
        train = [t for t in train if not holds(t)]
    return {"train": train, "mine": mine, "pool": having[:kept] + others, "holdout": cut(proof)}


def prepare(name: str, split: int, folder: Path) -> dict[str, dict[str, int]]:
    """Write a COCO file per role, once.

    Returns:
        per role images, objects and objects of the withheld class.
    """
    experiment, counted = EXPERIMENTS[name], {}
    if (folder / "counts.json").is_file():
        known: dict[str, dict[str, int]] = json.loads((folder / "counts.json").read_text())
        return known
    found = roles(experiment, split)
    areas: dict[str, list[float]] = {}
    for tile in (t for own in found.values() for t in own):
        for category, (x1, y1, x2, y2) in tile.boxes:
            areas.setdefault(category, []).append((x2 - x1) * (y2 - y1))
    quartile = {category: float(np.quantile(own, 0.25)) for category, own in areas.items()}
    for role, own in found.items():
        (folder / role).mkdir(parents=True, exist_ok=True)
        counted[role] = write(folder, role, own, experiment, quartile)
    (folder / "counts.json").write_text(json.dumps(counted))
    return counted


def write(
    folder: Path, role: str, own: list[Tile], experiment: Experiment, quartile: Mapping[str, float]
) -> dict[str, int]:
    """One role's COCO file and its tiles."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for tile in own:
        path, root = tile.path, SHARED / "data" / experiment.path
        if tile.pixels is not None:
            path, root = folder / role / f"{tile.name}.png", folder
            Image.fromarray(tile.pixels).save(path)
        images.append(
            {
                "id": len(images) + 1,
                "file_name": str(path.relative_to(root)),
                "width": tile.size[0],
                "height": tile.size[1],
                "video": tile.source,
            }
        )
        for category, (x1, y1, x2, y2) in tile.boxes:
            area = (x2 - x1) * (y2 - y1)
            condition = "small" if area < quartile[category] else "other"
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": len(images),
                    "category_id": experiment.classes.index(category) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "attributes": {TAG: "withheld" if category == experiment.withheld else condition},
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(experiment.classes, start=1)]
    text = json.dumps({"images": images, "annotations": boxes, "categories": categories})
    (folder / f"{role}.json").write_text(text, encoding="utf-8")
    withheld = sum(b["attributes"][TAG] == "withheld" for b in boxes)
    return {"images": len(images), "objects": len(boxes), "withheld": withheld}
