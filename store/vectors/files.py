"""Columns: append-only files of rows of one type and width.

In: rows and how many are committed. Out: rows by number. Rows are written and synced first, then counted in
SQL, so that a kill leaves at most an uncounted tail, which is written over or cut off later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptionError
from store.records import Ints

DENSE = 0.5
"""Rows are read in one stretch where at least this share of it is asked for; else one by one."""


class ColumnFile:
    """Rows of `width` values of one type (little-endian).

    Args:
        dtype: numpy's name, such as "<u2".
    """

    def __init__(self, path: Path, dtype: str, width: int) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.width = width
        self._bytes = self.dtype.itemsize * width

    def write(self, position: int, rows: NDArray[Any]) -> None:
        """Write rows (N, width) from row `position` on, over any uncounted tail; not yet synced.

        Raises:
            CorruptionError: the file is shorter than `position` rows.
        """
        self._check(position)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "x+b") as stream:
            stream.truncate(position * self._bytes)
            stream.seek(0, os.SEEK_END)
            stream.write(np.ascontiguousarray(rows, self.dtype).reshape(-1, self.width).tobytes())

    def sync(self) -> None:
        """Have the operating system put all rows on disk."""
        with open(self.path, "r+b") as stream:
            os.fsync(stream.fileno())

    def read(self, rows: Ints, count: int) -> NDArray[Any]:
        """Rows at `rows` (N,) of the `count` committed ones, in that order -> (N, width).

        Raises:
            CorruptionError: the file is shorter than recorded.
        """
        self._check(count)
        if not len(rows):
            return np.zeros((0, self.width), self.dtype)
        mapped = np.memmap(self.path, dtype=self.dtype, mode="r", shape=(count, self.width))
        first, last = int(rows.min()), int(rows.max())
        stretch = last + 1 - first
        if stretch == len(rows) and (np.diff(rows) == 1).all():
            return np.array(mapped[first : last + 1])
        if len(rows) >= DENSE * stretch:
            return np.array(mapped[first : last + 1])[rows - first]
        return np.array(mapped[rows])

    def tail(self, count: int) -> bool:
        """True when the file goes on after `count` rows."""
        return self.path.exists() and self.path.stat().st_size > count * self._bytes

    def truncate(self, count: int) -> None:
        """Cut off what follows `count` rows."""
        if self.tail(count):
            with open(self.path, "r+b") as stream:
                stream.truncate(count * self._bytes)

    def _check(self, count: int) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < count * self._bytes:
            raise CorruptionError(
                f"{self.path}: expected {count} rows of {self._bytes} bytes, got {size} bytes; "
                "restore the file from a backup, or make a new workspace and run `curator index` there"
            )
