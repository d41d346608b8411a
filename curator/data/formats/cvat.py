"""CVAT for images 1.1, the XML of https://docs.cvat.ai (formats, "CVAT").

In: `annotations.xml`, or a folder that holds one beside `images/`, as CVAT exports a task, a job or a project
(then an image's `subset` is its split). Out: one `<image>` at a time, memory flat.

Frame: xtl, ytl, xbr, ybr are the corners (x1, y1, x2, y2) in pixels. A polygon is read as coco reads one; of
an ellipse, a mask and a turned box the upright box is taken, with a note. Points, lines, cuboids and
skeletons are objects without a box. `difficult` and `crowd` are attributes of that name. Written are boxes,
with `labels.json` to paste into the task's raw labels: CVAT keeps only attributes that its labels declare.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite, rounded
from curator.data.formats.files import PRE_ANNOTATIONS, Writer, index_of, lookup, pre_annotated
from curator.data.formats.finding import ImageFinder
from curator.data.formats.labelling import (
    Labels,
    attribute_text,
    attribute_value,
    bounds,
    image_of,
    named_in,
    outline_dropped,
    plain_attributes,
)
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

FILE = "annotations.xml"
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_SHAPES = ("box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton")
_MARKS = ("difficult", "crowd")


class CvatFormat:
    """Reads and writes CVAT's XML; writes `annotations.xml`, `images/`, `labels.json`."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open the XML file, or a folder that holds one.

        Args:
            images: folder of the images; None: `images/` beside the file, else its folder.
            classes: keep only these. split: only images of this subset.
        Raises:
            FormatError: no such file, no XML, entities in it, or tracks of a video.
        """
        file = _find(path)
        survey = _survey(file, split)
        labels = Labels(str(file), list(survey.listed) or None, survey.used, classes, strict=True)
        folder = file.parent
        root = images or (folder / "images" if (folder / "images").is_dir() else folder)
        return Source(
            categories=labels.known,
            listed=labels.listed,
            count=survey.images,
            items=_items(
                (file, path.is_dir() or images is not None),
                ImageFinder(root),
                labels,
                split,
                pre_annotated(folder),
            ),
            notes=labels.notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write the folder; `pre_annotations.txt` lists the images whose boxes wait for a human."""
        index, writer, waiting = index_of(categories), Writer(out), []
        declared: dict[str, dict[str, None]] = {name: {} for name in categories}
        out.mkdir(parents=True, exist_ok=True)
        part = out / f"{FILE}.part"  # the labels declare attributes before the images: these wait here
        with part.open("x", encoding="utf-8") as handle:
            for number, item in enumerate(items):
                yield writer.image("images", item)
                if item.pre_annotated:
                    waiting.append(f"{item.name}{item.suffix}\n")
                for annotation in item.annotations:
                    lookup(index, annotation.category)
                    declared[annotation.category].update(dict.fromkeys(_attributes(annotation)))
                handle.write(_xml(item, number))
        with (out / FILE).open("x", encoding="utf-8") as handle, part.open(encoding="utf-8") as source:
            handle.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            labels = "".join(_label(name, attributes) for name, attributes in declared.items())
            handle.write(f"<meta><task><name>curator</name><labels>{labels}</labels></task></meta>\n")
            shutil.copyfileobj(source, handle)
            handle.write("</annotations>\n")
        part.unlink()
        yield writer.entry(FILE)
        yield writer.file("labels.json", _declaration(declared))
        if waiting:
            yield writer.file(PRE_ANNOTATIONS, "".join(waiting).encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """All but polygons and run-length masks."""
        return tuple(map(outline_dropped, annotations))


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected CVAT's {FILE} or a folder that holds it, got {path}")
    if (path / FILE).is_file():
        return path / FILE
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise FormatError(f"{path}: expected {FILE}, found {names}; name the file")
    return found[0]


# ---------------------------------------------------------------- reading


@dataclass(slots=True)
class _Survey:
    """What a first pass finds: classes that the task lists and those of the shapes; how many images."""

    listed: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    images: int = 0


def _elements(file: Path) -> Iterator[Element]:
    """The children of <annotations>, one by one; each is forgotten after its turn.

    Raises:
        FormatError: unreadable, entities, no CVAT file.
    """
    root: Element | None = None
    depth = 0
    try:
        with file.open("rb") as handle:
            for event, element in ElementTree.iterparse(handle, events=("start", "end")):
                if root is None:
                    root = element
                    if root.tag != "annotations":
                        raise FormatError(f"{file.name}: expected <annotations> of CVAT, got <{root.tag}>")
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 1:
                    yield element
                    root.clear()
    except DefusedXmlException as error:
        raise FormatError(f"{file.name}: refused, XML with entities ({type(error).__name__})") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f"{file.name}: not readable as XML ({' '.join(str(error).split())})") from error
    if root is None:
        raise FormatError(f"{file.name}: not readable as XML (empty)")


