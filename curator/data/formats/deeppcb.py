"""DeepPCB: printed circuit boards in pairs, a tested one with defects and its template without.

Tang, He, Huang, Yang: "Online PCB defect detector on a new PCB defect dataset", arXiv 1902.06197.

In: the folder with the list files `trainval.txt` and `test.txt`. Each of their lines names an image and its
annotations, "group20085/20085/20085000.jpg group20085/20085_not/20085000.txt"; on disk lie
`20085000_test.jpg`, the tested image, and `20085000_temp.jpg`, the template (or .png: the list's suffix is
not counted on). An annotation row is "x1,y1,x2,y2,type", with commas or blanks, corners in pixels.

The template shows the same place without its defects. It is no image of the data set; its path is kept with
the tested image, as the tag "template", and may be read by whoever may read the labels. The tag "group" is
the listed folder. It is no group key: the published test list shares its groups with the training list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite
from curator.data.formats.files import inside
from curator.errors import FormatError
from store.records import NewAnnotation

TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
"""Defect types as published; 0 stands for the background there and is not used."""

TEMPLATE = "template"
_SPLITS = ("trainval", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class DeepPcbFormat:
    """Reads DeepPCB as published, and with other image files of the same names."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open the folder that holds the list files (or `PCBData/`, as published).

        Args:
            images: folder that the image names of the lists count from; default: the lists' folder.
            classes: six names, instead of the published ones of the types 1 to 6.
            split: "trainval", "test", or another list file's name; None reads the two.
        Raises:
            FormatError: no list file, a line that is no pair, or another number of classes.
        """
        folder = path / "PCBData" if (path / "PCBData").is_dir() else path
        names = dict(TYPES)
        if classes:
            if len(classes) != len(TYPES):
                raise FormatError(
                    f"--classes: expected {len(TYPES)} names, of {', '.join(TYPES.values())}; "
                    f"got {len(classes)}"
                )
            names = dict(enumerate(classes, start=1))
        lists = [(name, folder / f"{name}.txt") for name in ([split] if split else _SPLITS)]
        lists = [(name, file) for name, file in lists if file.is_file()]
        if not lists:
            found = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
            wanted = f"{split}.txt" if split else "trainval.txt or test.txt"
            raise FormatError(f"{folder}: expected the list file {wanted}; lists found: {found}")
        pairs = [(name, pair) for name, file in lists for pair in _pairs(file)]
        listed = tuple(names[number] for number in sorted(names))
        return Source(
            categories=listed,
            listed=listed,
            count=len(pairs),
            items=_items(folder, images or folder, pairs, names),
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Refused: an augmented data set has images without a template.

        Raises:
            FormatError: always.
        """
        raise FormatError("deeppcb is read, not written; export as coco, voc or yolo")

    def carried(self, annotations: Sequence[NewAnnotation]) -> None:
        """Nothing is written."""
        return None


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    """(image, annotations) of each line."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if fields := line.split():
            if len(fields) != 2:
                raise FormatError(
                    f"{file} line {number}: expected an image and its annotation file, got {line[:80]!r}"
                )
            yield fields[0], fields[1]


def _items(
    folder: Path, images: Path, pairs: Sequence[tuple[str, tuple[str, str]]], names: Mapping[int, str]
) -> Iterator[LabelledImage | Broken]:
    for split, (image, rows) in pairs:
        try:
            tested = _file(images, image, "test")
            template = _file(images, image, "temp")
            if tested is None:
                raise FormatError(f"missing image: {Path(image).stem}_test.png (or .jpg) is not in {images}")
            objects, dropped = _objects(inside(folder, rows), names)
        except FormatError as error:
            yield Broken(name=image, reason=str(error))
            continue
        tags = {"group": Path(image).parts[0]}
        if template is not None:
            tags[TEMPLATE] = str(template.absolute())
        yield LabelledImage(
            path=tested,
            name=tested.relative_to(images).as_posix(),
            annotations=tuple(objects),
            notes=() if template else ("no template beside it; kept without one",),
            split=split,
            tags=tags,
            **dropped.facts(),
        )


def _file(images: Path, name: str, part: str) -> Path | None:
    """X_test or X_temp of the listed X.jpg, with whatever suffix it has."""
    listed = inside(images, name)
    for suffix in dict.fromkeys((listed.suffix, *_SUFFIXES)):
        if (file := listed.with_name(f"{listed.stem}_{part}{suffix}")).is_file():
            return file
    return None


def _objects(file: Path, names: Mapping[int, str]) -> tuple[list[NewAnnotation], Dropped]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise FormatError(f"{file.name} is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{file.name}: not readable as text ({type(error).__name__})") from error
    objects, dropped = [], Dropped()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_object(re.split(r"[\s,]+", line.strip()), names))
        except ObjectError as error:
            dropped.add(f"{file.name} line {number}", error)
    return objects, dropped


def _object(fields: Sequence[str], names: Mapping[int, str]) -> NewAnnotation:
    if len(fields) != 5:
        raise ObjectError(f"expected x1,y1,x2,y2,type, got {len(fields)} fields")
    *corners, number = finite(fields)
    if number not in names:
        raise ObjectError(f"unknown type {fields[4]}; known are 1 to {len(names)}")
    return NewAnnotation(category=names[int(number)], box=checked_box(corners))
