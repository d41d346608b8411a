"""LabelMe's JSON, one file an image beside it, as LabelMe and X-AnyLabeling write it.

In: a folder with images and a .json of the same name for each that was looked at; images without one are
unlabelled. `labels.txt` or `classes.txt` lists the classes, where it is there. `imagePath` counts from the
file's folder. Where no image is there and the file holds it (`imageData`, base64), it is unpacked into the
workspace's `frames` folder.

Frame: points in pixels. A rectangle has two corners (LabelMe) or four (X-AnyLabeling); of polygons, circles
and turned boxes the upright box is taken, with a note. `score`, `difficult`, `attributes` of a shape are
X-AnyLabeling's; LabelMe keeps them untouched, and flags that are set are read as attributes. Written are
rectangles of two corners, which both read; the image's flag "pre-annotation" marks boxes that wait for a
human.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.checking import Dropped, ObjectError, checked_box, finite, rounded
from curator.data.formats.files import Writer, index_of, lookup
from curator.data.formats.finding import ImageFinder
from curator.data.formats.labelling import (
    Labels,
    bounds,
    image_of,
    named_in,
    outline_dropped,
    plain_attributes,
)
from curator.data.formats.pictures import image_files
from curator.errors import FormatError
from store.records import BoxTuple, NewAnnotation

WAITING = "pre-annotation"
_LISTS = ("labels.txt", "classes.txt")
_LIMIT = 1 << 28  # bytes of a file: images in base64 are large
_OWN = ("__ignore__", "_background_")  # LabelMe's labels.txt begins with these
_KINDS = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp", b"RIFF": ".webp", b"GIF8": ".gif"}


class LabelMeFormat:
    """Reads and writes LabelMe's JSON; writes `images/` with a file beside each image, and `labels.txt`."""

    takes: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(self, *, frames: Path | None = None) -> None:
        """Make a reader and writer.

        Args:
            frames: folder for images that the files hold; None leaves these images out.
        """
        self.unpacked = frames / "labelme" if frames else None

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a folder, searched recursively, or one file.

        Args:
            images: folder of the images, where they do not lie beside the files.
            classes: keep only these. split: read the sub-folder of this name.
        Raises:
            FormatError: no such folder, or no LabelMe file in it.
        """
        folder = path if path.is_dir() else path.parent
        if split is not None:
            folder = folder / split
        files = [path] if path.is_file() else _files(folder)
        used, read = set[str](), 0
        for file in files:
            try:
                table = _table(file)
            except FormatError:
                read += 1  # reported when the file's turn comes
                continue
            if table is not None:
                read += 1
                used.update(s["label"] for s in _shapes(table) if isinstance(s.get("label"), str))
        if not read:
            raise FormatError(f"{folder}: expected LabelMe's .json files beside images, found none")
        labels = Labels(str(folder), _listed(folder, path.parent), used, classes)
        bare = [] if path.is_file() else _bare(images or folder, files)
        return Source(
            categories=labels.known,
            listed=labels.listed,
            count=read + len(bare),
            items=self._items(files, bare, folder, images, labels, split),
            notes=labels.notes,
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write `images/NAME.jpg`, `images/NAME.json` and `labels.txt`."""
        index, writer = index_of(categories), Writer(out)
        for item in items:
            yield writer.image("images", item)
            for annotation in item.annotations:
                lookup(index, annotation.category)
            yield writer.file(f"images/{item.name}.json", _json(item))
        yield writer.file("labels.txt", "".join(f"{name}\n" for name in categories).encode())

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...]:
        """All but polygons and run-length masks."""
        return tuple(map(outline_dropped, annotations))

    def _items(
        self,
        files: Sequence[Path],
        bare: Sequence[Path],
        folder: Path,
        images: Path | None,
        labels: Labels,
        split: str | None,
    ) -> Iterator[LabelledImage | Broken]:
        finder = ImageFinder(images or folder)
        seen: dict[Path, str] = {}
        for file in files:
            name = file.relative_to(folder).as_posix()
            try:
                table = _table(file)
                if table is None:
                    continue
                path = self._image(file, table, finder)
                if path in seen:
                    raise FormatError(f"its image is that of {seen[path]}; one image, one file")
                seen[path] = name
                yield replace(_labelled(table, path, named_in(finder, path), labels), split=split)
            except FormatError as error:
                yield Broken(name=name, reason=str(error))
        for path in bare:
            if path not in seen:
                yield LabelledImage(path=path, name=named_in(finder, path), split=split)

    def _image(self, file: Path, table: Mapping[str, Any], finder: ImageFinder) -> Path:
        """The image: where `imagePath` leads from the file's folder, else by name, else out of the file."""
        given = table.get("imagePath")
        name = given.strip() if isinstance(given, str) else ""
        if not name:
            raise FormatError("expected imagePath, the name of its image")
        beside = os.path.join(os.path.dirname(os.path.relpath(file, finder.folder)), name.replace("\\", "/"))
        path = finder.direct(beside) or image_of(finder, name)
        data = table.get("imageData")
        if path.is_file() or not isinstance(data, str) or self.unpacked is None:
            return path
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FormatError(f"its image is not there, and imageData is no base64 ({error})") from error
        kind = next((k for start, k in _KINDS.items() if content.startswith(start)), None)
        if kind is None:
            raise FormatError("its image is not there, and imageData is no picture that is known")
        place = self.unpacked / hashlib.sha256(content).hexdigest()[:16] / f"{path.stem}{kind}"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{os.getpid()}.part")
            part.write_bytes(content)
            os.replace(part, place)
        return place


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FormatError(f"expected a folder with LabelMe's .json files, got {folder}")
    found = (file for file in folder.rglob("*.json") if file.name != "manifest.json" and file.is_file())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _bare(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Images without a file: nobody has looked at them yet."""
    looked_at = {file.with_suffix("") for file in files}
    return [image for image in image_files(folder) if image.with_suffix("") not in looked_at]


def _listed(*folders: Path) -> list[str] | None:
    for folder in folders:
        for name in _LISTS:
            if (folder / name).is_file():
                try:
                    lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
                except UnicodeDecodeError as error:
                    raise FormatError(f"{folder / name}: expected class names in UTF-8") from error
                return [line for line in lines if line.strip() and line.strip() not in _OWN] or None
    return None


def _table(file: Path) -> dict[str, Any] | None:
    """The file's object; None where it is JSON of another kind.

    Raises:
        FormatError: no JSON.
    """
    try:
        if file.stat().st_size > _LIMIT:
            raise FormatError(f"{file.name}: expected at most {_LIMIT} bytes")
        table = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise FormatError(f"{file.name}: expected valid JSON ({reason})") from error
    return table if isinstance(table, dict) and isinstance(table.get("shapes"), list) else None


def _shapes(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [shape for shape in table["shapes"] if isinstance(shape, dict)]


def _labelled(table: Mapping[str, Any], path: Path, name: str, labels: Labels) -> LabelledImage:
    size = None
    given = table.get("imageWidth"), table.get("imageHeight")
    if None not in given:
        try:
            width, height = finite(given)
        except ObjectError as error:
            raise FormatError(f"imageWidth and imageHeight: {error}") from error
        size = (int(width), int(height)) if width > 0 and height > 0 else None
    objects, dropped, notes = [], Dropped(), list[str]()
    for number, shape in enumerate(_shapes(table), start=1):
        try:
            if (category := labels.of(shape.get("label"))) is not None:
                objects.append(_object(shape, category, notes))
        except ObjectError as error:
            dropped.add(f"shape {number}", error)
    flags = table.get("flags")
    flags = flags if isinstance(flags, dict) else {}
    return LabelledImage(
        path=path,
        name=name,
        declared_size=size,
        annotations=tuple(objects),
        notes=tuple(notes),
        tags={str(flag): "true" for flag, value in flags.items() if value is True and flag != WAITING},
        status="pre-annotation" if flags.get(WAITING) is True else "human",
        **dropped.facts(),
    )


def _object(shape: Mapping[str, Any], category: str, notes: list[str]) -> NewAnnotation:
    given = shape.get("points")
    points = [finite(p) for p in given if isinstance(p, list)] if isinstance(given, list) else []
    if any(len(point) != 2 for point in points):
        raise ObjectError("expected points [[x, y], ...]")
    box, polygon = _geometry(str(shape.get("shape_type") or "polygon"), points, category, notes)
    kept, flags = shape.get("attributes"), shape.get("flags")
    attributes = dict(kept) if isinstance(kept, dict) else {}
    if isinstance(flags, dict):
        attributes.update({str(flag): True for flag, value in flags.items() if value is True})
    score = shape.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool):
        attributes["score"] = score
    return NewAnnotation(
        category=category,
        box=checked_box(box),
        polygon=polygon,
        difficult=shape.get("difficult") is True,
        crowd=shape.get("crowd") is True,
        attributes=attributes,
    )


def _geometry(
    kind: str, points: Sequence[Sequence[float]], category: str, notes: list[str]
) -> tuple[BoxTuple, tuple[tuple[float, ...], ...] | None]:
    if kind in ("rectangle", "mask", "rotation"):
        if len(points) != 2 and (len(points) != 4 or kind == "mask"):
            raise ObjectError(f"expected a {kind} of 2 or 4 corners, got {len(points)}")
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        if len(points) == 4 and (len(set(xs)) > 2 or len(set(ys)) > 2):
            notes.append(f"{category}: a turned box; its upright box is taken")
        elif kind == "mask":
            notes.append(f"{category}: a mask; its box is taken")
        return (min(xs), min(ys), max(xs), max(ys)), None
    if kind == "polygon":
        box, ring = bounds(points)
        notes.append(f"{category}: a polygon; its upright box is taken")
        return box, ring
    if kind == "circle":
        if len(points) != 2:
            raise ObjectError(f"expected a circle's centre and a point on it, got {len(points)} points")
        (cx, cy), (x, y) = points
        radius = math.hypot(x - cx, y - cy)
        notes.append(f"{category}: a circle; its box is taken")
        return (cx - radius, cy - radius, cx + radius, cy + radius), None
    raise ObjectError(f"a {kind} of {category!r} has no box; draw a rectangle")


def _json(item: OutputImage) -> bytes:
    table = {
        "version": "5.5.0",
        "flags": {WAITING: True} if item.pre_annotated else {},
        "shapes": [_shape(rounded(annotation)) for annotation in item.annotations],
        "imagePath": item.name + item.suffix,
        "imageData": None,
        "imageHeight": item.height,
        "imageWidth": item.width,
    }
    return (json.dumps(table, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def _shape(annotation: NewAnnotation) -> dict[str, Any]:
    x1, y1, x2, y2 = annotation.box
    attributes = plain_attributes(annotation.attributes)
    score = attributes.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool):
        del attributes["score"]
    else:
        score = None
    shape = {
        "label": annotation.category,
        "points": [[x1, y1], [x2, y2]],
        "group_id": None,
        "description": "",
        "shape_type": "rectangle",
        "flags": {},
        "score": score,
        "difficult": annotation.difficult,
        "attributes": attributes,
    }
    return {**shape, "crowd": True} if annotation.crowd else shape
