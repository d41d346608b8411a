"""How well things are cut out of photographs from their boxes alone, against the plain rivals.

    python benchmarks/cutouts.py [--shared FOLDER] [--out benchmarks/results/cutouts.json]

COCO val2017's polygons of 100 images (`coco_val128`): the intersection over union of `cut_object`'s alpha >=
0.5 with the polygon, for objects of at least 8 pixels a side, by size (square root of the box's area).
Rivals: the whole box, the inscribed ellipse, and scikit-image's random walker (Grady 2006) from a background
outside the box and an ellipse of half its size. Constants were chosen on the images of the half "chosen", by
the hash of their names; the other half is the result. "light" gives the slopes that `compose` uses: how far
the mean L, a, b and the logarithm of the contrast of objects of a class change with those of what is around
them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions
from numpy.typing import NDArray
from query_sets import SHARED
from skimage.segmentation import random_walker
from torch import Tensor

from curator.boxes import clip
from curator.inpaint.masks import Mask
from curator.synthesize.cutout import Cutout, cut_object, polygon_mask
from curator.synthesize.photometry import lab_of, rim
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import BoxTuple

SIZES = {"small (below 32)": (0, 32), "medium (32 to 96)": (32, 96), "large (above 96)": (96, 1e9)}
SMALLEST = 8  # pixels of a side: below, a pixel of the polygon's drawing decides


def objects(folder: Path, half: int) -> Iterator[tuple[Tensor, Mask, BoxTuple, str]]:
    """Image, mask, tight box and class of each object of one half of the images."""
    for labels in sorted((folder / "labels_seg").glob("*.txt")):
        if hashlib.sha256(labels.stem.encode()).digest()[0] % 2 != half:
            continue
        image = image_tensor(read_pixels(str(folder / "images" / f"{labels.stem}.jpg")))
        height, width = image.shape[1:]
        for line in labels.read_text().splitlines():
            points = np.asarray(line.split()[1:], dtype=np.float64).reshape(-1, 2) * [width, height]
            (x1, y1), (x2, y2) = points.min(0), points.max(0)
            mask = polygon_mask([points.ravel().tolist()], (height, width))
            if min(x2 - x1, y2 - y1) >= SMALLEST and mask.any():
                yield image, mask, (float(x1), float(y1), float(x2), float(y2)), line.split()[0]


def whole_box(image: Tensor, box: BoxTuple) -> Mask:
    """All of the box."""
    return _norm(image, box, np.inf) <= 1


def ellipse(image: Tensor, box: BoxTuple, size: float = 1.0) -> Mask:
    """The inscribed ellipse, or one of `size` times it."""
    return _norm(image, box, 2) <= size


def walker(image: Tensor, box: BoxTuple) -> Mask:
    """Random walker in the box grown by 30%."""
    height, width = image.shape[1:]
    by = 0.3 * np.array([box[2] - box[0], box[3] - box[1]])
    window = clip([*(np.array(box[:2]) - by), *(np.array(box[2:]) + by)], width, height)
    x1, y1, x2, y2 = (int(v) for v in window)
    step = max(int(np.ceil(max(x2 - x1, y2 - y1) / 128)), 1)
    part = (slice(y1, y2, step), slice(x1, x2, step))
    seeds = np.where(whole_box(image, box), 0, 2)
    seeds[ellipse(image, box, 0.5)] = 1
    found = ellipse(image, box)
    if set(np.unique(seeds[part])) == {0, 1, 2}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = random_walker(
                lab_of(image[:, part[0], part[1]]) / 100, seeds[part], beta=1000, mode="cg_j", channel_axis=-1
            )
        found = np.zeros((height, width), bool)
        found[y1:y2, x1:x2] = np.kron(labels == 1, np.ones((step, step), bool))[: y2 - y1, : x2 - x1]
    return found


def alpha_mask(cutout: Cutout, size: tuple[int, int]) -> Mask:
    """The cut-out's opaque part in its image."""
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = cutout.window
    mask[y1:y2, x1:x2] = cutout.alpha.numpy() >= 0.5
    return mask


