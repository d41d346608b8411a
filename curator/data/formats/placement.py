"""Bring an image's objects to the one frame: xyxy in absolute pixels of the stored image, no +1.

In: a `LabelledImage` in its files' frame, the image's real size and its EXIF orientation. Out: the same
image with absolute, rounded, clipped boxes. Orientation (EXIF 2.3, tag 0x0112): a camera stores W x H
pixels and says how to turn them; some tools label the turned picture, others the stored pixels. The
declared size tells which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from curator.data.formats.base import LabelledImage
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

DIGITS = 6
"""Coordinates keep this many decimals, so that xywh and relative files read back as the same numbers."""

SLACK = 0.5
"""Pixels by which a box may leave its image before the clipping is reported."""

Point = Callable[[float, float], tuple[float, float]]


class ObjectError(ValueError):
    """One object of a file is unusable; the others are kept.

    Attributes:
        empty: its box, where that is sound but without area. wanted: False for a class not asked for.
    """

    def __init__(self, message: str, *, empty: BoxTuple | None = None, wanted: bool = True) -> None:
        super().__init__(message)
        self.empty, self.wanted = empty, wanted


class Dropped:
    """What one image lost; `facts()` are the fields of `LabelledImage` that say so."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.empty: list[BoxTuple] = []
        self.incomplete = False

    def add(self, where: str, error: ObjectError) -> None:
        """Note an object that is dropped."""
        self.problems.append(f"{where}: {error}; dropped")
        if error.empty is not None:
            self.empty.append(error.empty)
        else:
            self.incomplete |= error.wanted

    def facts(self) -> dict[str, Any]:
        return {
            "problems": tuple(self.problems),
            "empty": tuple(self.empty),
            "incomplete": self.incomplete,
        }


def checked_box(values: Sequence[object]) -> BoxTuple:
    """Return x1, y1, x2, y2 as finite floats with x1 < x2 and y1 < y2.

    Raises:
        ObjectError: another number of values, no numbers, not finite, or a degenerate box.
    """
    box = finite(values)
    if len(box) != 4:
        raise ObjectError(f"expected a box of 4 numbers, got {len(box)}")
    if box[2] <= box[0] or box[3] <= box[1]:
        corners = (box[0], box[1], box[2], box[3])
        turned = box[2] < box[0] or box[3] < box[1]  # a negative size: nobody knows where the object is
        raise ObjectError(f"degenerate box, {show(box)} has no area", empty=None if turned else corners)
    return box[0], box[1], box[2], box[3]


def finite(values: Sequence[object]) -> tuple[float, ...]:
    """Return values as floats.

    Raises:
        ObjectError: a value that is no finite number.
    """
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ObjectError(f"expected numbers, got {str(list(values))[:60]}") from error
    if not all(map(math.isfinite, numbers)):
        raise ObjectError(f"expected finite numbers, got {str(list(values))[:60]}")
    return numbers


def show(box: Sequence[float]) -> str:
    """A box for people."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def rounded(annotation: NewAnnotation) -> NewAnnotation:
    """Round the coordinates to `DIGITS` decimals (and -0.0 to 0.0)."""
    x1, y1, x2, y2 = (round(float(value), DIGITS) + 0.0 for value in annotation.box)
    polygon = annotation.polygon
    if polygon is not None:
        polygon = tuple(tuple(round(float(value), DIGITS) + 0.0 for value in ring) for ring in polygon)
    return replace(annotation, box=(x1, y1, x2, y2), polygon=polygon)


def place(image: LabelledImage, size: tuple[int, int], orientation: int = 1) -> LabelledImage:
    """Return `image` with boxes and polygons in pixels of the stored image.

    Relative coordinates (YOLO) refer to the upright picture, as the tools that write them do. A mirrored or
    half-turned picture has the size of its stored pixels, so its boxes are taken as upright.

    Args:
        size: (width, height) of the stored image, EXIF orientation applied.
        orientation: EXIF orientation, 1 to 8.
    Raises:
        FormatError: the declared size is neither the upright nor the unrotated one.
    """
    width, height = size
    declared = image.declared_size
    turn: Point | None = None
    if declared is not None and declared != size:
        if orientation not in range(5, 9) or declared != (height, width):
            raise FormatError(
                f"the annotation file says {declared[0]} x {declared[1]} pixels, "
                f"the image has {width} x {height}; "
                "correct the file's size or its image"
            )
        turn = upright(orientation, height, width)
    if image.annotations is None:
        return image
    kept, problems, notes = [], list(image.problems), list(image.notes)
    scale = (width, height) if image.relative else (1, 1)
    incomplete = image.incomplete
    for box in image.empty:
        box = (box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])
        incomplete |= not _within(box if turn is None else _turned_box(box, turn), size)
    for annotation in image.annotations:
        box, polygon, attributes = annotation.box, annotation.polygon, annotation.attributes
        if image.relative:
            box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            if polygon is not None:
                polygon = tuple(tuple(v * scale[i % 2] for i, v in enumerate(ring)) for ring in polygon)
        if turn is not None:
            box = _turned_box(box, turn)
            if polygon is not None:
                polygon = tuple(_turned_ring(ring, turn) for ring in polygon)
            if "rle" in attributes:
                notes.append(
                    f"{annotation.category}: its run-length mask is dropped, the image is turned by EXIF"
                )
                attributes = {key: value for key, value in attributes.items() if key != "rle"}
        clipped = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
        moved = replace(annotation, box=clipped, polygon=polygon, attributes=attributes)
        moved = rounded(moved)
        if moved.box[2] <= moved.box[0] or moved.box[3] <= moved.box[1]:
            problems.append(
                f"{annotation.category}: box {show(box)} lies outside the {width} x {height} image; dropped"
            )
            incomplete |= not _within(box, size)
            continue
        if max(-box[0], -box[1], box[2] - width, box[3] - height) > SLACK:
            notes.append(
                f"{annotation.category}: box {show(box)} leaves the {width} x {height} image; clipped"
            )
        kept.append(moved)
    return replace(
        image,
        annotations=tuple(kept),
        problems=tuple(problems),
        incomplete=incomplete,
        empty=(),
        relative=False,
        declared_size=size,
        notes=tuple(notes),
    )


def upright(orientation: int, width: int, height: int) -> Point:
    """Return the map of a point of the stored `width` x `height` pixels to the upright picture."""
    maps: dict[int, Point] = {
        1: lambda x, y: (x, y),
        2: lambda x, y: (width - x, y),
        3: lambda x, y: (width - x, height - y),
        4: lambda x, y: (x, height - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }
    return maps[orientation]


def _within(box: BoxTuple, size: tuple[int, int]) -> bool:
    return 0 <= box[0] <= box[2] <= size[0] and 0 <= box[1] <= box[3] <= size[1]


def _turned_box(box: BoxTuple, turn: Point) -> BoxTuple:
    (ax, ay), (bx, by) = turn(box[0], box[1]), turn(box[2], box[3])
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _turned_ring(ring: Sequence[float], turn: Point) -> tuple[float, ...]:
    return tuple(value for x, y in zip(ring[0::2], ring[1::2], strict=True) for value in turn(x, y))
