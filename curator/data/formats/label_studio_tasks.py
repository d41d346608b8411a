"""One task of Label Studio as a `LabelledImage`.

In: the parsed JSON of a task, of its export or of JSON-MIN (one flat object: the image beside lists of
regions). Out: boxes as fractions of the upright image. A region is a result of type "rectanglelabels",
"polygonlabels" or "ellipselabels"; one of type "rectangle" finds its class in the "labels" result of the same
id. Results of other types and of that id (choices, text, rating) are the region's attributes. A turned
rectangle (turned about its left top corner) is read as the upright box round it, with a note.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.data.formats.base import LabelledImage
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite
from curator.data.formats.files import IMAGE_SUFFIXES
from curator.data.formats.labelling import Labels, bounds
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

Record = Mapping[str, Any]
_KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels")
_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint", *_KINDS)
_WORDS = ("choices", "text", "number", "rating", "taxonomy", "datetime")


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        name: for messages. image: the address of its image; broken: why there is none.
        results: of the annotation that counts; None: unlabelled. waiting: they are predictions.
        notes: what was passed over.
    """

    name: str
    image: str
    results: tuple[Record, ...] | None
    waiting: bool = False
    notes: tuple[str, ...] = ()
    broken: str = ""

    def names(self) -> Iterator[str]:
        """The classes of its regions."""
        named = _labels_of(self.results or ())
        for result in self.results or ():
            if result.get("type") in _SHAPES:
                yield from (name for name in _written(result, named) if isinstance(name, str))

    def labelled(self, path: Path, name: str, labels: Labels) -> LabelledImage:
        """As an image; objects that are unusable are dropped and named."""
        objects, dropped, notes = [], Dropped(), list(self.notes)
        if self.results is not None:
            named, facts = _labels_of(self.results), _facts_of(self.results)
            shapes = [r for r in self.results if r.get("type") in _SHAPES]
            for number, result in enumerate(shapes, start=1):
                try:
                    written = _written(result, named)
                    if len(written) > 1:
                        raise ObjectError(f"expected one class, got {', '.join(map(str, written))[:60]}")
                    category = labels.of(written[0] if written else None)
                    if category is not None:
                        objects.append(_object(result, category, facts, notes))
                except ObjectError as error:
                    dropped.add(f"region {result.get('id') or number}", error)
        return LabelledImage(
            path=path,
            name=name,
            relative=True,
            annotations=None if self.results is None else tuple(objects),
            notes=tuple(notes),
            status="pre-annotation" if self.waiting else "human",
            **dropped.facts(),
        )


def read_task(element: object) -> Task:
    """The task of a parsed element of the list.

    Raises:
        FormatError: no object, as in a file of another kind.
    """
    if not isinstance(element, dict):
        raise FormatError(f"expected a list of tasks, got {str(element)[:60]!r} in it")
    identity = f"task {element.get('id', '?')}"
    data = element.get("data")
    if not isinstance(data, dict):
        return _flat(element, identity)
    image = _address(data)
    if not image:
        return Task(identity, "", None, broken=f"{identity}: data names no image")
    given = _dicts(element.get("annotations")) or _dicts(element.get("completions"))
    alive = [a for a in given if a.get("was_cancelled") is not True]
    notes = []
    if len(alive) > 1:
        notes.append(f"{identity} has {len(alive)} annotations; the newest counts")
    if alive:
        newest = max(enumerate(alive), key=lambda a: (_time(a[1]), a[0]))[1]
        return Task(identity, image, _dicts(newest.get("result")), notes=tuple(notes))
    guesses = _dicts(element.get("predictions"))
    if guesses:
        newest = max(enumerate(guesses), key=lambda a: (_time(a[1]), a[0]))[1]
        return Task(identity, image, _dicts(newest.get("result")), waiting=True)
    return Task(identity, image, None)


def _flat(element: Record, identity: str) -> Task:
    """A task of JSON-MIN: {"image": ..., "label": [{"x": ..., "rectanglelabels": [...]}], ...}."""
    image = _address(element)
    if not image:
        return Task(identity, "", None, broken=f"{identity}: expected data or an image")
    results: list[Record] = []
    for value in element.values():
        for region in _dicts(value):
            kind = next((kind for kind in (*_KINDS, "labels") if kind in region), None)
            if kind is not None:
                results.append({"type": "rectangle" if kind == "labels" else kind, "value": region})
    return Task(identity, image, tuple(results))