def measured(folder: Path, half: int) -> dict[str, Any]:
    """Mean IoU by method and size; how the figure of quality goes with it; seconds an object."""
    rows: dict[str, list[float]] = {}
    sizes, quality, sources, spent = [], [], [], 0.0
    for image, mask, box, _ in objects(folder, half):
        started = time.perf_counter()
        cutout = cut_object(image, box)
        spent += time.perf_counter() - started
        found = {
            "cut": alpha_mask(cutout, mask.shape),
            "cut without its fall-back": alpha_mask(cut_object(image, box, fallback=False), mask.shape),
            "whole box": whole_box(image, box),
            "inscribed ellipse": ellipse(image, box),
            "random walker": walker(image, box),
        }
        for name, guess in found.items():
            rows.setdefault(name, []).append(float((guess & mask).sum() / max((guess | mask).sum(), 1)))
        sizes.append(float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))))
        quality.append(cutout.quality)
        sources.append(cutout.source)
    side = np.asarray(sizes)
    groups = {name: (side >= low) & (side < high) for name, (low, high) in SIZES.items()}
    return {
        "objects": len(sizes),
        "by size": {name: int(chosen.sum()) for name, chosen in groups.items()},
        "fall-backs": sources.count("box"),
        "seconds an object": round(spent / len(sizes), 3),
        "IoU": {
            name: {"all": _mean(values), **{g: _mean(values, chosen) for g, chosen in groups.items()}}
            for name, values in rows.items()
        },
        "cut minus ellipse, 95%": _interval(np.subtract(rows["cut"], rows["inscribed ellipse"])),
        "IoU by quality, thirds": _thirds(np.asarray(rows["cut"]), np.asarray(quality), np.asarray(sources)),
    }


def light(folder: Path, half: int) -> dict[str, Any]:
    """Slopes within class of objects' mean L, a, b and log contrast over those of their surroundings."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for image, mask, _, category in objects(folder, half):
        around = rim(mask, max(int(np.sqrt(mask.sum()) / 3), 6))
        if min(mask.sum(), around.sum()) >= 64:
            lab = lab_of(image)
            row = [[*lab[part].mean(0), np.log(max(lab[part][:, 0].std(), 0.5))] for part in (mask, around)]
            rows.setdefault(category, []).append(np.asarray(row))
    centred = [np.asarray(v) - np.mean(v, axis=0) for v in rows.values() if len(v) >= 5]
    objects_, surroundings = np.moveaxis(np.concatenate(centred), 1, 0)
    slopes = (objects_ * surroundings).sum(0) / (surroundings**2).sum(0)
    return {
        "objects": len(objects_),
        "slopes": dict(zip(("L", "a", "b", "log contrast"), slopes.round(2).tolist(), strict=True)),
    }


def _norm(image: Tensor, box: BoxTuple, order: float) -> NDArray[np.float64]:
    y, x = np.mgrid[0 : image.shape[1], 0 : image.shape[2]] + 0.5
    u = np.abs(x - (box[0] + box[2]) / 2) / max((box[2] - box[0]) / 2, 0.5)
    v = np.abs(y - (box[1] + box[3]) / 2) / max((box[3] - box[1]) / 2, 0.5)
    return np.maximum(u, v) if np.isinf(order) else (u**order + v**order) ** (1 / order)


def _mean(values: Any, chosen: Any = slice(None)) -> float:
    return round(float(np.asarray(values)[chosen].mean()), 3)


def _interval(values: NDArray[np.float64]) -> list[float]:
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(2000)]
    return [round(float(v), 3) for v in np.quantile(means, [0.025, 0.975])]


def _thirds(values: Any, quality: Any, sources: Any) -> list[float]:
    cut = sources == "cut"
    order = np.argsort(quality[cut], kind="stable")
    return [_mean(values[cut][part]) for part in np.array_split(order, 3)]


def main() -> None:
    """Measure both halves, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cutouts.json")
    arguments = parser.parse_args()
    folder = arguments.shared / "data" / "coco_val128"
    result: dict[str, Any] = {"data": "coco_val128, polygons", "smallest side": SMALLEST}
    for name, half in (("chosen on", 0), ("reported on", 1)):
        result[name] = measured(folder, half) | {"light": light(folder, half)}
        print(name, json.dumps(result[name], indent=1))
    result |= {"machine": machine(), "versions": versions("scipy", "scikit-image")}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
