"""Untouched looks from the user's own labelled pictures, and the same ones with faults made on purpose.

In: images with their labels and detections. Out: `Look`s. A look's image is the part with its surroundings,
so that many of them fit into memory. Masks are drawn as recipes draw them: the box, its ellipse, or the
outline of what stands out in it, each grown by a rim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import intersection
from curator.inpaint.masks import Mask, bounds, main_part, standing_out, superpixels
from curator.synthesize.gate.base import Found, Label, Look
from curator.synthesize.gate.spoil import spoil
from curator.synthesize.gate.statistics import SIDE
from curator.tensors import image_pixels
from store.records import BoxTuple

SMALLEST = 6.0
"""Pixels: objects with a shorter side are not looked at."""
UNRECOGNISABLE = ("smear", "filled", "shuffled", "strange")
"""Faults after which a label does not hold."""
_RIM = 2
_LARGE = 6 * int(SIDE)  # pixels of a window's side
_TRIES = 20


def untouched(
    image: Tensor, labels: Sequence[Label], found: Found, rng: np.random.Generator, *, objects: int = 3
) -> list[Look]:
    """Some labelled objects of an image, of every class in turn, and a place without any, each as a look."""
    height, width = image.shape[1:]
    whole = [
        i
        for i, (_, b) in enumerate(labels)
        if min(b[2] - b[0], b[3] - b[1]) >= SMALLEST and _inside(b, width, height)
    ]
    looks: list[Look] = []
    turns: dict[str, int] = {}
    order: list[tuple[int, int, int]] = []
    for i in rng.permutation(whole):
        turns[labels[i][0]] = turns.get(labels[i][0], -1) + 1
        order.append((turns[labels[i][0]], len(order), int(i)))
    for _, _, i in sorted(order)[:objects]:
        mask = draw_mask(image, labels[i][1], rng)
        kept = tuple(label for j, label in enumerate(labels) if j != i)
        looks.append(
            windowed(
                Look(image=image, mask=mask, made=(labels[i],), kept=kept, found=found, category=labels[i][0])
            )
        )
    place = _free_place(labels, width, height, rng)
    if place is not None:
        looks.append(
            windowed(Look(image=image, mask=draw_mask(image, place, rng), kept=tuple(labels), found=found))
        )
    return looks


def draw_mask(image: Tensor, box: BoxTuple, rng: np.random.Generator) -> Mask:
    """A mask (H, W) as a recipe would paint over what is in a box."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = box
    mask = np.zeros((height, width), bool)
    kind = rng.random()
    left, top, right, bottom = corners(box, width, height)
    if kind < 0.3:
        mask[top:bottom, left:right] = True
    elif kind < 0.6:
        y, x = np.mgrid[0:height, 0:width]
        mask = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2 + 1)) ** 2 + (
            (y - (y1 + y2) / 2) / ((y2 - y1) / 2 + 1)
        ) ** 2 <= 1
    else:
        margin = 8
        part = (
            slice(max(top - margin, 0), min(bottom + margin, height)),
            slice(max(left - margin, 0), min(right + margin, width)),
        )
        pixels = image_pixels(image[:, *part])
        inner = (left - part[1].start, top - part[0].start, right - part[1].start, bottom - part[0].start)
        outline = standing_out(pixels, superpixels(pixels, 60), inner)
        if outline.any():
            centre = ((inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2)
            mask[part] = ndimage.binary_fill_holes(main_part(outline, centre))
        else:
            mask[top:bottom, left:right] = True
    return np.asarray(ndimage.binary_dilation(mask, iterations=_RIM))


def windowed(look: Look) -> Look:
    """The look on its part and surroundings alone; boxes move along."""
    height, width = look.mask.shape
    x1, y1, x2, y2 = bounds(look.mask)
    margin = max(x2 - x1, y2 - y1, 24)
    left, top = max(x1 - margin, 0), max(y1 - margin, 0)
    right, bottom = min(x2 + margin, width), min(y2 + margin, height)

    # Large parts at every k-th pixel, as `statistics.window` looks at them, so that memory is bounded.
    k = max(1, int(max(x2 - x1, y2 - y1) // SIDE)) if max(right - left, bottom - top) > _LARGE else 1

    def moved(box: BoxTuple) -> BoxTuple:
        return (box[0] - left) / k, (box[1] - top) / k, (box[2] - left) / k, (box[3] - top) / k

    mask = look.mask[top:bottom:k, left:right:k]
    if not mask.any():  # thinner than k
        mask = mask.copy()
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = True

    return replace(
        look,
        image=look.image[:, top:bottom:k, left:right:k].clone(),
        mask=mask,
        made=tuple((name, moved(box)) for name, box in look.made),
        kept=tuple((name, moved(box)) for name, box in look.kept),
        found=[(name, score, moved(box)) for name, score, box in look.found],
    )


def spoilt(look: Look, others: Sequence[Look], rng: np.random.Generator) -> Look:
    """The look with a fault in its part. Labels are kept where the fault makes them wrong, and left out where
    a person could still tell the object."""
    pixels = look.image.permute(1, 2, 0).numpy()
    strange = others[int(rng.integers(len(others)))].image.permute(1, 2, 0).numpy()
    for _ in range(_TRIES):
        name, made = spoil(pixels, look.mask, [strange], rng)
        if np.abs(made - pixels).mean(-1)[look.mask].mean() > 0.02:  # a fault of nothing is none
            break
    image = torch.from_numpy(np.round(made * 255).astype(np.float32) / 255).permute(2, 0, 1).contiguous()
    return replace(look, image=image, made=look.made if name in UNRECOGNISABLE else ())


def mirrored(look: Look) -> Look:
    """The look with left and right exchanged, mask and labels too."""
    width = look.image.shape[2]

    def turned(labels: Sequence[Label]) -> tuple[Label, ...]:
        return tuple((name, (width - b[2], b[1], width - b[0], b[3])) for name, b in labels)

    return replace(
        look,
        image=look.image.flip(2),
        mask=look.mask[:, ::-1],
        made=turned(look.made),
        kept=turned(look.kept),
        found=[(name, score, (width - b[2], b[1], width - b[0], b[3])) for name, score, b in look.found],
    )


def scaled(look: Look, factor: float) -> Look:
    """The look at another size, mask and labels too; at least a pixel of the mask is left."""
    height, width = (max(round(side * factor), 4) for side in look.mask.shape)
    across, along = width / look.mask.shape[1], height / look.mask.shape[0]
    image = F.interpolate(look.image[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
    rows = np.minimum((np.arange(height) / along).astype(int), look.mask.shape[0] - 1)
    columns = np.minimum((np.arange(width) / across).astype(int), look.mask.shape[1] - 1)
    mask = look.mask[rows][:, columns]
    if not mask.any():
        return look

    def at_scale(box: BoxTuple) -> BoxTuple:
        return box[0] * across, box[1] * along, box[2] * across, box[3] * along

    return replace(
        look,
        image=image,
        mask=mask,
        made=tuple((name, at_scale(box)) for name, box in look.made),
        kept=tuple((name, at_scale(box)) for name, box in look.kept),
        found=[(name, score, at_scale(box)) for name, score, box in look.found],
    )


def mislabelled(look: Look, rng: np.random.Generator) -> list[Look]:
    """A labelled look with wrong boxes: beside the object, of another size, with half an object, with two."""
    (name, box), image = look.made[0], look.image
    height, width = image.shape[1:]
    size = np.array([box[2] - box[0], box[3] - box[1]])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.9)
    beside = centre + away * size * np.array([np.cos(angle), np.sin(angle)])
    scale = rng.choice([rng.uniform(0.35, 0.6), rng.uniform(1.7, 2.5)])
    return [
        replace(look, made=((name, _box(beside, size, width, height)),)),
        replace(look, made=((name, _box(centre, size * scale, width, height)),)),
        replace(look, image=half(image, box, rng)),
        replace(look, image=half(image, box, rng, elsewhere=True)),
        doubled(look, rng),
    ]


def half(image: Tensor, box: BoxTuple, rng: np.random.Generator, *, elsewhere: bool = False) -> Tensor:
    """An image whose box lacks about half of its object: the surroundings' mirror image lies there, or a
    piece from elsewhere."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = corners(box, width, height)
    out, share, side = image.clone(), rng.uniform(0.4, 0.6), int(rng.integers(4))
    w, h = max(int((x2 - x1) * share), 1), max(int((y2 - y1) * share), 1)
    strips = {
        0: ((slice(y1, y2), slice(x1, x1 + w)), (slice(y1, y2), slice(x1 - w, x1)), 2),
        1: ((slice(y1, y2), slice(x2 - w, x2)), (slice(y1, y2), slice(x2, x2 + w)), 2),
        2: ((slice(y1, y1 + h), slice(x1, x2)), (slice(y1 - h, y1), slice(x1, x2)), 1),
        3: ((slice(y2 - h, y2), slice(x1, x2)), (slice(y2, y2 + h), slice(x1, x2)), 1),
    }
    if elsewhere:
        (rows, columns), _, _ = strips[side]
        a = int(rng.integers(0, max(height - (rows.stop - rows.start), 0) + 1))
        b = int(rng.integers(0, max(width - (columns.stop - columns.start), 0) + 1))
        out[:, rows, columns] = image[:, a : a + rows.stop - rows.start, b : b + columns.stop - columns.start]
        return out
    for k in range(4):
        target, source, axis = strips[(side + k) % 4]
        if min(source[0].start, source[1].start) < 0:
            continue
        strip = image[:, *source]
        if strip.shape == image[:, *target].shape:
            out[:, *target] = strip.flip(axis)
            return out
    target = strips[side][0]
    out[:, *target] = image.mean((1, 2))[:, None, None]
    return out


def doubled(look: Look, rng: np.random.Generator) -> Look:
    """Two objects in one label's box."""
    name, box = look.made[0]
    height, width = look.image.shape[1:]
    x1, y1, x2, y2 = corners(box, width, height)
    across = bool(rng.random() < 0.5)
    step = rng.uniform(0.5, 0.9)
    dx = int((x2 - x1) * step) * (1 if across else 0) * int(rng.choice([-1, 1]))
    dy = int((y2 - y1) * step) * (0 if across else 1) * int(rng.choice([-1, 1]))
    out = look.image.clone()
    a, b = max(x1 + dx, 0), max(y1 + dy, 0)
    c, d = min(x2 + dx, width), min(y2 + dy, height)
    if c - a >= 2 and d - b >= 2:
        out[:, b:d, a:c] = look.image[:, b - dy : d - dy, a - dx : c - dx]
    union = (float(min(x1, a)), float(min(y1, b)), float(max(x2, c)), float(max(y2, d)))
    return replace(look, image=out, made=((name, union),))


def corners(box: BoxTuple, width: int, height: int) -> tuple[int, int, int, int]:
    """A box on whole pixels within an image."""
    return max(int(box[0]), 0), max(int(box[1]), 0), min(round(box[2]), width), min(round(box[3]), height)


def _box(centre: np.ndarray, size: np.ndarray, width: int, height: int) -> BoxTuple:
    low = np.clip(centre - size / 2, 0, [width - 4, height - 4])
    high = np.clip(centre + size / 2, low + 4, [max(width, 4), max(height, 4)])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _inside(box: BoxTuple, width: int, height: int) -> bool:
    """False for what fills the picture: it has no surroundings to compare with."""
    return (box[2] - box[0]) * (box[3] - box[1]) <= 0.7 * width * height


def _free_place(
    labels: Sequence[Label], width: int, height: int, rng: np.random.Generator
) -> BoxTuple | None:
    """A box of an object's size that touches no label; None where none was found."""
    boxes = np.array([b for _, b in labels], float).reshape(-1, 4)
    for _ in range(_TRIES):
        if len(boxes):
            chosen = boxes[int(rng.integers(len(boxes)))]
            w, h = chosen[2] - chosen[0], chosen[3] - chosen[1]
        else:
            w = h = float(rng.uniform(0.1, 0.3)) * min(width, height)
        if w < SMALLEST or h < SMALLEST or w > width - 2 or h > height - 2:
            continue
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        box = (float(x), float(y), float(x + w), float(y + h))
        if not len(boxes) or float(intersection([box], boxes).max()) == 0:
            return box
    return None
