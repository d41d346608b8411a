"""A vector space as the rows of a FAISS index: what `index` builds and `query` asks.

In: a vector space. Out: its offered boxes as rows (`SpaceRows`), read when they are needed; the folder of the
index. An index pays where a pool has more than `EXACT_ROWS` boxes: smaller ones are scored whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curator.progress import progress
from curator.query.sketch import Sketch
from store.records import Floats, Ints, SpaceShape

if TYPE_CHECKING:
    from store.store import Store

EXACT_ROWS = 300_000  # boxes of a pool that a query scores whole
CHUNK = 65_536  # rows of a block
PIECE = 8192  # rows read at a time: what a row is made from takes several times its memory


class SpaceRows:
    """The offered boxes of a vector space as rows of an index, read when they are needed."""

    def __init__(self, store: Store, space: str, sketch: Sketch, dimension: int) -> None:
        self._store, self._space, self._sketch = store, space, sketch
        self._dimension = dimension
        self._count = store.box_end(space)  # a removed image's rows keep their numbers, and are never asked

    @property
    def dimension(self) -> int:
        """D + E."""
        return self._dimension

    @property
    def count(self) -> int:
        """Rows in the files; numbers below are rows."""
        return self._count

    def read(self, rows: Ints) -> Floats:
        """Rows by number, in any order."""
        found = np.empty((len(rows), self._dimension), np.float32)
        for start in range(0, len(rows), PIECE):
            part = self._store.box_rows(self._space, rows[start : start + PIECE])
            found[start : start + PIECE] = self._sketch.rows(part)
        return found

    def chunks(self, start: int = 0, *, size: int = CHUNK) -> Iterator[tuple[int, Floats]]:
        """All rows from `start` on, in order."""
        for first in range(start, self._count, size):
            yield first, self.read(np.arange(first, min(first + size, self._count)))


def space_rows(store: Store, space: str, shape: SpaceShape) -> SpaceRows:
    """The rows of a space."""
    sketch = Sketch.of(tuple(shape.views), shape.classes)
    return SpaceRows(store, space, sketch, sum(shape.views.values()) + sketch.directions.shape[1])


def index_folder(store: Store, space: str) -> Path:
    """Where the FAISS files of a space lie."""
    return store.space_folder(space) / "faiss"


def built(store: Store, space: str, *, exact_rows: int = EXACT_ROWS) -> str:
    """Make the index of a space, or let it grow with the pool; nothing where the pool is scored whole.

    Returns:
        its kind, "" where there is none.
    """
    shape = store.space(space)
    _, _, count = store.box_ranges(space, role="pool")
    if shape is None or int(count.sum()) <= exact_rows:
        return ""
    from curator.represent.index.faiss_index import open_index  # loads faiss

    rows, last = space_rows(store, space, shape), 0
    with progress("faiss", rows.count) as advance:

        def told(done: int, total: int) -> None:
            nonlocal last
            advance(done - last)
            last = done

        return open_index(rows, index_folder(store, space), progress=told).facts.kind
