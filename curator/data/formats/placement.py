"""Bring an image's objects to the one frame: xyxy in absolute pixels of the stored image, no +1.

In: a `LabelledImage` in its files' frame, the image's real size and its EXIF orientation. Out: the same
image with absolute boxes that `checking.checked_objects` fitted to it. Orientation (EXIF 2.3, tag 0x0112):
a camera stores W x H pixels and says how to turn them; some tools label the turned picture, others the
stored pixels. The declared size tells which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from curator.data.formats.base import LabelledImage
from curator.data.formats.checking import checked_objects
from curator.errors import FormatError
from store.records import BoxTuple

Point = Callable[[float, float], tuple[float, float]]


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
    moved, notes = [], list(image.notes)
    for annotation in image.annotations:
        box, polygon, attributes = annotation.box, annotation.polygon, annotation.attributes
        if image.relative:
            box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            if polygon is not None:
                polygon = tuple(tuple(v * size[i % 2] for i, v in enumerate(ring)) for ring in polygon)
        if turn is not None:
            box = _turned_box(box, turn)
            if polygon is not None:
                polygon = tuple(_turned_ring(ring, turn) for ring in polygon)
            if "rle" in attributes:
                notes.append(
                    f"{annotation.category}: its run-length mask is dropped, the image is turned by EXIF"
                )
                attributes = {key: value for key, value in attributes.items() if key != "rle"}
        moved.append(replace(annotation, box=box, polygon=polygon, attributes=attributes))
    checked = checked_objects(moved, size)
    return replace(
        image,
        annotations=checked.kept,
        problems=(*image.problems, *checked.problems),
        relative=False,
        declared_size=size,
        notes=(*notes, *checked.notes),
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


def _turned_box(box: BoxTuple, turn: Point) -> BoxTuple:
    (ax, ay), (bx, by) = turn(box[0], box[1]), turn(box[2], box[3])
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _turned_ring(ring: Sequence[float], turn: Point) -> tuple[float, ...]:
    return tuple(value for x, y in zip(ring[0::2], ring[1::2], strict=True) for value in turn(x, y))