def _survey(file: Path, split: str | None) -> _Survey:
    survey = _Survey()
    for element in _elements(file):
        if element.tag == "track":
            raise FormatError(
                f"{file.name}: holds tracks of a video; export the task from CVAT as 'CVAT for images 1.1'"
            )
        if element.tag == "meta":
            for label in element.iterfind("*/labels/label"):
                if label.find("parent") is None and (label.findtext("name") or "").strip():
                    survey.listed[label.findtext("name") or ""] = None
        elif element.tag == "image" and split in (None, element.get("subset")):
            survey.images += 1
            survey.used.update(shape.get("label") or "" for shape in element if shape.tag in _SHAPES)
    return survey


def _items(
    where: tuple[Path, bool],
    finder: ImageFinder,
    labels: Labels,
    split: str | None,
    waiting: frozenset[str],
) -> Iterator[LabelledImage | Broken]:
    """where: the file, and whether images are searched for."""
    seen: set[Path] = set()
    file, search = where
    for element in _elements(file):
        if element.tag != "image" or split not in (None, element.get("subset")):
            continue
        name = element.get("name") or ""
        try:
            subset = element.get("subset")
            path = (finder.direct(f"{subset}/{name}") if subset else None) or image_of(
                finder, name, search=search
            )
            if path in seen:
                raise FormatError("it is listed before; every image once, or nobody knows which labels hold")
            seen.add(path)
            item = _image(element, path, named_in(finder, path), labels)
        except FormatError as error:
            yield Broken(name=name or "an image without a name", reason=str(error))
        else:
            mark = item.name in waiting or item.path.name in waiting
            yield replace(item, split=subset, status="pre-annotation" if mark else "human")


def _image(element: Element, path: Path, name: str, labels: Labels) -> LabelledImage:
    size = None
    given = element.get("width"), element.get("height")
    if None not in given:
        try:
            width, height = (int(float(text or 0)) for text in given)
        except (ValueError, OverflowError) as error:
            raise FormatError(f"expected a size in pixels, got {given[0]} x {given[1]}") from error
        size = (width, height) if width > 0 and height > 0 else None
    objects, dropped, notes = [], Dropped(), list[str]()
    shapes = [shape for shape in element if shape.tag in _SHAPES]
    for number, shape in enumerate(shapes, start=1):
        try:
            if (category := labels.of(shape.get("label"))) is not None:
                objects.append(_object(shape, category, notes))
        except ObjectError as error:
            dropped.add(f"{shape.tag} {number}", error)
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=tuple(objects),
        notes=tuple(notes),
        tags={str(tag.get("label")): "true" for tag in element.iterfind("tag") if tag.get("label")},
        **dropped.facts(),
    )


def _object(shape: Element, category: str, notes: list[str]) -> NewAnnotation:
    box, polygon = _geometry(shape, category, notes)
    attributes = {
        name: attribute_value(a.text or "")
        for a in shape.iterfind("attribute")
        if (name := a.get("name"))
    }
    marks = {name: attributes.pop(name, False) is True for name in _MARKS}
    return NewAnnotation(
        category=category, box=checked_box(box), polygon=polygon, attributes=attributes, **marks
    )


