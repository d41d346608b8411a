"""One scene of flowers: `render_scene(params)` is a pure function of its parameters.

In: `SceneParams` (renderer seed, role, index, size, gap). Out: `RenderedScene`: pixels, labelled objects,
part masks and the culprit's mask. The parameters that shape scenes and gaps are fixed in
docs/decisions/0001-example-renderer.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.example.flowers import CLASSES, COLOURS, flower
from curator.example.gaps import Gap, cast, dark_ground, lookalike, patterned, post
from curator.example.ground import clutter, ground, light, panel_of_artificial
from curator.example.shapes import SUPERSAMPLING, Shape, jitter, move_all, paint, shade, silhouette, tight_box
from store.records import ROLES, BoxTuple, NewAnnotation, Role

RENDERER_VERSION = 2
HEIGHTS = (44.0, 88.0)  # px of a 192 px scene
SMALL_HEIGHTS = (21.0, 31.0)
PANEL_DISTANCE = 14.0  # px between an artificial flower with its panel and anything labelled
ARTIFICIAL_RATE = 0.35  # scenes with an unlabelled artificial flower, in every role
DARK_SHADE = (0.34, 0.52)  # how much light is left on a flower on dark ground


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneParams:
    """What a scene depends on. `size` in px; `gap` None is a clean scene."""

    role: Role
    index: int
    seed: int = 0
    size: int = 192
    gap: Gap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedScene:
    """A rendered scene.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        annotations: one per labelled flower; `attributes` {"gap": name or None, "culprit_box": [4] or None}.
        part_masks: per annotation "blossom" and "stem" -> (H, W) bool, visible or not.
        culprit_mask: (H, W) bool, what the gap consists of; for "small" the flower itself.
        culprit_boxes: boxes of the culprits (look-alikes have no annotation: only this).
        tags: {"gap": name or "none", "culprit_boxes": JSON}.
    """

    pixels: NDArray[np.uint8]
    annotations: tuple[NewAnnotation, ...]
    part_masks: tuple[Mapping[str, NDArray[np.bool_]], ...]
    culprit_mask: NDArray[np.bool_]
    culprit_boxes: tuple[BoxTuple, ...]
    tags: Mapping[str, str]


@dataclass(slots=True)
class _Object:
    """A flower (or look-alike) that has found its place."""

    category: str
    shapes: list[Shape]
    box: BoxTuple
    middle: tuple[float, float]
    height: float
    culprits: list[Shape] = field(default_factory=list)
    gap: Gap | None = None


def render_scene(params: SceneParams) -> RenderedScene:
    """Render a scene; equal parameters give equal pixels on every machine with equal library versions."""
    rng = np.random.default_rng([params.seed, ROLES.index(params.role), params.index])
    scale, size = params.size / 192, params.size
    canvas = ground(rng, size)
    paint(canvas, clutter(rng, size))
    taken: list[BoxTuple] = []
    flowers: list[_Object] = []
    # The flower that the gap concerns comes first, so that it always finds a place.
    for number in range(int(rng.integers(1, 4)) + (params.gap == "small")):
        concerned = params.gap not in (None, "lookalike") and (
            number == 0 or (params.gap == "small" and number < 3)
        )
        gap = params.gap if concerned else None
        height = rng.uniform(*(SMALL_HEIGHTS if gap == "small" else HEIGHTS)) * scale
        placed = _place(rng, taken, size, height, CLASSES[rng.integers(len(CLASSES))], beside=gap == "beside")
        if placed is not None:
            placed.gap = gap
            flowers.append(placed)
    others = [_artificial(rng, taken, size, scale)] if rng.random() < ARTIFICIAL_RATE else []
    if params.gap == "lookalike":
        others += [_lookalike(rng, taken, size, scale) for _ in range(int(rng.integers(1, 3)))]
    unlabelled = [thing for thing in others if thing is not None]
    for thing in flowers:
        if thing.gap == "dark":
            thing.culprits = move_all(dark_ground(rng, thing.height), *thing.middle)
            paint(canvas, thing.culprits)
    for thing in sorted([*flowers, *unlabelled], key=lambda thing: thing.box[3]):
        if thing.gap == "dark":
            dim = rng.uniform(*DARK_SHADE)
            paint(canvas, [replace(shape, colour=shade(shape.colour, dim)) for shape in thing.shapes])
        else:
            paint(canvas, thing.shapes)
        if thing.gap in ("post", "beside"):
            thing.culprits = _put(rng, thing)
            paint(canvas, thing.culprits)
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64)
    haze = np.zeros((size, size), bool)
    if params.gap == "cast":
        pixels, haze = cast(rng, pixels, flowers[0].middle, flowers[0].height)
    pixels = light(rng, pixels)
    return _scene(params, np.clip(pixels.round(), 0, 255).astype(np.uint8), flowers, unlabelled, haze)


def _scene(
    params: SceneParams,
    pixels: NDArray[np.uint8],
    flowers: list[_Object],
    unlabelled: list[_Object],
    haze: NDArray[np.bool_],
) -> RenderedScene:
    annotations, masks = [], []
    culprit = haze.copy()
    boxes: list[BoxTuple] = []
    for thing in flowers:
        parts = {
            part: silhouette([s for s in thing.shapes if s.part == part], params.size)
            for part in ("blossom", "stem")
        }
        box = tight_box(parts["blossom"] | parts["stem"])
        assert box is not None  # a flower is placed inside the scene
        if params.gap == "cast" and haze[int(thing.middle[1]), int(thing.middle[0])]:
            thing.gap = "cast"
        culprit_box: BoxTuple | None = None
        if thing.culprits:
            mask = silhouette(thing.culprits, params.size)
            culprit |= mask
            culprit_box = tight_box(mask)
        elif thing.gap == "small":
            culprit |= parts["blossom"] | parts["stem"]
            culprit_box = box
        elif thing.gap == "cast":
            culprit_box = tight_box(haze)
        if culprit_box is not None:
            boxes.append(culprit_box)
        attributes: dict[str, Any] = {
            "gap": thing.gap,
            "culprit_box": list(culprit_box) if culprit_box else None,
        }
        annotations.append(NewAnnotation(category=thing.category, box=box, attributes=attributes))
        masks.append(parts)
    for thing in unlabelled:
        if thing.gap == "lookalike":
            mask = silhouette(thing.shapes, params.size)
            culprit |= mask
            found = tight_box(mask)
            if found is not None:
                boxes.append(found)
    boxes = list(dict.fromkeys(boxes))
    return RenderedScene(
        pixels=pixels,
        annotations=tuple(annotations),
        part_masks=tuple(masks),
        culprit_mask=culprit,
        culprit_boxes=tuple(boxes),
        tags={"gap": params.gap or "none", "culprit_boxes": json.dumps(boxes)},
    )


def _outline(shapes: list[Shape]) -> BoxTuple:
    points = np.concatenate([shape.points for shape in shapes])
    (x1, y1), (x2, y2) = points.min(0), points.max(0)
    return float(x1), float(y1), float(x2), float(y2)


def _fits(box: BoxTuple, taken: list[BoxTuple], size: int, distance: float) -> bool:
    if box[0] < 1 or box[1] < 1 or box[2] > size - 1 or box[3] > size - 1:
        return False
    return all(
        box[2] + distance < t[0]
        or t[2] + distance < box[0]
        or box[3] + distance < t[1]
        or t[3] + distance < box[1]
        for t in taken
    )


def _settle(
    rng: np.random.Generator,
    shapes: list[Shape],
    taken: list[BoxTuple],
    size: int,
    *,
    margin: float = 0.0,
    distance: float = 3.0,
    tries: int = 25,
) -> list[Shape] | None:
    """Move shapes to a free place, `distance` px from others; `margin` px stay free at both sides."""
    x1, y1, x2, y2 = _outline(shapes)
    for _ in range(tries):
        x = rng.uniform(1 - x1 + margin, max(size - 1 - x2 - margin, 2 - x1 + margin))
        y = rng.uniform(1 - y1, size - 1 - y2)
        if _fits((x1 + x - margin, y1 + y, x2 + x + margin, y2 + y), taken, size, distance):
            taken.append((x1 + x - margin, y1 + y, x2 + x + margin, y2 + y))
            return move_all(shapes, x, y)
    return None


def _place(
    rng: np.random.Generator, taken: list[BoxTuple], size: int, height: float, category: str, *, beside: bool
) -> _Object | None:
    shapes = _settle(rng, flower(rng, category, height), taken, size, margin=0.46 * height if beside else 0)
    if shapes is None:
        return None
    box = _outline(shapes)
    return _Object(category, shapes, box, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), height)


def _put(rng: np.random.Generator, thing: _Object) -> list[Shape]:
    """The post in front of, or the pattern beside, a flower."""
    x, y = thing.middle
    if thing.gap == "post":
        return move_all(post(rng, thing.height), x, y)
    shapes, wide = patterned(rng, thing.height)
    return move_all(shapes, *_neighbour(rng, thing.box, wide))


def _neighbour(rng: np.random.Generator, box: BoxTuple, wide: float) -> tuple[float, float]:
    """Where the middle of something `wide` goes so that it touches the box's left or right side."""
    overlap = rng.uniform(0.0, 0.2) * wide
    x = box[0] - wide / 2 + overlap if rng.random() < 0.5 else box[2] + wide / 2 - overlap
    return x, box[1] + (box[3] - box[1]) * rng.uniform(0.4, 0.65)


def _artificial(rng: np.random.Generator, taken: list[BoxTuple], size: int, scale: float) -> _Object | None:
    height = rng.uniform(*HEIGHTS) * scale
    category = CLASSES[rng.integers(len(CLASSES))]
    shapes = flower(rng, category, height)
    panel = panel_of_artificial(rng, height)
    x1, _, x2, _ = _outline(panel)
    panel = move_all(panel, *_neighbour(rng, _outline(shapes), x2 - x1))
    together = _settle(rng, shapes + panel, taken, size, distance=PANEL_DISTANCE * scale)
    if together is None:
        return None
    box = _outline(together)
    return _Object(category, together, box, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), height)


def _lookalike(rng: np.random.Generator, taken: list[BoxTuple], size: int, scale: float) -> _Object | None:
    height = rng.uniform(*HEIGHTS) * scale
    colour, part = CLASSES[rng.integers(len(CLASSES))].split("-")
    shapes = _settle(rng, lookalike(rng, jitter(rng, COLOURS[colour]), part, height), taken, size, tries=60)
    if shapes is None:
        return None
    box = _outline(shapes)
    return _Object("", shapes, box, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), height, gap="lookalike")
