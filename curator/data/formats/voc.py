"""PASCAL VOC XML.

In: `Annotations/*.xml`, images in `JPEGImages/` or `images/`, splits in `ImageSets/Main/SPLIT.txt`. XML is
parsed with defusedxml: no entities, no external references.

Frame: xmin, ymin, xmax, ymax are taken as the corners (x1, y1, x2, y2), without +1 or -1. PASCAL's own
development kit counted pixels from 1 and included the last one, but the tools that write these files today
(labelImg, CVAT, Roboflow) put corners there; the rule keeps write-then-read the identity, and shifts
original PASCAL boxes by at most one pixel at the left and top. Attributes are kept as CVAT writes them;
polygons are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as WriteTree
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, rounded
from curator.data.formats.files import (
    IMAGE_SUFFIXES,
    PRE_ANNOTATIONS,
    Writer,
    index_of,
    inside,
    lookup,
    pre_annotated,
)
from curator.errors import FormatError
from store.records import NewAnnotation

_SIZE_LIMIT = 1 << 24
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFormat:
    """Reads and writes VOC folders; writes `JPEGImages/`, `Annotations/` and `ImageSets/Main/train.txt`."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a folder that holds `Annotations/`, or XML files.

        Args:
            classes: objects of other classes are reported as unknown; None takes the classes found.
            split: reads the names in `ImageSets/Main/SPLIT.txt`; None reads all XML files.
        Raises:
            FormatError: no XML files, or no such split.
        """
        if not path.is_dir():
            raise FormatError(f"expected a folder with Annotations/*.xml, got {path}")
        folder = path.parent if path.name == "Annotations" else path
        xmls = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        root = images or next(
            (folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), xmls
        )
        stems = _stems(folder, xmls, split)
        found, notes = class_names({name: name for name in _written_classes(xmls, stems)}, str(folder))
        names = tuple(classes) if classes else tuple(sorted(set(found.values())))
        return Source(
            categories=names,
            count=len(stems),
            items=_items(xmls, root, stems, frozenset(names), split, pre_annotated(folder)),
            notes=notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write the folders, the list of the split "train", and `pre_annotations.txt` where there are any."""
        index, writer, stems, waiting = index_of(categories), Writer(out), [], []
        for item in items:
            yield writer.image("JPEGImages", item)
            for annotation in item.annotations:
                lookup(index, annotation.category)
            yield writer.file(f"Annotations/{item.name}.xml", _xml(item))
            stems.append(f"{item.name}\n")
            if item.pre_annotated:
                waiting.append(f"{item.name}{item.suffix}\n")
        yield writer.file("ImageSets/Main/train.txt", "".join(stems).encode())
        if waiting:
            yield writer.file(PRE_ANNOTATIONS, "".join(waiting).encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """All but polygons and run-length masks."""
        return tuple(
            rounded(
                replace(a, polygon=None, attributes={k: v for k, v in a.attributes.items() if k != "rle"})
            )
            for a in annotations
        )


def _stems(folder: Path, xmls: Path, split: str | None) -> list[str]:
    if split is None:
        stems = sorted(file.stem for file in xmls.glob("*.xml"))
        if not stems:
            raise FormatError(f"{folder}: expected XML files in Annotations/, found none")
        return stems
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        known = ", ".join(sorted(file.stem for file in listing.parent.glob("*.txt"))) or "none"
        raise FormatError(f"{folder}: no split {split!r} in ImageSets/Main; found: {known}")
    lines = listing.read_text(encoding="utf-8").splitlines()
    return list(
        dict.fromkeys(line.split()[0] for line in lines if line.strip())
    )  # "name 1" in per-class lists


def _parse(file: Path) -> Element:
    try:
        if file.stat().st_size > _SIZE_LIMIT:
            raise FormatError(f"{file.name}: expected at most {_SIZE_LIMIT} bytes of XML")
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError as error:
        raise FormatError(f"Annotations/{file.name} is missing") from error
    except DefusedXmlException as error:
        raise FormatError(f"{file.name}: refused, XML with entities ({type(error).__name__})") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f"{file.name}: not readable as XML ({' '.join(str(error).split())})") from error
    if root is None or root.tag != "annotation":
        raise FormatError(
            f"{file.name}: expected <annotation>, got {f'<{root.tag}>' if root is not None else 'nothing'}"
        )
    return root


def _found_classes(xmls: Path, stems: Sequence[str]) -> tuple[str, ...]:
    """A first pass: the files name no classes beforehand, and exports need them all in a fixed order."""
    names: set[str] = set()
    for stem in stems:
        try:
            names.update(
                (node.findtext("name") or "").strip()
                for node in _parse(inside(xmls, f"{stem}.xml")).iter("object")
            )
        except FormatError:
            continue  # reported when the file's turn comes
    return tuple(sorted(names - {""}))


