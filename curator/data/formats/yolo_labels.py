"""YOLO label files: where the labels of an image lie, and what their rows mean.

A row is one of, all numbers fractions of the upright image's width and height:

    class cx cy w h                             a box
    class cx cy w h  x1 y1 [v1] x2 y2 [v2] ...  a box and its keypoints, where data.yaml has `kpt_shape`
    class x1 y1 x2 y2 x3 y3 ...                 a polygon or an oriented box: its upright box is taken

The label file of `.../images/x/a.jpg` is `.../labels/x/a.txt` (the last "images" in the path counts, as
in the trainers), else `a.txt` beside the image. No other folder is looked at: 1.jpg of one class never
gets the labels of another's 1.jpg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curator.data.formats.base import LabelledImage
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

LARGEST = 1.5
"""A width, height or corner beyond this is no fraction of the image but a number of pixels. The trainers draw
the line at 1.01 and refuse the file; a box drawn over the image's edge may be a little larger than it."""

FARTHEST = 2.0
"""A centre beyond this is none either; nearer ones may be of a box that lies outside."""

_LABEL_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class Rows:
    """How the rows of a data set read.

    Attributes:
        names: class id -> name. keypoint_numbers: how many numbers follow the box in a pose row.
    """

    names: Mapping[int, str]
    keypoint_numbers: int = 0


def label_file(image: Path) -> Path | None:
    """The image's label file; None where it has none."""
    expected = expected_label(image)
    for file in (expected, image.with_suffix(".txt")):
        if file.is_file():
            return file
    return None


def expected_label(image: Path) -> Path:
    """Where the trainers look for the image's labels."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def read_labels(item: LabelledImage, file: Path, rows: Rows) -> LabelledImage:
    """`item` with the objects of its label file; broken rows are dropped and named.

    Raises:
        FormatError: the file is no text, or too large for one.
    """
    try:
        if file.stat().st_size > _LABEL_LIMIT:
            raise FormatError(f"{file.name}: expected at most {_LABEL_LIMIT} bytes of labels")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{file.name}: not readable as text ({type(error).__name__})") from error
    objects, dropped = [], Dropped()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(read_row(line.split(), rows))
        except ObjectError as error:
            dropped.add(f"{file.name} line {number}", error)
    return replace(item, annotations=tuple(objects), **dropped.facts())


def read_row(fields: Sequence[str], rows: Rows) -> NewAnnotation:
    """The object of one row, as fractions.

    Raises:
        ObjectError: it is none.
    """
    pose, polygon = 5 + rows.keypoint_numbers, None
    if rows.keypoint_numbers and len(fields) not in (5, pose):
        raise ObjectError(
            f"expected class, box and {rows.keypoint_numbers} numbers of keypoints ({pose} fields, as "
            f"kpt_shape in data.yaml says), got {len(fields)} fields"
        )
    if not rows.keypoint_numbers and len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise ObjectError(
            f"expected class and 4 numbers, or class and 3 or more points, got {len(fields)} fields"
            f"{_pose_hint(fields)}"
        )
    if len(fields) in (5, pose):
        values = finite(fields[:5])  # keypoints are not kept
        box = _centred(values[1:])
    else:
        values = finite(fields)
        if hint := _pose_hint(fields):
            raise ObjectError(f"expected a polygon{hint}")
        box, polygon = _bounds(values[1:]), (values[1:],)
    if values[0] not in rows.names:
        raise ObjectError(f"unknown class id {fields[0]}; known are {_known(rows.names)}")
    return NewAnnotation(category=rows.names[int(values[0])], box=box, polygon=polygon)


def _centred(values: Sequence[float]) -> BoxTuple:
    cx, cy, width, height = values
    if max(abs(width), abs(height)) > LARGEST or max(abs(cx), abs(cy)) > FARTHEST:
        raise _no_fractions(values)
    return checked_box((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))


def _bounds(values: Sequence[float]) -> BoxTuple:
    xs, ys = values[0::2], values[1::2]
    if max(map(abs, values)) > LARGEST:
        raise _no_fractions(values)
    return checked_box((min(xs), min(ys), max(xs), max(ys)))


def _no_fractions(values: Sequence[float]) -> ObjectError:
    some = " ".join(f"{value:g}" for value in values[:8]) + " ..." * (len(values) > 8)
    return ObjectError(f"expected fractions of the image, from 0 to 1, got {some}; are these pixels?")


def _pose_hint(fields: Sequence[str]) -> str:
    """What to say of a row that is a box with keypoints x, y, visibility, where data.yaml names none.

    As a polygon it would give a wrong box. It is told by its numbers: each third one is 0, 1 or 2, and the
    visible points lie in the box; a polygon's corners hardly ever do that.
    """
    numbers = fields[5:]
    if len(numbers) < 6 or len(numbers) % 3 or not set(numbers[2::3]) <= _VISIBILITIES:
        return ""
    try:
        cx, cy, width, height = finite(fields[1:5])
        points = finite(numbers)
    except ObjectError:
        return ""
    for x, y, visibility in zip(points[0::3], points[1::3], points[2::3], strict=True):
        if visibility and (abs(x - cx) > width / 2 + 0.02 or abs(y - cy) > height / 2 + 0.02):
            return ""
    shape = f"[{len(numbers) // 3}, 3]"
    return f"; this looks like a box with keypoints: say kpt_shape: {shape} in data.yaml"


_VISIBILITIES = {f"{number}{zeros}" for number in "012" for zeros in ("", ".0", ".00", ".000000")}


def _known(names: Mapping[int, str]) -> str:
    ids = sorted(names)
    if ids == list(range(len(ids))):
        return f"{ids[0]} to {ids[-1]}"
    return ", ".join(map(str, ids[:20])) + ", ..." * (len(ids) > 20)
