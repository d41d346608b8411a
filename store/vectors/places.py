"""Where the rows of each image lie: one row of SQL an image, as arrays.

In: a space and a kind. Out: `Places`. What is committed never changes but for images that are removed, so
that it is read from SQL once, and again after a removal.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from store.blobs import BlobStore
from store.models import Image, IndexedImage
from store.records import BoxesKind, Ints
from store.session import Database, table
from store.vectors.codes import CodeGroup

KINDS: dict[BoxesKind, int] = {"offered": 0, "outcomes": 1}
FACT = "removed"  # of a space's facts: see `store.vectors.removed`
NOBODY = -1
"""The image id of rows whose image was removed."""
_FIELDS = (
    IndexedImage.place,
    IndexedImage.image_id,
    IndexedImage.first_box,
    IndexedImage.boxes,
    IndexedImage.first_candidate,
    IndexedImage.candidates,
    Image.height,
    Image.width,
)


@dataclass(frozen=True, slots=True)
class Places:
    """The images of a kind in the order of its files; all fields (M,).

    Attributes:
        image_ids: of the images, `NOBODY` for removed ones.
        first, boxes: their first row among those of boxes, and how many they have.
        first_candidate, candidates: the same among those of candidates.
        heights, widths: of the images.
    """

    image_ids: Ints
    first: Ints
    boxes: Ints
    first_candidate: Ints
    candidates: Ints
    heights: Ints
    widths: Ints

    def __len__(self) -> int:
        return len(self.image_ids)

    def committed(self, group: CodeGroup) -> int:
        """How many rows of a group's files count."""
        if group == "images" or not len(self):
            return len(self)
        if group == "boxes":
            return int(self.first[-1] + self.boxes[-1])
        return int(self.first_candidate[-1] + self.candidates[-1])

    def rows(self, places: Ints, *, candidates: bool = False) -> Ints:
        """The rows of boxes (or of candidates) of the images at `places`, one image after the other."""
        first, counts = (
            (self.first_candidate, self.candidates) if candidates else (self.first, self.boxes)
        )
        starts = np.cumsum(counts[places]) - counts[places]
        rows: Ints = np.repeat(first[places] - starts, counts[places])
        rows += np.arange(len(rows), dtype=np.int64)
        return rows

    def of_rows(self, rows: Ints) -> Ints:
        """The places of the images that rows of boxes belong to."""
        places: Ints = np.searchsorted(self.first, rows, side="right").astype(np.int64)
        return places - 1


class PlaceReader:
    """Reads `Places`, and keeps what is committed: 64 bytes an image."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._kept: dict[tuple[int, BoxesKind], tuple[str, NDArray[np.int64]]] = {}

    def read(self, connection: Connection, space: Any, kind: BoxesKind) -> Places:
        """The places of a kind of a space (its row of SQL), as the connection sees them."""
        removed = space.facts.get(FACT, {}).get("blob", "")
        version, kept = self._kept.get((space.id, kind), ("", np.zeros((len(_FIELDS), 0), np.int64)))
        if version != removed:  # images were removed since: read all
            kept = self._removed(removed, kind)
        known = kept.shape[1] if version == removed else 0
        query = select(*_FIELDS).join_from(IndexedImage, Image).order_by(IndexedImage.place)
        result = connection.execute(
            query.where(
                IndexedImage.space_id == space.id,
                IndexedImage.kind == KINDS[kind],
                IndexedImage.place >= known,
            )
        )
        parts = [np.array([tuple(row) for row in part], np.int64).T for part in result.partitions(20_000)]
        found = np.hstack([kept, *parts]) if parts else kept  # no copy where nothing is new
        if version != removed:
            found = found[:, np.argsort(found[0])]
        if self._database.connection is None:  # those of an open transaction may yet be undone
            self._kept[space.id, kind] = removed, found
        return Places(*found[1:])

    def _removed(self, blob: str, kind: BoxesKind) -> NDArray[np.int64]:
        """Places of removed images, as `_FIELDS`."""
        from safetensors.numpy import load

        arrays = load(self._blobs.get(blob)) if blob else {}
        places = np.asarray(arrays.get(kind, np.zeros((0, 5))), np.int64)
        found = np.ones((len(_FIELDS), len(places)), np.int64)  # heights and widths are of no image
        found[0], found[1], found[2:6] = places[:, 0], NOBODY, places[:, 1:].T
        return found


def committed(connection: Connection, space: Any, kind: BoxesKind) -> dict[CodeGroup, int]:
    """How many rows of each group's files count, those of removed images among them.

    Args:
        space: its row of SQL.
    """
    query = select(table(IndexedImage)).where(
        IndexedImage.space_id == space.id, IndexedImage.kind == KINDS[kind]
    )
    last = connection.execute(query.order_by(IndexedImage.place.desc()).limit(1)).one_or_none()
    boxes, candidates, images = space.facts.get(FACT, {}).get("ends", {}).get(kind, (0, 0, 0))
    if last is None or last.place < images:
        return {"boxes": boxes, "candidates": candidates, "images": images}
    return {
        "boxes": last.first_box + last.boxes,
        "candidates": last.first_candidate + last.candidates,
        "images": last.place + 1,
    }


def stored_key(key: str) -> bytes:
    """A content key as SQL holds it: 16 bytes."""
    return sha256(key.encode()).digest()[:16]
