"""What the recipes make of photographs, before any generator: one PNG a recipe, to be looked at.

    python benchmarks/synth_pictures.py --out FOLDER [--recipe object ...] [--rows 3] [--side 208] [--seed 0]

Each sample is three pictures: the scene where something is put, the exemplar, what was composed; labels are
drawn yellow, made or changed ones red, the false detection and the blamed part blue. Exemplars are labelled
objects of other images (vehicles, bccd, coco_val128), as if they had been missed; look-alikes are false
positives of the published NanoDet on vehicles; for `culprit`, what is blamed is another object's polygon that
covers a part of the exemplar's box (coco_val128), which stands for an explanation that is right.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from query_sets import MAPS, SHARED, detector_spec, read
from torch import Tensor

from curator.boxes import area, intersection, iou
from curator.detect.load import load_detector
from curator.errors import StageError
from curator.prove.trials import predict
from curator.registry import RECIPES
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.cutout import polygon_mask
from curator.tensors import image_pixels, image_tensor
from store.images import read_pixels
from store.records import BoxTuple, ImageRecord, NewAnnotation

YELLOW, RED, BLUE = (255, 214, 0), (235, 40, 40), (40, 110, 255)
LARGEST = 195_000  # bytes of a picture
IMAGES = 100  # of a set that are looked at
OTHER_SETS = {"object": ("vehicles", "coco", "bccd"), "appearance": ("vehicles", "coco", "bccd")}
SETS = {"culprit": ("coco",), "lookalike": ("vehicles",), "removal": ("coco", "vehicles")} | OTHER_SETS


@cache
def labelled(name: str) -> tuple[Scene, ...]:
    """Labelled images of a set; coco with polygons."""
    if name == "coco":
        return tuple(_coco(SHARED / "data" / "coco_val128"))
    found = read(name)
    return tuple(
        Scene(
            image_id=image.id,
            image=image_tensor(read_pixels(image.uri)),
            annotations=tuple(NewAnnotation(category=a.category, box=a.box) for a in annotations),
        )
        for image, annotations in list(zip(found.images, found.annotations, strict=True))[:IMAGES]
    )


def _coco(folder: Path) -> Iterator[Scene]:
    names: dict[int, str] = {}
    for line in (folder / "seg_config.yaml").read_text().splitlines():
        number, _, name = line.strip().partition(": ")
        if number.isdigit():
            names[int(number)] = name.strip("'\"")
    for k, labels in enumerate(sorted((folder / "labels_seg").glob("*.txt"))):
        image = image_tensor(read_pixels(str(folder / "images" / f"{labels.stem}.jpg")))
        height, width = image.shape[1:]
        annotations = []
        for line in labels.read_text().splitlines():
            number, *values = line.split()
            points = np.asarray(values, dtype=np.float64).reshape(-1, 2) * [width, height]
            box = _box([*points.min(0), *points.max(0)])
            ring = tuple(points.ravel().tolist())
            annotations.append(
                NewAnnotation(category=names.get(int(number), number), box=box, polygon=(ring,))
            )
        yield Scene(image_id=k, image=image, annotations=tuple(annotations))


def _box(values: list[float]) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2


def missed(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Iterator[Exemplar]:
    """Labelled objects of at least 24 pixels a side and at most a third of the image, as if missed."""
    for k in rng.permutation(len(scenes)):
        scene = scenes[k]
        size = scene.image[0].numel()
        for i in rng.permutation(len(scene.annotations))[:1]:
            a = scene.annotations[i]
            if min(a.box[2] - a.box[0], a.box[3] - a.box[1]) >= 24 and area(a.box) < size / 3:
                yield _exemplar(scene, "FN", a.category, a.box, polygon=a.polygon)


def hidden(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Iterator[Exemplar]:
    """Objects of which another one's polygon covers 10% to 60% of the box."""
    for k in rng.permutation(len(scenes)):
        scene = scenes[k]
        height, width = scene.image.shape[1:]
        pairs = [(i, j) for i in range(len(scene.annotations)) for j in range(len(scene.annotations))]
        for i, j in pairs:
            a, b = scene.annotations[i], scene.annotations[j]
            share = float(intersection([a.box], [b.box])[0, 0]) / max(float(area(a.box)), 1.0)
            if i == j or a.category == b.category or not 0.1 < share < 0.6 or area(b.box) > area(a.box):
                continue
            if min(a.box[2] - a.box[0], a.box[3] - a.box[1]) >= 32 and b.polygon:
                mask = polygon_mask(b.polygon, (height, width))
                yield _exemplar(scene, "FN", a.category, a.box, blamed=mask)
                break


def mistaken(rng: np.random.Generator) -> Iterator[Exemplar]:
    """NanoDet's false positives on background, vehicles."""
    scenes = labelled("vehicles")
    found = read("vehicles")
    detector = load_detector(detector_spec("nanodet", "vehicles"), "cpu")
    images: list[ImageRecord] = list(found.images[: len(scenes)])
    names = MAPS["vehicles"]
    answers = list(predict(detector, images, 8, label="vehicles"))
    for k in rng.permutation(len(scenes)):
        detections, scene = answers[k][0], scenes[k]
        for box, score, label in zip(
            detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        ):
            name = names.get(detector.classes[int(label)])
            labels = [a.box for a in scene.annotations]
            free = not labels or float(iou([box], labels).max()) < 0.1
            if name and score >= 0.35 and free and min(box[2] - box[0], box[3] - box[1]) >= 24:
                yield _exemplar(scene, "FP", name, _box(box))
                break


