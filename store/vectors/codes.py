"""What the columns of a space hold, and how boxes, classes and scores become small integers.

In: records. Out: arrays for the columns, and back. What is lost:
  boxes    uint16 fractions of the image's sides, clipped to the image: off by at most side / 131,070, which
           is .0077 px of 1,000.
  classes  exact: uint8, or uint16 where there are more than 255 classes; the largest value means none.
  scores   log-odds, clipped to .0001 ... .9999 (+-9.21). The best one of a candidate as uint16: off by at
           most .00004 (at .5), so that thresholds keep their meaning. The other four as uint8: by at most
           .0091 (at .5), and never above the best.
Views are stored as they come.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from store.records import CLASSES, BoxesKind, Floats, ImageBoxes, Ints, SpaceShape
from store.vectors.files import ColumnFile

CodeGroup = Literal["boxes", "candidates", "images"]
CODE_GROUPS: tuple[CodeGroup, ...] = ("boxes", "candidates", "images")
CLIP = 1e-4
LIMIT = log((1 - CLIP) / CLIP)
STEPS = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One file of a kind.

    Attributes:
        group: what one row belongs to: a box, a candidate or an image.
    """

    group: CodeGroup
    name: str
    dtype: str
    width: int

    def file(self, folder: Path, kind: BoxesKind) -> ColumnFile:
        """Where it lies in the folder of its space."""
        return ColumnFile(folder / f"{kind}.{quote(self.name, safe='')}", self.dtype, self.width)


def columns(shape: SpaceShape, kind: BoxesKind) -> list[Column]:
    """The columns of a kind of a space."""
    label = "<u1" if shape.classes <= 255 else "<u2"
    found = [Column(group="boxes", name="corners", dtype="<u2", width=4)]
    found += [
        Column(group="boxes", name=f"view.{view}", dtype="<i1", width=shape.views[view])
        for view in sorted(shape.views)
    ]
    if kind == "outcomes":
        names = ("outcome", "attribution")
        found += [Column(group="boxes", name=name, dtype="<i8", width=1) for name in names]
    found += [
        Column(group="candidates", name="classes", dtype=label, width=CLASSES),
        Column(group="candidates", name="best", dtype="<u2", width=1),
        Column(group="candidates", name="others", dtype="<u1", width=CLASSES - 1),
    ]
    return found + [
        Column(group="images", name=f"image.{view}", dtype="<i1", width=shape.image_views[view])
        for view in sorted(shape.image_views)
    ]


def folder_name(space_id: int, name: str) -> str:
    """The folder of a space, by its id, with its name for people."""
    return f"{space_id:04d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name[:60])}"


def encode(column: Column, images: Sequence[ImageBoxes]) -> NDArray[Any]:
    """The rows (N, width) of a column for at least one image."""
    kind, _, view = column.name.partition(".")
    if kind == "view":
        return np.concatenate([image.views[view] for image in images])
    if kind == "image":
        return np.stack([image.image_views[view] for image in images])
    if kind == "corners":
        return np.concatenate([encode_boxes(image.boxes, image.size) for image in images])
    if kind in ("outcome", "attribution"):
        ids = [image.outcome_ids if kind == "outcome" else image.attribution_ids for image in images]
        parts = [np.full(len(i), -1) if n is None else n for i, n in zip(images, ids, strict=True)]
        return np.concatenate(parts)[:, None]
    labels = np.concatenate([np.asarray(image.labels).reshape(-1, CLASSES) for image in images])
    if kind == "classes":
        return np.where(labels < 0, np.iinfo(column.dtype).max, labels)
    scores = np.concatenate([np.asarray(image.scores, float).reshape(-1, CLASSES) for image in images])
    scores = np.where(labels < 0, 0.0, scores)
    return encode_scores(scores[:, :1] if kind == "best" else scores[:, 1:], column.dtype)


