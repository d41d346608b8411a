"""Ultralytics' NDJSON: one JSON object a line, the data set first, then each image with its labels.

    {"type": "dataset", "task": "detect", "class_names": {"0": "car"}, "path": "."}
    {"type": "image", "file": "a.jpg", "width": 40, "height": 30, "split": "train",
     "annotations": {"boxes": [[0, 0.5, 0.5, 0.2, 0.1]]}}

In: the file, or a folder that holds one; images in `images/SPLIT/` below `path`, beside the file, or anywhere
below it. `url`s are not fetched. Out: rows of boxes, segments, oriented boxes and poses as YOLO's label rows
read them (`yolo_labels`), all fractions of the image; an image without `annotations` is unlabelled. Written:
`dataset.ndjson` and `images/train/`, which the package `ultralytics` trains on as it is; a box and its class
alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import DIGITS, Dropped, ObjectError, class_names, rounded
from curator.data.formats.files import PRE_ANNOTATIONS, Writer, index_of, lookup, pre_annotated
from curator.data.formats.finding import ImageFinder
from curator.data.formats.labelling import image_of, named_in
from curator.data.formats.yolo_labels import Rows, read_row
from curator.errors import FormatError
from store.records import NewAnnotation

FILE = "dataset.ndjson"
_LINE_LIMIT = 1 << 24
_KINDS = ("boxes", "segments", "obb", "pose")


class NdjsonFormat:
    """Reads and writes Ultralytics' NDJSON."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open the file, or a folder that holds one.

        Args:
            images: folder of the images. classes: names by class id, instead of the file's.
            split: "train", "val" or "test"; None reads all.
        Raises:
            FormatError: no such file, no data set's line, or no class names.
        """
        file = _find(path)
        head, count = _head(file), 0
        given = dict(enumerate(classes)) if classes else _names(head, file)
        names, notes = class_names(given, file.name)
        for _, line in _lines(file):
            count += line.get("type") == "image" and split in (None, line.get("split"))
        listed = tuple(dict.fromkeys(names[number] for number in sorted(names)))
        rows = Rows(names, _keypoint_numbers(head))
        finder = ImageFinder(images or file.parent)
        return Source(
            categories=listed,
            listed=listed,
            count=count,
            items=_items(file, finder, str(head.get("path") or "."), rows, split, pre_annotated(file.parent)),
            notes=notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `images/train/`, `dataset.ndjson`, `pre_annotations.txt` where needed."""
        index, writer, waiting = index_of(categories), Writer(out), []
        out.mkdir(parents=True, exist_ok=True)
        head = {
            "type": "dataset",
            "task": "detect",
            "name": "curator",
            "path": ".",
            "class_names": {str(number): name for number, name in enumerate(categories)},
        }
        with (out / FILE).open("x", encoding="utf-8") as handle:
            handle.write(json.dumps(head, ensure_ascii=False) + "\n")
            for item in items:
                yield writer.image("images/train", item)
                if item.pre_annotated:
                    waiting.append(f"images/train/{item.name}{item.suffix}\n")
                boxes = [
                    [lookup(index, a.category), *_centred(a, item.width, item.height)]
                    for a in item.annotations
                    if not a.crowd
                ]
                record = {
                    "type": "image",
                    "file": item.name + item.suffix,
                    "width": item.width,
                    "height": item.height,
                    "split": "train",
                    "annotations": {"boxes": boxes},
                }
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
        yield writer.entry(FILE)
        if waiting:
            yield writer.file(PRE_ANNOTATIONS, "".join(waiting).encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """Class and box of each object; no crowd regions."""
        return tuple(
            rounded(NewAnnotation(category=a.category, box=a.box)) for a in annotations if not a.crowd
        )


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.ndjson")) if path.is_dir() else []
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise FormatError(f"{path}: expected one .ndjson file, found {names}; name the file")
    return found[0]


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line.

    Raises:
        FormatError: no JSON object, or a line that is too long for one.
    """
    number = 0
    try:
        with file.open("rb") as handle:
            while line := handle.readline(_LINE_LIMIT + 1):
                number += 1
                if len(line) > _LINE_LIMIT:
                    raise FormatError(f"{file.name} line {number}: expected at most {_LINE_LIMIT} bytes")
                if not line.strip():
                    continue
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise FormatError(f"{file.name} line {number}: expected an object, got {str(found)[:40]}")
                yield number, found
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise FormatError(f"{file.name} line {number}: expected valid JSON ({reason})") from error


def _head(file: Path) -> dict[str, Any]:
    _, head = next(_lines(file), (0, {}))
    if head.get("type") != "dataset":
        raise FormatError(f'{file.name}: expected a first line {{"type": "dataset", ...}}')
    return head


def _names(head: Mapping[str, Any], file: Path) -> dict[int, str]:
    names = head.get("class_names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if (
        not isinstance(names, dict)
        or not names
        or not all(key.isascii() and key.isdecimal() and isinstance(n, str) for key, n in names.items())
    ):
        raise FormatError(f"{file.name}: expected class_names (class id: name), got {str(names)[:60]}")
    return {int(key): name for key, name in names.items()}


def _keypoint_numbers(head: Mapping[str, Any]) -> int:
    shape = head.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and n > 0 for n in shape):
        return int(shape[0] * shape[1])
    return 0


def _items(
    file: Path, finder: ImageFinder, base: str, rows: Rows, split: str | None, waiting: frozenset[str]
) -> Iterator[LabelledImage | Broken]:
    seen: set[Path] = set()
    for number, line in _lines(file):
        if line.get("type") != "image" or split not in (None, line.get("split")):
            continue
        name = line.get("file")
        try:
            if not isinstance(name, str) or not name.strip():
                raise FormatError("expected file, the name of an image")
            part = line.get("split")
            part = part if isinstance(part, str) else None
            tries = (f"{base}/images/{part}/{name}", f"images/{part}/{name}", f"{part}/{name}", name)
            path = next(filter(None, map(finder.direct, tries)), None) or image_of(finder, name)
            if path in seen:
                raise FormatError("it is listed before; every image once")
            seen.add(path)
            called = named_in(finder, path)
            status = "pre-annotation" if called in waiting else "human"
            yield _labelled(line, path, called, rows, part, status)
        except FormatError as error:
            yield Broken(name=str(name or f"{file.name} line {number}"), reason=str(error))


def _labelled(
    line: Mapping[str, Any], path: Path, name: str, rows: Rows, split: str | None, status: Any
) -> LabelledImage:
    given, objects, dropped = line.get("annotations"), [], Dropped()
    for kind in _KINDS if isinstance(given, dict) else ():
        found = given.get(kind) if isinstance(given, dict) else None
        for number, row in enumerate(found if isinstance(found, list) else (), start=1):
            try:
                if not isinstance(row, list):
                    raise ObjectError(f"expected class and numbers, got {str(row)[:40]!r}")
                objects.append(read_row([str(value) for value in row], rows))
            except ObjectError as error:
                dropped.add(f"{kind} {number}", error)
    return LabelledImage(
        path=path,
        name=name,
        relative=True,
        annotations=tuple(objects) if isinstance(given, dict) else None,
        split=split,
        status=status,
        **dropped.facts(),
    )


def _centred(annotation: NewAnnotation, width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = (round(float(value), DIGITS) for value in annotation.box)
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return [round(value, 12) for value in values]
