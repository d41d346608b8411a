"""PASCAL VOC XML.

In: `Annotations/*.xml` (see `voc_files`), images in `JPEGImages/` or `images/`, splits in
`ImageSets/Main/SPLIT.txt`.

Frame: xmin, ymin, xmax, ymax are taken as the corners (x1, y1, x2, y2), without +1 or -1. PASCAL's own
development kit counted pixels from 1 and included the last one, but the tools that write these files today
(labelImg, CVAT, Roboflow) put corners there; the rule keeps write-then-read the identity, and shifts
original PASCAL boxes by at most one pixel at the left and top. Attributes are kept as CVAT writes them;
polygons are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree as WriteTree
from xml.etree.ElementTree import Element

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, class_names, rounded
from curator.data.formats.files import (
    IMAGE_SUFFIXES,
    PRE_ANNOTATIONS,
    Writer,
    index_of,
    inside,
    lookup,
    pre_annotated,
)
from curator.data.formats.finding import ImageFinder, leads_outside
from curator.data.formats.voc_files import parse, stems
from curator.errors import FormatError
from store.records import NewAnnotation

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFormat:
    """Reads and writes VOC folders; writes `JPEGImages/`, `Annotations/` and `ImageSets/Main/train.txt`."""

    reads: ClassVar[tuple[str, ...]] = (".xml", ".txt")

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
        files = stems(folder, xmls, split)
        written, notes = class_names({name: name for name in _written_classes(xmls, files)}, str(folder))
        names = tuple(classes) if classes else tuple(sorted(set(written.values())))
        wanted = {text: name for text, name in written.items() if name in names}
        return Source(
            categories=names,
            listed=tuple(classes) if classes else None,
            count=len(files),
            items=_items(xmls, root, files, wanted, split, pre_annotated(folder)),
            notes=notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write the folders, the list of the split "train", and `pre_annotations.txt` where there are any."""
        index, writer, lines, waiting = index_of(categories), Writer(out), [], []
        for item in items:
            yield writer.image("JPEGImages", item)
            for annotation in item.annotations:
                lookup(index, annotation.category)
            yield writer.file(f"Annotations/{item.name}.xml", _xml(item))
            lines.append(f"{item.name}\n")
            if item.pre_annotated:
                waiting.append(f"{item.name}{item.suffix}\n")
        yield writer.file("ImageSets/Main/train.txt", "".join(lines).encode())
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


def _written_classes(xmls: Path, files: Sequence[str]) -> list[str]:
    """A first pass: the files name no classes beforehand, and exports need them all in a fixed order."""
    names: set[str] = set()
    for stem in files:
        try:
            nodes = parse(inside(xmls, f"{stem}.xml")).findall("object/name")
        except FormatError:
            continue  # reported when the file's turn comes
        names.update(node.text for node in nodes if node.text and node.text.strip())
    return sorted(names)


def _items(
    xmls: Path,
    root: Path,
    files: Sequence[str],
    classes: Mapping[str, str],
    split: str | None,
    waiting: frozenset[str],
) -> Iterator[LabelledImage | Broken]:
    renamed: set[str] = set()
    finder = ImageFinder(root)
    for stem in files:
        try:
            element = parse(inside(xmls, f"{stem}.xml"))
            path = _image_file(finder, stem, (element.findtext("filename") or "").strip())
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
                classes,
            )
        except FormatError as error:
            yield Broken(name=f"{stem}.xml", reason=str(error))
        else:
            yield replace(item, split=split, status="pre-annotation" if item.name in waiting else "human")


def _image_file(finder: ImageFinder, stem: str, filename: str) -> Path:
    """The file that <filename> names, or the one called as the XML file (people rename files)."""
    folder = finder.folder
    reason = f"image {filename or stem} is not in {folder}; pass --images with the folder that holds it"
    try:
        if filename and (named := finder.find(filename)):
            return named
    except FormatError as error:
        reason = str(error)
    for suffix in IMAGE_SUFFIXES:
        for ending in (suffix, suffix.upper()):
            if found := finder.direct(stem + ending):
                return found
    if leads_outside(filename):
        inside(folder, filename)  # says so, where it does
    raise FormatError(reason)


def _image(element: Element, path: Path, name: str, classes: Mapping[str, str]) -> LabelledImage:
    size = None
    texts = (element.findtext("size/width"), element.findtext("size/height"))
    try:
        width, height = (int(float(text or 0)) for text in texts)
        size = (width, height) if width > 0 and height > 0 else None  # 0 x 0: some tools do not fill it in
    except (ValueError, OverflowError) as error:
        raise FormatError(f"expected a size in pixels, got {texts[0]} x {texts[1]}") from error
    objects, dropped, notes = [], Dropped(), []
    for number, node in enumerate(element.findall("object"), start=1):
        where = f"object {number}"
        try:
            pairs = _named_boxes(node)
        except ObjectError as error:
            dropped.add(where, error)
            continue
        if len(pairs) > 1:
            notes.append(f"{where} holds {len(pairs)} boxes; each is read as an object")
        for place, (written, box) in enumerate(pairs, start=1):
            try:
                objects.append(_object(node, written, box, classes))
            except ObjectError as error:
                dropped.add(f"{where} box {place}" if len(pairs) > 1 else where, error)
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=tuple(objects),
        notes=tuple(notes),
        **dropped.facts(),
    )


def _named_boxes(node: Element) -> list[tuple[str, Element]]:
    """(class, bndbox) of each box of one <object>: one name for all its boxes, or one for each."""
    names = [child.text or "" for child in node.findall("name")] or [""]
    boxes = node.findall("bndbox")
    if not boxes:
        raise ObjectError("expected a bndbox")
    if len(names) == 1:
        names *= len(boxes)
    if len(names) != len(boxes):
        raise ObjectError(f"{len(names)} names and {len(boxes)} boxes, so nobody knows which is whose")
    return list(zip(names, boxes, strict=True))


def _object(node: Element, written: str, box: Element, classes: Mapping[str, str]) -> NewAnnotation:
    category = classes.get(written)
    if category is None:
        raise ObjectError(f"unknown class {written.strip()!r}", incomplete=not written.strip())
    return NewAnnotation(
        category=category,
        box=checked_box([box.findtext(corner) for corner in _CORNERS]),
        difficult=_flag(node, "difficult"),
        crowd=_flag(node, "crowd"),
        attributes={
            a.findtext("name", ""): _value(a.findtext("value", ""))
            for a in node.iterfind("attributes/attribute")
        },
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