def _geometry(
    shape: Element, category: str, notes: list[str]
) -> tuple[Sequence[object], tuple[tuple[float, ...], ...] | None]:
    (turn,) = finite([shape.get("rotation") or 0])
    if shape.tag == "box":
        corners = finite([shape.get(name) for name in _CORNERS])
        if turn % 360:
            checked_box(corners)
            notes.append(f"{category}: a box turned by {turn:g} degrees; its upright box is taken")
            return turned(corners, turn), None
        return corners, None
    if shape.tag == "polygon":
        points = [finite(pair.split(",")) for pair in (shape.get("points") or "").split(";") if pair.strip()]
        if any(len(point) != 2 for point in points):
            raise ObjectError("expected points x,y;x,y;...")
        return bounds(points)
    if shape.tag == "ellipse":
        cx, cy, rx, ry = finite([shape.get(name) for name in ("cx", "cy", "rx", "ry")])
        notes.append(f"{category}: an ellipse; its box is taken")
        angle = math.radians(turn)
        half = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
        high = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
        return (cx - half, cy - high, cx + half, cy + high), None
    if shape.tag == "mask":
        x, y, width, height = finite([shape.get(name) for name in ("left", "top", "width", "height")])
        notes.append(f"{category}: a mask; its box is taken")
        return (x, y, x + width, y + height), None
    raise ObjectError(f"a {shape.tag} of {category!r} has no box; draw a rectangle")


def turned(box: Sequence[float], degrees: float) -> BoxTuple:
    """The upright box round a box that is turned about its centre."""
    x1, y1, x2, y2 = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    half = ((x2 - x1) * cosine + (y2 - y1) * sine) / 2
    high = ((x2 - x1) * sine + (y2 - y1) * cosine) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    return cx - half, cy - high, cx + half, cy + high


# ---------------------------------------------------------------- writing


def _attributes(annotation: NewAnnotation) -> dict[str, Any]:
    marks = {name: True for name in _MARKS if getattr(annotation, name)}
    return {**plain_attributes(annotation.attributes), **marks}


def _xml(item: OutputImage, number: int) -> str:
    name, source = quoteattr(item.name + item.suffix), "auto" if item.pre_annotated else "manual"
    head = f'<image id="{number}" name={name} width="{item.width}" height="{item.height}">'
    return "\n".join([head, *(_box(rounded(a), source) for a in item.annotations), "</image>\n"])


def _box(annotation: NewAnnotation, source: str) -> str:
    corners = " ".join(
        f'{name}="{value!r}"' for name, value in zip(_CORNERS, annotation.box, strict=True)
    )
    inner = "".join(
        f"<attribute name={quoteattr(name)}>{escape(attribute_text(value))}</attribute>"
        for name, value in _attributes(annotation).items()
    )
    label = quoteattr(annotation.category)
    return f'<box label={label} source="{source}" occluded="0" {corners} z_order="0">{inner}</box>'


def _label(name: str, attributes: Iterable[str]) -> str:
    """A label of the task, with the attributes that its objects have."""
    inner = "".join(
        f"<attribute><name>{escape(given['name'])}</name><mutable>False</mutable>"
        f"<input_type>{given['input_type']}</input_type><default_value>{given['default_value']}"
        f"</default_value><values>{given['values'][0]}</values></attribute>"
        for given in map(_attribute, sorted(attributes))
    )
    return f"<label><name>{escape(name)}</name><attributes>{inner}</attributes></label>"


def _attribute(name: str) -> dict[str, Any]:
    """A mark is a box to tick, anything else a text."""
    kind, default = ("checkbox", "false") if name in _MARKS else ("text", "")
    return {
        "name": name,
        "mutable": False,
        "input_type": kind,
        "default_value": default,
        "values": [default],
    }


def _declaration(declared: dict[str, dict[str, None]]) -> bytes:
    """Labels with their attributes, as CVAT's raw label editor takes them."""
    labels = [
        {"name": name, "attributes": list(map(_attribute, sorted(attributes)))}
        for name, attributes in declared.items()
    ]
    return (json.dumps(labels, ensure_ascii=False, indent=1) + "\n").encode()
