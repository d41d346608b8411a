"""What is kept in memory of every image, to tell which look alike.

In: the database. Out: rows: an image's place by rising id, its hashes, and whether it is described. 129 bytes
an image; what other images came since is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from store.appearance import HASHES
from store.duplicates import Hashes, parse_hashes
from store.hash_table import HashTable, Rows
from store.models import AppearanceRow, Image, Run
from store.runs import REMOVE

_READ = 20_000  # rows read at a time


class Column:
    """Values by row; adding some copies the others rarely."""

    def __init__(self, dtype: Any) -> None:
        self._room = np.zeros(64, dtype=dtype)
        self._count = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add after the others."""
        end = self._count + len(values)
        if end > len(self._room):
            room = np.zeros(max(end, len(self._room) * 3 // 2), dtype=self._room.dtype)
            room[: self._count] = self.values
            self._room = room
        self._room[self._count : end] = values
        self._count = end

    @property
    def values(self) -> NDArray[Any]:
        """(N,), a view."""
        return self._room[: self._count]


class KnownImages:
    """The images of a workspace, as far as they were read."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was read was rolled back."""
        self._ids, self._phashes, self._described = Column(np.int64), Column(np.uint64), Column(bool)
        self._unbroken = 0  # images 1 to here are all known
        self.table = HashTable()
        self._part: tuple[Rows, HashTable] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ids(self) -> Rows:
        """(N,) image ids, rising."""
        return self._ids.values

    @property
    def phashes(self) -> Hashes:
        """(N,) the one hash of an image that came before the others were kept."""
        return self._phashes.values

    @property
    def described(self) -> NDArray[np.bool_]:
        """(N,) has the image hashes and a thumbnail? Hashes are 0 where not."""
        return self._described.values

    def rows(self, ids: Sequence[int]) -> Rows:
        """Rows of those ids that are known, in their order, each once."""
        wanted = np.array(list(dict.fromkeys(ids)), dtype=np.int64)
        rows = np.searchsorted(self.ids, wanted)
        known = rows < len(self)
        known[known] = self.ids[rows[known]] == wanted[known]
        return np.asarray(rows[known], dtype=np.int64)

    def part(self, rows: Rows) -> HashTable:
        """The hashes of some rows, by their place in `rows`; those asked for last are kept."""
        if self._part is None or not np.array_equal(self._part[0], rows):
            self._part = rows, HashTable(self.table.rows(rows))
        return self._part[1]

    def describe(self, image: int, hashes: bytes) -> None:
        """An image has hashes now."""
        row = int(np.searchsorted(self.ids, image))
        self.table.put(row, np.frombuffer(hashes, dtype="<u8").astype(np.uint64))
        self.described[row] = True
        self._part = None

    def refresh(self, connection: Connection) -> None:
        """Read what was added since; all of it where images were removed."""
        self._read(connection, int(self.ids[-1]) if len(self) else 0)
        if connection.scalar(select(Run.id).where(Run.stage == REMOVE).limit(1)) is not None:
            count, newest = connection.execute(select(func.count(), func.max(Image.id))).one()
            if count != len(self) or (count and int(self.ids[-1]) != newest):
                self.forget()
                self._read(connection, 0)
            return
        if not len(self) or self.ids[-1] == len(self):
            return  # no id is missing
        # Another writer's smaller id may come later (PostgreSQL); more often a number was never used.
        gaps = np.flatnonzero(self.ids[self._unbroken :] != np.arange(self._unbroken, len(self)) + 1)
        self._unbroken += int(gaps[0])
        later = select(func.count()).select_from(Image).where(Image.id > self._unbroken)
        if connection.scalar(later) != len(self) - self._unbroken:
            self.forget()
            self._read(connection, 0)

    def _read(self, connection: Connection, after: int) -> None:
        nothing = bytes(8 * HASHES)
        query = (
            select(Image.id, Image.phash, AppearanceRow.hashes)
            .outerjoin(AppearanceRow, AppearanceRow.image_id == Image.id)
            .where(Image.id > after)
            .order_by(Image.id)
            .execution_options(yield_per=_READ)
        )
        for rows in connection.execute(query).partitions():
            self._ids.append(np.array([row[0] for row in rows], dtype=np.int64))
            self._phashes.append(parse_hashes([row[1] for row in rows]))
            self._described.append(np.array([row[2] is not None for row in rows], dtype=bool))
            hashes = np.frombuffer(b"".join(row[2] or nothing for row in rows), dtype="<u8")
            self.table.append(hashes.astype(np.uint64).reshape(-1, HASHES))
