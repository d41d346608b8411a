"""The record of a data set version: what it was made of, image by image, so that it can be written again.

In: the images of an export before their pixels are read. Out: blobs, and the images again. An image's line
names its file in the workspace by its hash and holds the labels and the lineage that went out with it; pixels
are not copied. Lines lie in blobs of about `CHUNK`, so that versions share what they have in common, and two
versions are compared without reading that. A blob ends where the hash of an image says so, not at a count: an
image more or less changes the blob that it lies in, and those behind it stay what they are. (Records of
earlier versions were cut at every 500 lines; they read the same.)
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from store.records import NewAnnotation

CHUNK = 512
"""Lines of a blob on average."""
LONGEST = 4
"""`CHUNK`s that a blob holds at most, whatever the hashes say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """One image of an export before its bytes are read.

    Attributes:
        source: sha256 of the workspace's image, or the blob of a sample.
        name, suffix: of the file. width, height: pixels of the stored image (EXIF orientation applied).
        annotations: with the workspace's class names.
        lineage: as in `OutputImage`; its "role" is train, pool or sample.
    """

    source: str
    name: str
    suffix: str
    width: int
    height: int
    annotations: tuple[NewAnnotation, ...]
    lineage: Mapping[str, Any]
    pre_annotated: bool

    @property
    def role(self) -> str:
        """The part that the image plays: train, pool or sample."""
        return str(self.lineage["role"])

    def line(self) -> dict[str, Any]:
        """As plain JSON; what is false or empty in an object is left out."""
        return {
            "source": self.source,
            "name": self.name,
            "suffix": self.suffix,
            "size": [self.width, self.height],
            "objects": [_plain(annotation) for annotation in self.annotations],
            "lineage": dict(self.lineage),
            "pre_annotated": self.pre_annotated,
        }

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """The image of a line."""
        return cls(
            source=line["source"],
            name=line["name"],
            suffix=line["suffix"],
            width=line["size"][0],
            height=line["size"][1],
            annotations=tuple(_annotation(raw) for raw in line["objects"]),
            lineage=line["lineage"],
            pre_annotated=line["pre_annotated"],
        )


def _plain(annotation: NewAnnotation) -> dict[str, Any]:
    found = {
        "category": annotation.category,
        "box": annotation.box,
        "crowd": annotation.crowd,
        "difficult": annotation.difficult,
        "polygon": annotation.polygon,
        "attributes": dict(annotation.attributes),
    }
    return {name: value for name, value in found.items() if value or name == "box"}


def _annotation(raw: Mapping[str, Any]) -> NewAnnotation:
    polygon = raw.get("polygon")
    x1, y1, x2, y2 = raw["box"]
    return NewAnnotation(
        category=raw["category"],
        box=(x1, y1, x2, y2),
        crowd=raw.get("crowd", False),
        difficult=raw.get("difficult", False),
        polygon=None if polygon is None else tuple(tuple(ring) for ring in polygon),
        attributes=raw.get("attributes", {}),
    )


class Recorder:
    """Keeps the lines of the images that were written, in their order."""

    def __init__(self, put: Callable[[bytes], str]) -> None:
        """
        Args:
            put: stores bytes as a blob and returns its name.
        """
        self._put, self._lines, self._chunks = put, list[str](), list[str]()

    def add(self, image: PlannedImage) -> None:
        self._lines.append(json.dumps(image.line()))
        if int(image.source[:8], 16) % CHUNK == 0 or len(self._lines) == LONGEST * CHUNK:
            self._store()

    def chunks(self) -> list[str]:
        """The blobs of all lines."""
        if self._lines:
            self._store()
        return self._chunks

    def _store(self) -> None:
        self._chunks.append(self._put(gzip.compress("\n".join(self._lines).encode(), mtime=0)))
        self._lines = []


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version's record.

    Attributes:
        head: the first facts of the export's manifest. names: class name in the workspace -> in the files.
        notes: on class names. left_out: (image, reason) of what was not exported.
        images: the blobs that hold the lines of the images. digest: sha256 of the export's manifest, which
            names every file with its hash. made_with: package -> version, of what encodes added images.
    """

    head: Mapping[str, Any]
    names: Mapping[str, str]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    images: tuple[str, ...]
    digest: str
    made_with: Mapping[str, str]

    def data(self) -> bytes:
        """As the bytes of a blob; the order of names in `head` is kept, as the manifest has it."""
        fields = ("head", "names", "notes", "left_out", "images", "digest", "made_with")
        return json.dumps({name: getattr(self, name) for name in fields}).encode()

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The record of a blob."""
        found = json.loads(data)
        return cls(
            head=found["head"],
            names=found["names"],
            notes=tuple(found["notes"]),
            left_out=tuple((name, reason) for name, reason in found["left_out"]),
            images=tuple(found["images"]),
            digest=found["digest"],
            made_with=found["made_with"],
        )


def recorded(get: Callable[[str], bytes], chunks: Iterable[str]) -> Iterator[list[PlannedImage]]:
    """The images of a record, blob by blob.

    Args:
        get: reads a blob.
    """
    for chunk in chunks:
        lines = gzip.decompress(get(chunk)).decode().split("\n")
        yield [PlannedImage.of(json.loads(line)) for line in lines]