def _address(data: Record) -> str:
    """The image's address: of the usual keys, else the first text that ends as an image's name."""
    for key in ("image", "img", "image_url", "url", "ocr"):
        if isinstance(data.get(key), str) and data[key].strip():
            return str(data[key])
    texts = [value for value in data.values() if isinstance(value, str)]
    return next((t for t in texts if t.partition("?")[0].lower().endswith(IMAGE_SUFFIXES)), "")


def _dicts(value: object) -> tuple[Record, ...]:
    return tuple(v for v in value if isinstance(v, dict)) if isinstance(value, list) else ()


def _time(annotation: Record) -> str:
    """ISO times of one server compare as texts."""
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _labels_of(results: Sequence[Record]) -> dict[str, list[Any]]:
    """Region id -> names, of the results of type "labels"."""
    return {
        str(r.get("id")): r["value"]["labels"]
        for r in results
        if r.get("type") == "labels"
        and isinstance(r.get("value"), dict)
        and isinstance(r["value"].get("labels"), list)
    }


def _facts_of(results: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Region id -> what was chosen or written about it."""
    found: dict[str, dict[str, Any]] = {}
    for r in results:
        kind, value = r.get("type"), r.get("value")
        if kind in _WORDS and isinstance(value, dict) and kind in value and r.get("id"):
            said = value[kind]
            said = said[0] if isinstance(said, list) and len(said) == 1 else said
            found.setdefault(str(r["id"]), {})[str(r.get("from_name") or kind)] = said
    return found


def _written(result: Record, named: Mapping[str, list[Any]]) -> list[Any]:
    value = result.get("value")
    if isinstance(value, dict):
        for kind in (*_KINDS, "labels"):
            if isinstance(value.get(kind), list):
                return list(value[kind])
    return list(named.get(str(result.get("id")), ()))


def _object(
    result: Record, category: str, facts: Mapping[str, dict[str, Any]], notes: list[str]
) -> NewAnnotation:
    value = result.get("value")
    if not isinstance(value, dict):
        raise ObjectError("expected a value with x, y, width, height")
    box, polygon = _geometry(result, value, category, notes)
    meta = result.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    kept = meta.get("attributes")
    attributes = dict(kept) if isinstance(kept, dict) else {}
    score = result.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool):
        attributes["score"] = score
    attributes.update(facts.get(str(result.get("id")), {}))
    return NewAnnotation(
        category=category,
        box=checked_box(box),
        polygon=polygon,
        difficult=meta.get("difficult") is True,
        crowd=meta.get("crowd") is True,
        attributes=attributes,
    )


def _geometry(
    result: Record, value: Record, category: str, notes: list[str]
) -> tuple[BoxTuple, tuple[tuple[float, ...], ...] | None]:
    """Box and ring as fractions."""
    kind = str(result.get("type"))
    if kind.startswith("rectangle"):
        x, y, width, height = finite([value.get(name) for name in ("x", "y", "width", "height")])
        (turn,) = finite([value.get("rotation") or 0])
        box = (x / 100, y / 100, (x + width) / 100, (y + height) / 100)
        if turn % 360 == 0:
            return box, None
        checked_box(box)
        notes.append(f"{category}: a box turned by {turn:g} degrees; its upright box is taken")
        return _turned(result, (x, y, width, height), turn), None
    if kind.startswith("polygon"):
        points = value.get("points")
        pairs = [finite(p) for p in points if isinstance(p, list)] if isinstance(points, list) else []
        if any(len(pair) != 2 for pair in pairs):
            raise ObjectError("expected points [[x, y], ...]")
        return bounds([(x / 100, y / 100) for x, y in pairs])
    if kind.startswith("ellipse"):
        x, y, rx, ry = finite([value.get(name) for name in ("x", "y", "radiusX", "radiusY")])
        notes.append(f"{category}: an ellipse; the box of its radii is taken")
        return ((x - rx) / 100, (y - ry) / 100, (x + rx) / 100, (y + ry) / 100), None
    raise ObjectError(f"a {kind.removesuffix('labels')} of {category!r} has no box; draw a rectangle")


def _turned(result: Record, box: tuple[float, float, float, float], degrees: float) -> BoxTuple:
    """The upright box round one turned clockwise about its left top corner: in pixels, as percent of width
    and height differ."""
    across, down = finite([result.get("original_width"), result.get("original_height")])
    if across <= 0 or down <= 0:
        raise ObjectError("a turned box needs original_width and original_height")
    x, y, width, height = (v * side / 100 for v, side in zip(box, (across, down) * 2, strict=True))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(u * cosine - v * sine, u * sine + v * cosine) for u in (0, width) for v in (0, height)]
    xs, ys = [x + u for u, _ in corners], [y + v for _, v in corners]
    return min(xs) / across, min(ys) / down, max(xs) / across, max(ys) / down
