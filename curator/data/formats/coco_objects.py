"""One image record of a COCO file and its annotations, as a `LabelledImage`.

In: the parsed JSON objects. Out: the labels in the file's frame. Tools write numbers as text and ids as
floats; both are read. Where `bbox` is missing or has no area, the box is that of the mask: of its polygons,
or of its run lengths (https://github.com/cocodataset/cocoapi, `maskApi.c`; plain lists and the compressed
texts), column by column from the left top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.data.formats.base import LabelledImage
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

Record = Mapping[str, Any]


class Classes:
    """The categories of a file.

    Attributes:
        names: id -> name. clashes: ids that were given to several names, with these. wanted: the names to
            read; None reads all.
    """

    def __init__(
        self, names: Mapping[str, str], clashes: Mapping[str, Sequence[str]], wanted: frozenset[str] | None
    ) -> None:
        self.names, self.clashes, self.wanted = names, clashes, wanted

    def of(self, annotation: Record) -> str | None:
        """The annotation's class; None where it was not asked for.

        Raises:
            ObjectError: an unknown id, or one that was given to several classes.
        """
        identity = identity_of(annotation.get("category_id"))
        options = self.clashes.get(identity) or [name for name in [self.names.get(identity)] if name]
        if options and self.wanted is not None and not self.wanted.intersection(options):
            return None
        if not options:
            raise ObjectError(f"unknown category_id {annotation.get('category_id')!r}")
        if len(options) > 1:
            raise ObjectError(f"category_id {identity} is given to {' and '.join(map(repr, options))}")
        return options[0]


def identity_of(value: object) -> str:
    """An id as a key: 1, 1.0 and "1" are one id."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def labelled_image(
    record: Record, name: str, path: Path, annotations: Sequence[Record] | None, classes: Classes
) -> LabelledImage:
    """Make the image; objects that are unusable are dropped and named.

    Args:
        annotations: None where the file holds no list of annotations: the image is unlabelled.
    Raises:
        FormatError: a width or height that is no whole number above 0.
    """
    size = _size(record)
    objects, dropped = [], Dropped()
    for raw in annotations or ():
        try:
            if (category := classes.of(raw)) is not None:
                objects.append(_object(raw, category, size))
        except ObjectError as error:
            dropped.add(f"annotation {raw.get('id')}", error)
    tags = record.get("tags") or {}
    if isinstance(tags, list):
        tags = {str(tag): "true" for tag in tags}
    group = next(
        (record[key] for key in ("video_id", "video", "group_key") if record.get(key) is not None), None
    )
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=None if annotations is None else tuple(objects),
        **dropped.facts(),
        group_key=None if group is None else str(group),
        captured_at=str(record["date_captured"]) if record.get("date_captured") else None,
        tags={str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {},
        status="pre-annotation" if record.get("status") == "pre-annotation" else "human",
    )


def _size(record: Record) -> tuple[int, int] | None:
    given = record.get("width"), record.get("height")
    if None in given:
        return None
    try:
        width, height = finite(given)
    except ObjectError:
        width = height = 0
    if width <= 0 or height <= 0 or width % 1 or height % 1:
        raise FormatError(f"expected a whole width and height above 0, got {given[0]} x {given[1]}")
    return int(width), int(height)


def _object(raw: Record, category: str, size: tuple[int, int] | None) -> NewAnnotation:
    given, mask = raw.get("attributes"), raw.get("segmentation")
    attributes = {str(k): v for k, v in given.items()} if isinstance(given, dict) else {}
    polygon = None
    if isinstance(mask, dict) and mask:
        attributes["rle"] = mask
    elif isinstance(mask, list) and mask:
        polygon = _rings(mask)
    score = _number(raw.get("score"))
    if score is not None:
        attributes["score"] = score
    return NewAnnotation(
        category=category,
        box=_box(raw.get("bbox"), polygon, attributes.get("rle"), size),
        crowd=_flag(raw.get("iscrowd")),
        difficult=_flag(raw.get("difficult")),
        polygon=polygon,
        attributes=attributes,
    )


def _rings(mask: list[Any]) -> tuple[tuple[float, ...], ...] | None:
    """The rings of a polygon mask; a list of numbers is one ring."""
    lists = [ring for ring in mask if isinstance(ring, list)]
    rings = [finite(ring) for ring in (lists or [[v for v in mask if not isinstance(v, dict)]])]
    if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
        raise ObjectError("expected polygons of at least 3 points (x, y)")
    return tuple(rings)


def _box(
    given: object,
    polygon: Sequence[Sequence[float]] | None,
    mask: Record | None,
    size: tuple[int, int] | None,
) -> BoxTuple:
    """The corners of `bbox`; of the mask where there is no bbox or it has no area."""
    if not isinstance(given, list) or len(given) != 4:
        if given not in (None, []) or not (polygon or mask):
            raise ObjectError(f"expected bbox [x, y, width, height], got {str(given)[:60]}")
    else:
        x, y, width, height = finite(given)
        if (width > 0 and height > 0) or width < 0 or height < 0 or not (polygon or mask):
            return checked_box((x, y, x + width, y + height))
    if polygon:
        xs, ys = [x for ring in polygon for x in ring[0::2]], [y for ring in polygon for y in ring[1::2]]
        return checked_box((min(xs), min(ys), max(xs), max(ys)))
    assert mask is not None
    return checked_box(_mask_box(mask, size))


def _mask_box(mask: Record, size: tuple[int, int] | None) -> Sequence[float]:
    from hotcoco.mask import to_bbox

    counts = mask.get("counts")
    try:
        height, width = (int(value) for value in finite(mask.get("size") or ()))
        if isinstance(counts, list):
            counts = [int(value) for value in finite(counts)]
        x, y, across, down = (float(value) for value in to_bbox({"size": [height, width], "counts": counts}))
    except (TypeError, ValueError, OverflowError) as error:
        raise ObjectError(f"no bbox, and its run-length mask is unusable ({error})") from error
    if size is not None and size != (width, height):
        raise ObjectError(
            f"no bbox, and its mask is of {width} x {height} pixels, the image of {size[0]} x {size[1]}"
        )
    return x, y, x + across, y + down


def _number(value: object) -> float | int | None:
    """A number, or one written as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _flag(value: object) -> bool:
    """True for true, 1, "1", "true", "yes"."""
    if isinstance(value, str):
        return value.strip().lower() in ("1", "1.0", "true", "yes")
    return bool(value)
