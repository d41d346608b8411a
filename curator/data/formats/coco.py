"""COCO object detection JSON.

In: a file with `images`, `annotations` and `categories` (https://cocodataset.org/#format-data), in any order;
of Roboflow's folders with one such file each (`roboflow`), each is a split. `coco_tables` holds its lists
outside of memory, `coco_objects` reads one image's records.

Frame: `bbox` is (x, y, width, height) with x, y the left top corner, so xyxy = (x, y, x + width, y +
height). Beyond COCO's own fields these are read and written: on images `date_captured`, `video_id` or
`video` (the group key), `tags` (object or list), `status` ("pre-annotation": a detector's boxes that wait
for a human); on annotations `attributes` (object), `difficult`, `score`. Run-length masks are kept as the
attribute "rle".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import class_names, rounded
from curator.data.formats.coco_objects import Classes
from curator.data.formats.coco_tables import CocoTables
from curator.data.formats.files import Writer, index_of, lookup
from curator.data.formats.finding import ImageFinder, tails
from curator.data.formats.roboflow import COCO_FILE, coco_splits, umbrella
from curator.errors import FormatError
from store.records import NewAnnotation

FILE = "annotations.json"


class CocoFormat:
    """Reads and writes COCO JSON; writes `annotations.json` and `images/`."""

    reads: ClassVar[tuple[str, ...]] = (".json",)

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a JSON file, or a folder that holds one.

        Args:
            images: folder of the images; None looks beside the file and in the usual places.
            classes: keep only these.
            split: of a folder: `split/_annotations.coco.json` or `annotations/*split*.json`.
        Raises:
            FormatError: no such file, no COCO JSON, or an unknown class in `classes`.
        """
        if path.is_dir() and split is None and not any(path.glob("*.json")):
            parts = list(coco_splits(path))
            if parts:
                return _joined([_open(file, images, classes, name) for name, file in parts])
        source = _open(_find(path, split), images, classes, None)
        if split is None:
            return source
        return replace(source, items=(_in_split(item, split) for item in source.items))

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `out/images/` and `out/annotations.json`; category ids count from 1."""
        index, writer = index_of(categories), Writer(out)
        out.mkdir(parents=True, exist_ok=True)
        part = out / f"{FILE}.part"  # annotations follow all images in the file: they wait here
        number = 0
        with (out / FILE).open("x", encoding="utf-8") as head, part.open("x", encoding="utf-8") as tail:
            head.write('{"info": {"description": "exported by curator"},\n"images": [')
            for image_id, item in enumerate(items, start=1):
                yield writer.image("images", item)
                record = {
                    "id": image_id,
                    "file_name": item.name + item.suffix,
                    "width": item.width,
                    "height": item.height,
                }
                if item.pre_annotated:
                    record["status"] = "pre-annotation"
                head.write(",\n" * (image_id > 1) + json.dumps(record, ensure_ascii=False))
                for annotation in item.annotations:
                    number += 1
                    record = {
                        "id": number,
                        "image_id": image_id,
                        **_encode(annotation, lookup(index, annotation.category) + 1),
                    }
                    tail.write(",\n" * (number > 1) + json.dumps(record, ensure_ascii=False, allow_nan=False))
            head.write('],\n"annotations": [')
            tail.close()
            with part.open(encoding="utf-8") as source:
                shutil.copyfileobj(source, head)
            kinds = [{"id": place + 1, "name": name, "supercategory": ""} for name, place in index.items()]
            head.write('],\n"categories": ' + json.dumps(kinds, ensure_ascii=False) + "}\n")
        part.unlink()
        yield writer.entry(FILE)

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """Everything."""
        return tuple(rounded(annotation) for annotation in annotations)


def _open(
    path: Path, images: Path | None, classes: Sequence[str] | None, folder: str | None
) -> Source:
    """One file.

    Args:
        folder: its split, where its folder is one of several; the images' names begin with it then.
    """
    tables = CocoTables(path)
    try:
        names, notes = class_names(tables.names, f"{path}: categories")
        spare = umbrella(names, tables.parents, tables.used) if path.name == COCO_FILE else None
        if spare is not None:
            notes = (*notes, f"category 0 {names.pop(spare)!r} stands for all others; left out")
        clashes = {
            identity: tuple(dict.fromkeys(name.strip() for name in given))
            for identity, given in tables.clashes.items()
        }
        known = tuple(dict.fromkeys([*names.values(), *(n for given in clashes.values() for n in given)]))
        if unknown := sorted(set(classes or ()) - set(known)):
            raise FormatError(f"{path}: has the classes {', '.join(known)}, not {', '.join(unknown)}")
        root = images / folder if images and folder and (images / folder).is_dir() else images
        tables.find_images(root or _images_folder(path, tables))
        notes = (*notes, *tables.notes())
    except BaseException:
        tables.database.close()
        raise
    wanted = frozenset(classes) if classes else None
    items = tables.items(Classes(names, clashes, wanted))
    kept = tuple(name for name in known if wanted is None or name in wanted)
    if folder is not None:
        items = (_in_split(replace(item, name=f"{folder}/{item.name}"), folder) for item in items)
    return Source(categories=kept, listed=kept, count=tables.count(), items=items, notes=notes)


def _joined(parts: Sequence[Source]) -> Source:
    """The splits of a data set as one; a note that all have is said once."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.categories))
    return Source(
        categories=names,
        listed=names,
        count=sum(part.count or 0 for part in parts),
        items=(item for part in parts for item in part.items),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _in_split(item: LabelledImage | Broken, split: str) -> LabelledImage | Broken:
    return replace(item, split=split) if isinstance(item, LabelledImage) else item


def _find(path: Path, split: str | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected a COCO JSON file or a folder that holds one, got {path}")
    if split is not None:
        found = [
            path / split / COCO_FILE,
            path / split / FILE,
            *sorted(path.glob(f"annotations/*{split}*.json")),
        ]
    else:
        found = [path / FILE, path / COCO_FILE, *sorted(path.glob("annotations/*.json"))]
        if not any(candidate.is_file() for candidate in found):
            found = [file for file in sorted(path.glob("*.json")) if file.name != "manifest.json"]
    found = [candidate for candidate in found if candidate.is_file()]
    if len(found) != 1:
        names = ", ".join(str(candidate.relative_to(path)) for candidate in found) or "none"
        raise FormatError(
            f"{path}: expected one COCO JSON file{f' for split {split}' if split else ''}, found {names}; "
            "name the file"
        )
    return found[0]


def _images_folder(path: Path, tables: CocoTables) -> Path:
    """The folder where the first images are: beside the file, images/, or a sibling called as the file."""
    parent = path.parent
    places = [
        parent,
        parent / "images",
        parent.parent / "images",
        parent.parent,
        parent.parent / path.stem,
        parent.parent / path.stem.removeprefix("instances_"),
        parent.parent / "images" / path.stem.removeprefix("instances_"),
    ]
    first = tables.first_names()
    for place in places:
        if any(ImageFinder(place).direct(name) for name in first):
            return place
    for place in places:  # names of another machine: their last parts, without looking through the folders
        if any(
            place.joinpath(*parts[start:]).is_file()
            for name in first
            for parts in tails(name)
            for start in range(len(parts))
        ):
            return place
    return parent


def _encode(annotation: NewAnnotation, category_id: int) -> dict[str, Any]:
    annotation = rounded(annotation)
    x1, y1, x2, y2 = annotation.box
    attributes = dict(annotation.attributes)
    rle, score = attributes.pop("rle", None), attributes.get("score")
    mask = rle if rle is not None else [list(ring) for ring in annotation.polygon or ()]
    area = (
        sum(_ring_area(ring) for ring in annotation.polygon) if annotation.polygon else (x2 - x1) * (y2 - y1)
    )
    record: dict[str, Any] = {
        "category_id": category_id,
        "bbox": [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)],
        "area": round(area, 6),
        "iscrowd": int(annotation.crowd),
        "segmentation": mask,
    }
    if annotation.difficult:
        record["difficult"] = 1
    if isinstance(score, int | float):
        record["score"] = attributes.pop("score")
    if attributes:
        record["attributes"] = attributes
    return record


def _ring_area(ring: Sequence[float]) -> float:
    """Shoelace formula."""
    xs, ys = ring[0::2], ring[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2
