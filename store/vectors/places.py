"""Where the rows of each image lie: one row of SQL an image, as arrays.

In: a space and a kind. Out: `Places`. What is committed never changes, so that it is read from SQL once.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from store.models import Image, IndexedImage
from store.records import BoxesKind, Ints
from store.session import Database, table
from store.vectors.codes import CodeGroup

KINDS: dict[BoxesKind, int] = {"offered": 0, "outcomes": 1}
_FIELDS = (
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
        image_ids: of the images. first, boxes: their first row among those of boxes, and how many they have.
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
    """Reads `Places`, and keeps what is committed: 56 bytes an image."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[tuple[int, BoxesKind], NDArray[np.int64]] = {}

    def read(self, connection: Connection, space_id: int, kind: BoxesKind) -> Places:
        """The places of a kind of a space, as the connection sees them."""
        kept = self._kept.get((space_id, kind))
        known = 0 if kept is None else kept.shape[1]
        query = select(*_FIELDS).join_from(IndexedImage, Image).order_by(IndexedImage.place)
        result = connection.execute(
            query.where(
                IndexedImage.space_id == space_id,
                IndexedImage.kind == KINDS[kind],
                IndexedImage.place >= known,
            )
        )
        parts = [np.array([tuple(row) for row in part], np.int64).T for part in result.partitions(20_000)]
        found = np.hstack([np.zeros((len(_FIELDS), 0), np.int64) if kept is None else kept, *parts])
        if self._database.connection is None:  # those of an open transaction may yet be undone
            self._kept[space_id, kind] = found
        return Places(*found)


def committed(connection: Connection, space_id: int, kind: BoxesKind) -> dict[CodeGroup, int]:
    """How many rows of each group's files count."""
    query = select(table(IndexedImage)).where(
        IndexedImage.space_id == space_id, IndexedImage.kind == KINDS[kind]
    )
    last = connection.execute(query.order_by(IndexedImage.place.desc()).limit(1)).one_or_none()
    if last is None:
        return {"boxes": 0, "candidates": 0, "images": 0}
    return {
        "boxes": last.first_box + last.boxes,
        "candidates": last.first_candidate + last.candidates,
        "images": last.place + 1,
    }


def stored_key(key: str) -> bytes:
    """A content key as SQL holds it: 16 bytes."""
    return sha256(key.encode()).digest()[:16]
