"""COCO object detection JSON.

In: a file with `images`, `annotations` and `categories` (https://cocodataset.org/#format-data), in any
order. Annotations are not grouped by image, so images and annotations are spooled to a private temporary
SQLite database while the file is parsed, then read image by image: memory stays flat in the number of
images.

Frame: `bbox` is (x, y, width, height) with x, y the left top corner, so xyxy = (x, y, x + width, y +
height). Beyond COCO's own fields these are read and written: on images `date_captured`, `video_id` or
`video` (the group key), `tags` (object or list), `status` ("pre-annotation": a detector's boxes that wait
for a human); on annotations `attributes` (object), `difficult`, `score`. Run-length masks are kept as the
attribute "rle".
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite, rounded
from curator.data.formats.files import Writer, index_of, inside, lookup
from curator.data.formats.jsonstream import array_elements
from curator.errors import FormatError
from store.records import NewAnnotation

FILE = "annotations.json"


class CocoFormat:
    """Reads and writes COCO JSON; writes `annotations.json` and `images/`."""

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
        path = _find(path, split)
        database = sqlite3.connect("")  # a private file that SQLite removes on close
        try:
            names, has_annotations = _spool(path, database)
            if unknown := sorted(set(classes or ()) - set(names.values())):
                raise FormatError(
                    f"{path}: has the classes {', '.join(names.values())}, not {', '.join(unknown)}"
                )
            root = images or _images_folder(path, database)
            count = int(database.execute("SELECT count(*) FROM images").fetchone()[0])
        except BaseException:
            database.close()
            raise
        wanted = tuple(dict.fromkeys(name for name in names.values() if not classes or name in classes))
        return Source(
            categories=wanted,
            count=count,
            items=_items(database, root, names, set(wanted), has_annotations, split),
        )

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


def _find(path: Path, split: str | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FormatError(f"expected a COCO JSON file or a folder that holds one, got {path}")
    if split is not None:
        found = [
            path / split / "_annotations.coco.json",
            path / split / FILE,
            *sorted(path.glob(f"annotations/*{split}*.json")),
        ]
    else:
        found = [path / FILE, path / "_annotations.coco.json", *sorted(path.glob("annotations/*.json"))]
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


def _spool(path: Path, database: sqlite3.Connection) -> tuple[dict[str, str], bool]:
    """Parse `path` into tables images, annotations and broken; returns category id -> name."""
    database.executescript("""
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16000;
        CREATE TABLE images (id TEXT PRIMARY KEY, name TEXT UNIQUE, text TEXT);
        CREATE TABLE annotations (image TEXT, text TEXT);
        CREATE TABLE broken (name TEXT, reason TEXT);
    """)
    names: dict[str, str] = {}
    seen: set[str] = set()
    waiting: list[tuple[str, str]] = []

    def flush() -> None:
        database.executemany("INSERT INTO annotations VALUES (?, ?)", waiting)
        waiting.clear()

    for key, element, text in array_elements(path, seen):
        if key not in ("images", "annotations", "categories"):
            continue
        if not isinstance(element, dict):
            raise FormatError(f"{path}: {key}: expected objects, got {text[:60]}")
        if key == "images":
            _spool_image(database, element, text)
        elif key == "annotations":
            waiting.append((str(element.get("image_id")), text))
            if len(waiting) >= 1000:
                flush()
        elif "id" in element and isinstance(element.get("name"), str) and element["name"]:
            names[str(element["id"])] = element["name"]
        else:
            raise FormatError(f"{path}: categories: expected an id and a name, got {text[:60]}")
    flush()
    if "images" not in seen:
        raise FormatError(
            f"{path}: expected COCO JSON with a list of images, "
            f"found the lists {', '.join(sorted(seen)) or 'none'}"
        )
    database.execute("CREATE INDEX by_image ON annotations (image)")
    orphans = "SELECT image, text FROM annotations WHERE image NOT IN (SELECT id FROM images)"
    database.execute(
        "INSERT INTO broken SELECT 'annotation of image ' || image, 'no image has this id (' || count(*) "
        f"|| ' annotations)' FROM ({orphans}) GROUP BY image"
    )
    return names, "annotations" in seen


def _spool_image(database: sqlite3.Connection, element: Mapping[str, Any], text: str) -> None:
    name, identity = element.get("file_name"), element.get("id")
    reason = None
    if not isinstance(name, str) or not name or identity is None:
        reason = "expected an id and a file_name"
    else:
        try:
            database.execute("INSERT INTO images VALUES (?, ?, ?)", (str(identity), name, text))
        except sqlite3.IntegrityError:
            reason = f"id {identity} or this file name is listed twice; the first one counts"
    if reason:
        database.execute("INSERT INTO broken VALUES (?, ?)", (str(name or identity), reason))


def _images_folder(path: Path, database: sqlite3.Connection) -> Path:
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
    first = [row[0] for row in database.execute("SELECT name FROM images ORDER BY rowid LIMIT 20")]
    for place in places:
        for name in first:
            try:
                if inside(place, name).is_file():
                    return place
            except FormatError:
                continue
    return parent


def _items(
    database: sqlite3.Connection,
    root: Path,
    names: Mapping[str, str],
    wanted: set[str],
    labelled: bool,
    split: str | None,
) -> Iterator[LabelledImage | Broken]:
    try:
        for name, reason in database.execute("SELECT name, reason FROM broken ORDER BY rowid"):
            yield Broken(name=name, reason=reason)
        for identity, name, text in database.execute("SELECT id, name, text FROM images ORDER BY rowid"):
            texts = database.execute(
                "SELECT text FROM annotations WHERE image = ? ORDER BY rowid", (identity,)
            ).fetchall()
            try:
                yield _image(
                    json.loads(text),
                    name,
                    inside(root, name),
                    [json.loads(t) for (t,) in texts] if labelled else None,
                    names,
                    wanted,
                    split,
                )
            except FormatError as error:
                yield Broken(name=name, reason=str(error))
    finally:
        database.close()


def _image(
    record: Mapping[str, Any],
    name: str,
    path: Path,
    annotations: list[dict[str, Any]] | None,
    names: Mapping[str, str],
    wanted: set[str],
    split: str | None,
) -> LabelledImage:
    size = None
    if record.get("width") is not None and record.get("height") is not None:
        width, height = record["width"], record["height"]
        # `not v > 0` is true of NaN as well
        if any(not isinstance(v, int | float) or not v > 0 or v % 1 for v in (width, height)):
            raise FormatError(f"expected a whole width and height above 0, got {width} x {height}")
        size = (int(width), int(height))
    objects, dropped = [], Dropped()
    for raw in annotations or ():
        category = names.get(str(raw.get("category_id")))
        if category is not None and category not in wanted:
            continue
        try:
            objects.append(_decode(raw, names))
        except ObjectError as error:
            dropped.add(f"annotation {raw.get('id')}", error)
    tags = record.get("tags") or {}
    if isinstance(tags, list):
        tags = {str(tag): "true" for tag in tags}
    group = next(
        (record[key] for key in ("video_id", "video", "group_key") if record.get(key) is not None), None
    )
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=None if annotations is None else tuple(objects),
        **dropped.facts(),
        split=split,
        group_key=None if group is None else str(group),
        captured_at=str(record["date_captured"]) if record.get("date_captured") else None,
        tags={str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {},
        status="pre-annotation" if record.get("status") == "pre-annotation" else "human",
    )


def _decode(raw: Mapping[str, Any], names: Mapping[str, str]) -> NewAnnotation:
    category = names.get(str(raw.get("category_id")))
    if category is None:
        raise ObjectError(f"unknown category_id {raw.get('category_id')!r}")
    given, box = raw.get("attributes"), raw.get("bbox")
    attributes = {str(k): v for k, v in given.items()} if isinstance(given, dict) else {}
    mask, polygon = raw.get("segmentation"), None
    if isinstance(mask, dict) and mask:
        attributes["rle"] = mask
    elif isinstance(mask, list) and mask:
        rings = [finite(ring) for ring in mask if isinstance(ring, list)]
        if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
            raise ObjectError("expected polygons of at least 3 points (x, y)")
        polygon = tuple(rings)
    if box is None and polygon:
        xs, ys = [x for ring in polygon for x in ring[0::2]], [y for ring in polygon for y in ring[1::2]]
        corners: Sequence[float] = (min(xs), min(ys), max(xs), max(ys))
    else:
        if not isinstance(box, list) or len(box) != 4:
            raise ObjectError(f"expected bbox [x, y, width, height], got {str(box)[:60]}")
        x, y, width, height = finite(box)
        corners = (x, y, x + width, y + height)
    if isinstance(raw.get("score"), int | float):
        attributes["score"] = raw["score"]
    return NewAnnotation(
        category=category,
        box=checked_box(corners),
        crowd=bool(raw.get("iscrowd")),
        difficult=bool(raw.get("difficult")),
        polygon=polygon,
        attributes=attributes,
    )


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