def _exemplar(
    scene: Scene,
    kind: str,
    category: str,
    box: BoxTuple,
    *,
    polygon: tuple[tuple[float, ...], ...] | None = None,
    blamed: np.ndarray | None = None,
) -> Exemplar:
    import torch

    return Exemplar(
        image_id=scene.image_id,
        outcome_id=None,
        group=f"{kind}:{category}",
        kind=kind,
        category=category,
        image=scene.image,
        box=box,
        polygon=polygon,
        blamed=None if blamed is None else torch.from_numpy(blamed),
    )


def samples(
    name: str, wanted: int, rng: np.random.Generator, polygons: bool
) -> Iterator[tuple[Exemplar, SamplePlan]]:
    """Plans of a recipe, the sets in turn."""
    recipe = RECIPES.load(name)()
    turn = 0
    refused: dict[str, int] = {}
    sources: dict[str, Iterator[Exemplar]] = {}
    for data in SETS[name]:
        pick = np.random.default_rng([int(rng.integers(1 << 30)), len(data)])
        if name == "lookalike":
            sources[data] = mistaken(pick)
        else:
            sources[data] = (hidden if name == "culprit" else missed)(labelled(data), pick)
    while turn < wanted:
        data = SETS[name][turn % len(SETS[name])]
        exemplar = next(sources[data], None)
        if exemplar is None:
            break
        if not polygons:
            exemplar = _without_polygon(exemplar)
        scenes = [s for s in labelled(data) if s.image_id != exemplar.image_id]
        if name == "removal":
            scenes = [s for s in labelled(data) if s.image_id == exemplar.image_id]
        suitable = [s for s in scenes if recipe.suits(exemplar.category, s.annotations)]
        alike = [s for s in suitable if any(a.category == exemplar.category for a in s.annotations)]
        for scene in [(alike or suitable)[i] for i in rng.permutation(len(alike or suitable))[:8]]:
            try:
                started = time.perf_counter()
                plan = recipe.plan(exemplar, scene, seed=int(rng.integers(1 << 30)))
                spent = time.perf_counter() - started
            except StageError as error:
                reason = str(error).partition(": ")[2] or str(error)
                refused[reason[:50]] = refused.get(reason[:50], 0) + 1
                continue
            print(f"{name} {data} {exemplar.category}: {spent:.2f} s {plan.details}")
            yield exemplar, plan
            turn += 1
            break
    print(f"{name}: refused {refused}")


def _without_polygon(exemplar: Exemplar) -> Exemplar:
    import dataclasses

    return dataclasses.replace(exemplar, polygon=None)


def drawn(
    image: Tensor, boxes: list[tuple[BoxTuple, tuple[int, int, int]]], side: int, around: BoxTuple
) -> Image.Image:
    """A square of the picture around a box, three times as large, with boxes."""
    height, width = image.shape[1:]
    reach = max(around[2] - around[0], around[3] - around[1]) * 1.3
    reach = min(max(reach, 48.0), max(width, height) / 2)
    x, y = (around[0] + around[2]) / 2, (around[1] + around[3]) / 2
    x, y = (min(max(v, reach), max(most - reach, reach)) for v, most in ((x, width), (y, height)))
    picture = Image.fromarray(image_pixels(image)).crop(
        [round(v) for v in (x - reach, y - reach, x + reach, y + reach)]
    )
    scale = side / picture.width
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for box, colour in boxes:
        x1, y1, x2, y2 = ((v - o + reach) * scale for v, o in zip(box, (x, y, x, y), strict=True))
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=1)
    return picture


def panels(exemplar: Exemplar, plan: SamplePlan, side: int) -> list[Image.Image]:
    """Scene, exemplar, composed."""
    own = [(exemplar.box, BLUE if exemplar.kind == "FP" else RED)]
    if exemplar.blamed is not None:
        rows, columns = np.nonzero(exemplar.blamed.numpy())
        own.append((_box([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]), BLUE))
    made = plan.composed if plan.rendered is None else plan.rendered
    assert made is not None
    labels = [(a.box, RED if i in plan.made else YELLOW) for i, a in enumerate(plan.annotations)]
    return [
        drawn(plan.scene.image, [(a.box, YELLOW) for a in plan.scene.annotations], side, plan.painted),
        drawn(exemplar.image, own, side, exemplar.box),
        drawn(made, labels, side, plan.painted),
    ]


def picture(rows: list[list[Image.Image]], side: int, path: Path) -> None:
    """Two samples a line, written as a PNG of at most `LARGEST` bytes."""
    lines = -(-len(rows) // 2)
    canvas = Image.new("RGB", (6 * (side + 3) + 8, lines * (side + 3)), "white")
    for k, row in enumerate(rows):
        for j, panel in enumerate(row):
            canvas.paste(panel, ((k % 2) * (3 * (side + 3) + 8) + j * (side + 3), k // 2 * (side + 3)))
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        canvas.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
        canvas = canvas.resize((canvas.width * 9 // 10, canvas.height * 9 // 10), Image.Resampling.LANCZOS)


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", nargs="*", default=sorted(SETS), choices=sorted(SETS))
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--side", type=int, default=208)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-polygons", action="store_true", help="cut along what is found, not what is known"
    )
    options = parser.parse_args()
    for name in options.recipe:
        rng = np.random.default_rng([options.seed, len(name)])
        found = list(samples(name, 2 * options.rows, rng, not options.no_polygons))
        rows = [panels(exemplar, plan, options.side) for exemplar, plan in found]
        picture(rows, options.side, options.out / f"synth_{name}.png")


if __name__ == "__main__":
    main()
