"""What every format checks of its objects: numbers, boxes, repeats, class names.

A format calls these as it reads; `placement.place` calls `checked_objects` for every image of every format,
once its real size is known. So a format reads one object like this:

    dropped = Dropped()
    for number, row in enumerate(rows, start=1):
        try:
            objects.append(NewAnnotation(category=..., box=checked_box(row.corners)))
        except ObjectError as error:
            dropped.add(f"{file.name} line {number}", error)
    return LabelledImage(..., annotations=tuple(objects), **dropped.facts())

and must not look for boxes outside the image, clip or compare objects itself. Class names go through
`class_names` once, when the data set is opened; its notes go into `Source.notes`.

What becomes of a broken object:

- No area, or wholly outside the image: it holds no pixel. It is dropped alone and named; the image keeps its
  other labels.
- Unusable numbers (none, not finite, a negative size, no fractions where fractions are due) or an unknown
  class: an object is there, nobody knows where or which. It is dropped and named, and the image's labels are
  incomplete: what they leave out would teach "nothing is there", so `add` leaves all of them out.
- Partly outside: clipped, with a note where more than `SLACK` pixels were cut off.
- Listed again (same class, same box): one object, with a note. A detector finds it once, so that its twin
  would count as a miss for ever.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

DIGITS = 6
"""Coordinates keep this many decimals, so that xywh and relative files read back as the same numbers."""

SLACK = 0.5
"""Pixels by which a box may leave its image before the clipping is reported."""

_UNSEEN = "\ufeff\u200b"  # a byte order mark and a space of no width: blanks that str.strip() leaves

Key = TypeVar("Key", bound=Hashable)


class ObjectError(ValueError):
    """One object of a file is unusable; the others are kept.

    Attributes:
        incomplete: True where the object may show in the picture, so that the image's labels lack it.
    """

    def __init__(self, message: str, *, incomplete: bool = True) -> None:
        super().__init__(message)
        self.incomplete = incomplete


class Dropped:
    """What one image lost; `facts()` are the fields of `LabelledImage` that say so."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.incomplete = False

    def add(self, where: str, error: ObjectError) -> None:
        """Note an object that is dropped; `where` says which ("a.txt line 3")."""
        self.problems.append(f"{where}: {error}; dropped")
        self.incomplete |= error.incomplete

    def facts(self) -> dict[str, Any]:
        return {"problems": tuple(self.problems), "incomplete": self.incomplete}


def finite(values: Sequence[object]) -> tuple[float, ...]:
    """Return values, numbers or numbers written as text, as floats.

    Raises:
        ObjectError: a value that is no finite number.
    """
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError("true and false are no numbers")
        numbers = tuple(float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ObjectError(f"expected numbers, got {str(list(values))[:60]}") from error
    if not all(map(math.isfinite, numbers)):
        raise ObjectError(f"expected finite numbers, got {str(list(values))[:60]}")
    return numbers


def checked_box(values: Sequence[object]) -> BoxTuple:
    """Return x1, y1, x2, y2 as finite floats with x1 < x2 and y1 < y2.

    Raises:
        ObjectError: another number of values, no numbers, not finite, a negative size (the image's labels
            are incomplete then), or no area (they are not).
    """
    box = finite(values)
    if len(box) != 4:
        raise ObjectError(f"expected a box of 4 numbers, got {len(box)}")
    if box[2] < box[0] or box[3] < box[1]:
        raise ObjectError(f"degenerate box, {show(box)} has a negative size")
    if box[2] == box[0] or box[3] == box[1]:
        raise ObjectError(f"degenerate box, {show(box)} has no area", incomplete=False)
    return box[0], box[1], box[2], box[3]


@dataclass(frozen=True, slots=True)
class CheckedObjects:
    """The objects of one image that are kept; a line for each that was dropped, and for each change."""

    kept: tuple[NewAnnotation, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def checked_objects(objects: Sequence[NewAnnotation], size: tuple[int, int]) -> CheckedObjects:
    """Fit objects to their image: round, clip, drop what lies outside, take what is listed twice once.

    A crowd region and an object may share a box: they are different things.

    Args:
        objects: boxes in absolute pixels of the stored image.
        size: (width, height) of the stored image, EXIF orientation applied.
    """
    width, height = size
    kept: dict[tuple[str, bool, BoxTuple], NewAnnotation] = {}
    times: dict[tuple[str, bool, BoxTuple], int] = {}
    problems, notes = [], []
    for given in objects:
        x1, y1, x2, y2 = given.box
        clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        fitted = rounded(replace(given, box=clipped))
        if fitted.box[2] <= fitted.box[0] or fitted.box[3] <= fitted.box[1]:
            problems.append(
                f"{given.category}: box {show(given.box)} lies outside the {width} x {height} image "
                "or holds no pixel of it; dropped"
            )
            continue
        if max(-x1, -y1, x2 - width, y2 - height) > SLACK:
            notes.append(
                f"{given.category}: box {show(given.box)} leaves the {width} x {height} image; clipped"
            )
        key = fitted.category, fitted.crowd, fitted.box
        times[key] = times.get(key, 0) + 1
        kept.setdefault(key, fitted)
    notes += [
        f"{category}: box {show(box)} is listed {times[category, crowd, box]} times; one object is kept"
        for category, crowd, box in kept
        if times[category, crowd, box] > 1
    ]
    return CheckedObjects(tuple(kept.values()), tuple(problems), tuple(notes))


def class_names(names: Mapping[Key, str], where: str) -> tuple[dict[Key, str], tuple[str, ...]]:
    """Strip the blanks round class names; ids whose names become equal are one class.

    Args:
        names: id -> name as the file says (any ids; a name may be its own id).
        where: what to call the file in messages.
    Returns:
        id -> name, and notes that say what was changed.
    Raises:
        FormatError: a name of blanks alone.
    """
    clean = {key: name.strip().strip(_UNSEEN).strip() for key, name in names.items()}
    notes, ids = [], dict[str, list[Key]]()
    for key, name in clean.items():
        if not name:
            raise FormatError(f"{where}: class {key!r} has no name; every class needs one")
        if name != names[key]:
            notes.append(f"class {names[key]!r} is read as {name!r}")
        ids.setdefault(name, []).append(key)
    notes += [
        f"the classes {', '.join(repr(key) for key in keys)} are one class, {name!r}"
        for name, keys in ids.items()
        if len(keys) > 1
    ]
    return clean, tuple(notes)


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