def encode_boxes(boxes: Floats, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Boxes (N, 4) of an image of `size` (height, width), in pixels, as fractions of its sides."""
    height, width = size
    sides = np.array([width, height, width, height], float)
    fractions = np.asarray(boxes, float).reshape(-1, 4) / sides
    codes: NDArray[np.uint16] = np.rint(fractions.clip(0, 1) * STEPS).astype(np.uint16)
    return codes


def decode_boxes(codes: NDArray[np.uint16], sizes: Ints) -> Floats:
    """Boxes (N, 4) in pixels of images of `sizes` (N, 2), heights and widths."""
    return (codes.astype(float) / STEPS * sizes[:, [1, 0, 1, 0]]).astype(np.float32)


def encode_scores(scores: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Probabilities as evenly spaced log-odds."""
    p = scores.clip(CLIP, 1 - CLIP)
    top = np.iinfo(dtype).max
    codes: NDArray[Any] = np.rint((np.log(p / (1 - p)) / LIMIT + 1) / 2 * top).astype(dtype)
    return codes


def decode_scores(codes: NDArray[Any]) -> Floats:
    """Probabilities of `encode_scores`."""
    top = np.iinfo(codes.dtype).max
    return (1 / (1 + np.exp(-(codes / top * 2 - 1) * LIMIT))).astype(np.float32)


def decode_classes(
    classes: NDArray[Any], best: NDArray[np.uint16], others: NDArray[np.uint8]
) -> tuple[Ints, Floats]:
    """Classes (C, 5), -1 where there is none, and their probabilities (C, 5), 0 there."""
    labels = classes.astype(np.int64)
    labels[classes == np.iinfo(classes.dtype).max] = -1
    first = decode_scores(best)
    scores = np.hstack([first, np.minimum(decode_scores(others), first)])
    return labels, np.where(labels < 0, np.float32(0), scores)


def check_images(shape: SpaceShape, kind: BoxesKind, images: Sequence[ImageBoxes]) -> None:
    """Refuse what does not fit the space.

    Raises:
        ValueError: names the image, what was expected and what came.
    """
    for image in images:
        problem = _problem(shape, kind, image)
        if problem is not None:
            raise ValueError(f"boxes of image {image.image_id}: {problem}")


def _problem(shape: SpaceShape, kind: BoxesKind, image: ImageBoxes) -> str | None:
    n = len(image.boxes)
    labels, scores = np.asarray(image.labels), np.asarray(image.scores)
    if not image.key:
        return "expected a content key, got an empty one"
    if image.boxes.shape != (n, 4) or not np.isfinite(image.boxes).all():
        return f"expected finite boxes (N, 4), got {image.boxes.shape}"
    if labels.shape != scores.shape or labels.shape != (len(labels), CLASSES) or len(labels) > n:
        return (
            f"expected labels and scores (C, {CLASSES}) of at most {n} candidates, "
            f"got {labels.shape} and {scores.shape}"
        )
    if labels.size and not -1 <= labels.min() <= labels.max() < shape.classes:
        return f"expected classes from -1 to {shape.classes - 1}, got {labels.min()} to {labels.max()}"
    if not np.isfinite(scores).all() or (scores.size and not 0 <= scores.min() <= scores.max() <= 1):
        return "expected scores from 0 to 1, got others"
    rising = np.where(labels[:, 1:] < 0, -1.0, scores[:, 1:]) > scores[:, :-1] + 1e-6
    if (rising | ((labels[:, :-1] < 0) & (labels[:, 1:] >= 0))).any():
        return "expected each candidate's best class first, and -1 after the last, got another order"
    for wanted, given, lead in ((shape.views, image.views, (n,)), (shape.image_views, image.image_views, ())):
        found = {view: (array.shape, str(array.dtype)) for view, array in given.items()}
        expected = {view: ((*lead, d), "int8") for view, d in wanted.items()}
        if found != expected:
            return f"expected the views {expected} of its space, got {found}"
    for name, ids in (("outcome", image.outcome_ids), ("attribution", image.attribution_ids)):
        if ids is not None and ids.shape != (n,):
            return f"expected {name} ids ({n},), got {ids.shape}"
        if kind == "offered" and ids is not None and (ids != -1).any():
            return f"expected no {name} of offered boxes, got some; put them as kind 'outcomes'"
    return None