def _items(
    xmls: Path,
    root: Path,
    stems: Sequence[str],
    names: frozenset[str],
    split: str | None,
    waiting: frozenset[str],
) -> Iterator[LabelledImage | Broken]:
    renamed: set[str] = set()
    for stem in stems:
        try:
            element = _parse(inside(xmls, f"{stem}.xml"))
            path = _image_file(root, stem, (element.findtext("filename") or "").strip())
            if (
                path.stem != stem
            ):  # two files may name one image: the image's own XML, then the first one, counts
                if path.name in renamed or (xmls / f"{path.stem}.xml").is_file():
                    raise FormatError(f"{path.name} has another annotation file; one image, one file")
                renamed.add(path.name)
            item = _image(
                element,
                path,
                path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name,
                names,
            )
        except FormatError as error:
            yield Broken(name=f"{stem}.xml", reason=str(error))
        else:
            yield replace(item, split=split, status="pre-annotation" if item.name in waiting else "human")


def _image_file(root: Path, stem: str, filename: str) -> Path:
    """The file that <filename> names, or the one called as the XML file (people rename files)."""
    if filename and (named := inside(root, filename)).is_file():
        return named
    for suffix in IMAGE_SUFFIXES:
        for ending in (suffix, suffix.upper()):
            if (found := inside(root, stem + ending)).is_file():
                return found
    raise FormatError(f"image {filename or stem} is not in {root}")


def _image(element: Element, path: Path, name: str, names: frozenset[str]) -> LabelledImage:
    size = None
    texts = (element.findtext("size/width"), element.findtext("size/height"))
    try:
        width, height = (int(float(text or 0)) for text in texts)
        size = (width, height) if width > 0 and height > 0 else None  # 0 x 0: some tools do not fill it in
    except (ValueError, OverflowError) as error:
        raise FormatError(f"expected a size in pixels, got {texts[0]} x {texts[1]}") from error
    objects, dropped = [], Dropped()
    for number, node in enumerate(element.findall("object"), start=1):
        try:
            objects.append(_object(node, names))
        except ObjectError as error:
            dropped.add(f"object {number}", error)
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=tuple(objects),
        **dropped.facts(),
    )


def _object(node: Element, names: frozenset[str]) -> NewAnnotation:
    category, box = (node.findtext("name") or "").strip(), node.find("bndbox")
    if category not in names:
        raise ObjectError(f"unknown class {category!r}", incomplete=not category)
    if box is None:
        raise ObjectError("expected a bndbox")
    return rounded(
        NewAnnotation(
            category=category,
            box=checked_box([box.findtext(corner) for corner in _CORNERS]),
            difficult=_flag(node, "difficult"),
            crowd=_flag(node, "crowd"),
            attributes={
                a.findtext("name", ""): _value(a.findtext("value", ""))
                for a in node.iterfind("attributes/attribute")
            },
        )
    )


def _flag(node: Element, name: str) -> bool:
    return (node.findtext(name) or "0").strip().lower() in ("1", "true", "yes")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number(value: float) -> str:
    """Whole numbers without a point: many readers of VOC take int(text)."""
    return str(int(value)) if value == int(value) else repr(value)


def _xml(item: OutputImage) -> bytes:
    root = WriteTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", item.name + item.suffix)
    size = WriteTree.SubElement(root, "size")
    for name, value in (("width", item.width), ("height", item.height), ("depth", 3)):
        _add(size, name, str(value))
    _add(root, "segmented", "0")
    for given in item.annotations:
        annotation = rounded(given)
        node = WriteTree.SubElement(root, "object")
        _add(node, "name", annotation.category)
        _add(node, "pose", "Unspecified")
        _add(node, "truncated", "0")
        _add(node, "difficult", str(int(annotation.difficult)))
        if annotation.crowd:
            _add(node, "crowd", "1")
        box = WriteTree.SubElement(node, "bndbox")
        for name, corner in zip(_CORNERS, annotation.box, strict=True):
            _add(box, name, _number(corner))
        kept = {name: value for name, value in annotation.attributes.items() if name != "rle"}
        if kept:
            group = WriteTree.SubElement(node, "attributes")
            for name, value in kept.items():
                attribute = WriteTree.SubElement(group, "attribute")
                _add(attribute, "name", name)
                _add(attribute, "value", json.dumps(value, ensure_ascii=True))
    WriteTree.indent(root)
    text: bytes = WriteTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def _add(parent: Element, name: str, text: str) -> None:
    WriteTree.SubElement(parent, name).text = text
