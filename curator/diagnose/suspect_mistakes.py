"""Mistakes of an annotator, made on purpose: what a wrong label looks like in these very data.

In: `Looked` images. Out: the same images with some labels dropped, swapped, shifted, doubled or invented,
and which ones. `curator.diagnose.suspects` learns from them what it cannot be told: there is no list of the
errors that the labels hold already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from curator.diagnose.suspect_evidence import Looked
from curator.matching import GroundTruth

Mistake = Literal["missing label", "wrong class", "shifted box", "duplicate box", "spurious label"]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)
SHIFTED = (0.3, 0.75)  # IoU of a shifted box with the right one
DOUBLED = (0.6, 0.95)  # the same of a duplicate
TRIES = 40


@dataclass(frozen=True, slots=True)
class Made:
    """A mistake that was made.

    Attributes:
        label: place of the wrong label in the changed image; of a dropped one, in the unchanged image.
    """

    kind: Mistake
    label: int


@dataclass(frozen=True, slots=True)
class Mistaken:
    """A changed image: of `images[number]`, with its mistakes."""

    number: int
    image: Looked
    made: tuple[Made, ...]


def mistaken(images: Sequence[Looked], classes: int, *, rate: float, seed: int) -> Iterator[Mistaken]:
    """Make mistakes, each kind equally often, in images in an order drawn by `seed`; images without any are
    left out.

    Args:
        classes: K. rate: share of the labels that something happens to.
        seed: with an image's name it draws what happens there, whatever other images there are.
    """
    counts = np.zeros(classes)
    for image in images:
        np.add.at(counts, image.result.truth.classes[~image.result.truth.ignored], 1)
    drawn = [
        int.from_bytes(hashlib.sha256(f"mistakes/{seed}/{image.name}".encode()).digest()[:8], "big")
        for image in images
    ]
    for number in sorted(range(len(images)), key=drawn.__getitem__):
        made = _changed(images[number], counts, rate, np.random.default_rng(drawn[number]))
        if made is not None:
            yield Mistaken(number, *made)


def _changed(
    image: Looked, counts: NDArray[np.float64], rate: float, draw: np.random.Generator
) -> tuple[Looked, tuple[Made, ...]] | None:
    truth = image.result.truth
    boxes, classes = [*truth.boxes], [*truth.classes.tolist()]
    dropped: list[int] = []
    made: list[Made] = []
    for g in np.flatnonzero(~truth.ignored).tolist():
        if draw.random() >= rate:
            continue
        kind = MISTAKES[int(draw.integers(len(MISTAKES)))]
        label = g
        if kind == "missing label":
            dropped.append(g)
        elif kind == "wrong class":
            other = _other(classes[g], counts, draw)
            if other is None:
                continue
            classes[g] = other
        elif kind == "shifted box":
            box = moved(truth.boxes[g], image.size, SHIFTED, draw)
            if box is None:
                continue
            boxes[g] = box
        else:
            invented = kind == "spurious label"
            box = (
                _elsewhere(truth.boxes, g, image.size, draw)
                if invented
                else moved(truth.boxes[g], image.size, DOUBLED, draw)
            )
            if box is None:
                continue
            other = _other(classes[g], counts, draw) if not invented and draw.random() < 0.25 else None
            boxes.append(box)
            classes.append(classes[g] if other is None else other)
            label = len(boxes) - 1
        made.append(Made(kind, label))
    if not made:
        return None
    keep = np.setdiff1d(np.arange(len(boxes)), dropped)
    place = {int(old): new for new, old in enumerate(keep)}
    extra = len(boxes) - len(truth.boxes)
    changed = GroundTruth(
        np.array(boxes, np.float64).reshape(-1, 4)[keep],
        np.array(classes, np.int64)[keep],
        np.concatenate([truth.ignored, np.zeros(extra, bool)])[keep],
        np.concatenate([truth.ids, np.full(extra, -1, np.int64)])[keep],
    )
    told = tuple(m if m.kind == "missing label" else Made(m.kind, place[m.label]) for m in made)
    return replace(image, result=replace(image.result, truth=changed)), told


def _other(own: int, counts: NDArray[np.float64], draw: np.random.Generator) -> int | None:
    """Another class, by how often it is labelled; None where there is none."""
    weight = np.sqrt(counts)
    weight[own] = 0
    return int(draw.choice(len(weight), p=weight / weight.sum())) if weight.sum() > 0 else None


def moved(
    box: NDArray[np.floating],
    size: tuple[int, int],
    wanted: tuple[float, float],
    draw: np.random.Generator,
) -> NDArray[np.float64] | None:
    """A box whose IoU with `box` is drawn evenly from `wanted`, inside the image; None where none is found.

    Each edge moves by its own normal number; the amount is then found by halving.
    """
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float64)
    limit = np.array([size[1], size[0]] * 2, np.float64)
    for _ in range(TRIES):
        step = (draw.normal(size=4) * 0.5 + np.tile(draw.normal(size=2), 2)) * sides
        aim = draw.uniform(*wanted)
        low, high = 0.0, 2.0
        for _ in range(20):
            middle = (low + high) / 2
            other = np.clip(box + middle * step, 0, limit)
            near = float(iou(box[None], other[None])[0, 0]) > aim
            low, high = (middle, high) if near else (low, middle)
        other = np.clip(box + low * step, 0, limit)
        reached = abs(float(iou(box[None], other[None])[0, 0]) - aim) < 0.02
        if reached and (other[2:] - other[:2] >= 1).all():
            return np.asarray(other)
    return None


def _elsewhere(
    boxes: NDArray[np.floating], of: int, size: tuple[int, int], draw: np.random.Generator
) -> NDArray[np.float64] | None:
    """A box of the size of label `of` where no label is; None where there is no room."""
    sides = boxes[of, 2:] - boxes[of, :2]
    room = np.array([size[1], size[0]]) - sides
    if (room <= 0).any():
        return None
    for _ in range(TRIES):
        corner = draw.random(2) * room
        box = np.concatenate([corner, corner + sides])
        if iou(box[None], boxes).max() < 0.1:
            return box
    return None
