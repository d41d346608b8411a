"""YOLO text labels, as Ultralytics and Roboflow lay them out.

In: `data.yaml` (names, and a folder or list file for each split), or a folder with `images/` and `labels/`
plus class names. One line an object: `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` for a polygon (its
box is taken), all relative to the upright image. An image without a label file has no objects, as
Ultralytics reads it (unless data.yaml says `skip_if_label_file_missing: true`); without any labels folder
the images are unlabelled.

A line holds a class and a box: writing leaves out crowd regions (they are no objects), polygons,
attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import DIGITS, Dropped, ObjectError, checked_box, finite, rounded
from curator.data.formats.files import (
    PRE_ANNOTATIONS,
    Writer,
    image_files,
    index_of,
    inside,
    lookup,
    pre_annotated,
)
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LABEL_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class _Part:
    """One split: a folder of images, or a text file that lists them."""

    split: str | None
    place: Path
    root: Path


class YoloFormat:
    """Reads and writes YOLO data sets; writes `data.yaml`, `images/train/` and `labels/train/`."""

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open `data.yaml`, or a folder.

        Args:
            images: read the images here instead of where data.yaml says; labels are looked for where "images"
                in the path reads "labels", else beside the images.
            classes: names by class id, where there is no data.yaml or instead of its names.
            split: "train", "val" (or "valid"), "test"; None reads all.
        Raises:
            FormatError: no data set there, unusable yaml, no class names, or an unknown split.
        """
        file = _yaml_file(path, wanted=not classes)
        table = _read_yaml(file) if file else {}
        names = dict(enumerate(classes)) if classes else _names(table, file or path)
        folder = path if path.is_dir() else path.parent
        parts = _parts(table, folder, images, split)
        skip_missing = table.get("skip_if_label_file_missing") is True
        waiting = pre_annotated(folder)
        return Source(
            categories=tuple(names[number] for number in sorted(names)),
            items=_items(parts, folder, names, skip_missing, waiting),
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `images/train/`, `labels/train/`, `data.yaml`, `pre_annotations.txt` where needed."""
        index, writer, waiting = index_of(categories), Writer(out), []
        for item in items:
            yield writer.image("images/train", item)
            lines = [
                _line(annotation, lookup(index, annotation.category), item.width, item.height)
                for annotation in item.annotations
                if not annotation.crowd
            ]
            yield writer.file(f"labels/train/{item.name}.txt", "".join(lines).encode())
            if item.pre_annotated:
                waiting.append(f"images/train/{item.name}{item.suffix}\n")
        if waiting:
            yield writer.file(PRE_ANNOTATIONS, "".join(waiting).encode())
        table = {"train": "images/train", "nc": len(categories), "names": dict(enumerate(categories))}
        text = (
            "# Exported by curator. Add your own `val:` (and `test:`) folder before training.\n"
            + yaml.safe_dump(table, sort_keys=False, allow_unicode=True)
        )
        yield writer.file("data.yaml", text.encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """Class and box of each object; no crowd regions."""
        return tuple(
            rounded(NewAnnotation(category=a.category, box=a.box)) for a in annotations if not a.crowd
        )


def _yaml_file(path: Path, *, wanted: bool) -> Path | None:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected data.yaml or a folder that holds one, got {path}")
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (path / name).is_file():
            return path / name
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if len(found) == 1:
        return found[0]
    if wanted:
        raise FormatError(
            f"{path}: expected data.yaml, found {', '.join(f.name for f in found) or 'no yaml file'}; "
            "name the file, or give the class names with --classes a,b,c"
        )
    return None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise FormatError(f"{file}: expected a mapping with names, got {type(table).__name__}")
    return table


def _names(table: Mapping[str, Any], file: Path) -> dict[int, str]:
    names = table.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(key, int) for key in names):
        raise FormatError(
            f"{file}: expected names (a list, or class id: name), got {names!r}; or give --classes a,b,c"
        )
    if "nc" in table and table["nc"] != len(names):
        raise FormatError(
            f"{file}: nc says {table['nc']} classes, names has {len(names)}; correct one of them"
        )
    texts = {number: str(name) for number, name in names.items()}
    if not all(texts.values()):
        raise FormatError(f"{file}: a class has no name; every class id needs one")
    if len(set(texts.values())) != len(texts):
        raise FormatError(f"{file}: two classes have the same name; names must differ")
    return texts


def _parts(table: Mapping[str, Any], folder: Path, images: Path | None, split: str | None) -> list[_Part]:
    wanted = None if split is None else _SPLITS.get(split, split)
    if images is not None:
        if not images.is_dir():
            raise FormatError(f"--images: expected a folder, got {images}")
        return [_Part(wanted, images, images)]
    parts = []
    for key in dict.fromkeys([*_SPLITS, *([split] if split else [])]):
        entries = table.get(key)
        if entries is None or (wanted is not None and _SPLITS.get(key, key) != wanted):
            continue
        for entry in entries if isinstance(entries, list) else [entries]:
            if place := _resolve(folder, str(table.get("path") or "."), str(entry)):
                parts.append(_Part(_SPLITS.get(key, key), place, folder))
    if not parts:  # folders without a yaml that names them
        for name, number in _SPLITS.items():
            for place in (folder / name / "images", folder / "images" / name):
                if place.is_dir() and (wanted is None or number == wanted):
                    parts.append(_Part(number, place, folder))
    if not parts and wanted is None and (folder / "images").is_dir():
        parts.append(_Part(None, folder / "images", folder))
    if not parts:
        raise FormatError(
            f"{folder}: expected images in images/ or in the folders that data.yaml names"
            f"{f' for split {split}' if split else ''}, found none; name their folder with --images"
        )
    return parts


def _resolve(folder: Path, base: str, entry: str) -> Path | None:
    """Where a split's entry leads: Roboflow writes ../train/images for the train/images beside data.yaml."""
    plain = entry.replace("\\", "/")
    while plain.startswith("../"):
        plain = plain[3:]
    refused = None
    for candidate in (f"{base}/{entry}", entry, plain):
        try:
            place = inside(folder, candidate)
        except FormatError as error:
            if (folder / candidate).exists():
                refused = error
            continue
        if place.exists():
            return place
    if refused is not None:
        raise refused
    return None


def _items(
    parts: Sequence[_Part],
    folder: Path,
    names: Mapping[int, str],
    skip_missing: bool,
    waiting: frozenset[str],
) -> Iterator[LabelledImage | Broken]:
    for part in parts:
        for found in _images(part):
            if isinstance(found, Broken):
                yield found
                continue
            relative = (
                found.relative_to(folder) if found.is_relative_to(folder) else found.relative_to(part.root)
            )
            label = _label(found)
            item = LabelledImage(
                path=found,
                name=relative.as_posix(),
                relative=True,
                split=part.split,
                status="pre-annotation" if relative.as_posix() in waiting else "human",
            )
            beside = found.with_suffix(".txt")
            if label.is_file() or beside.is_file():
                yield _labelled(item, label if label.is_file() else beside, names)
            elif label.parent.is_dir() and label.parent != found.parent and not skip_missing:
                yield replace(item, annotations=())
            else:
                yield item


def _images(part: _Part) -> Iterator[Path | Broken]:
    if part.place.is_dir():
        yield from image_files(part.place)
        return
    with part.place.open(encoding="utf-8") as handle:
        for line in handle:
            if name := line.strip():
                try:
                    yield inside(part.root, name)
                except FormatError as error:
                    yield Broken(name=name, reason=str(error))


def _label(image: Path) -> Path:
    """.../images/x/a.jpg -> .../labels/x/a.txt; without an images folder, the text file beside the image."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def _labelled(item: LabelledImage, label: Path, names: Mapping[int, str]) -> LabelledImage | Broken:
    try:
        if label.stat().st_size > _LABEL_LIMIT:
            return Broken(
                name=item.name, reason=f"{label.name}: expected at most {_LABEL_LIMIT} bytes of labels"
            )
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return Broken(name=item.name, reason=f"{label.name}: not readable as text ({type(error).__name__})")
    objects, dropped = [], Dropped()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_object(line.split(), names))
        except ObjectError as error:
            dropped.add(f"{label.name} line {number}", error)
    return replace(item, annotations=tuple(objects), **dropped.facts())


def _object(fields: Sequence[str], names: Mapping[int, str]) -> NewAnnotation:
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise ObjectError(
            f"expected class and 4 numbers, or class and 3 or more points, got {len(fields)} fields"
        )
    values = finite(fields)
    if values[0] not in names:
        raise ObjectError(f"unknown class id {fields[0]}; known are {min(names)} to {max(names)}")
    polygon = None
    if len(fields) == 5:
        _, cx, cy, width, height = values
        box: BoxTuple = checked_box((cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    else:
        xs, ys = values[1::2], values[2::2]
        box, polygon = checked_box((min(xs), min(ys), max(xs), max(ys))), (values[1:],)
    return NewAnnotation(category=names[int(values[0])], box=box, polygon=polygon)


def _line(annotation: NewAnnotation, number: int, width: int, height: int) -> str:
    """One label line; repr keeps the digits that bring the same `DIGITS` decimals of a pixel back."""
    x1, y1, x2, y2 = (round(float(value), DIGITS) for value in annotation.box)
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(number), *(format(value, ".12f") for value in values)]) + "\n"
