"""Which rows a search may return: what SQL says, turned into what FAISS understands.

In: ranges of rows, a mask, or numbers. Out: bits for FAISS's `IDSelectorBitmap` (a single range: its
`IDSelectorRange`), which ask one bit per row that is met; numbers for the exact scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curator.errors import InputError
from curator.represent.index.base import Ints, library

_BLOCK = 1 << 20


class Allowed:
    """Rows of an index that a search may return; make it once and ask many times.

    Args:
        mask: (N,) True for the rows that may be returned.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        if mask.ndim != 1 or mask.dtype != np.bool_:
            raise InputError(f"allowed: expected a boolean mask (N,), got {mask.dtype} {mask.shape}")
        self.mask = mask
        self.size = int(np.count_nonzero(mask))
        self.notes: dict[Any, Any] = {}
        """What a kind of index worked out for these rows."""

    @classmethod
    def of_ranges(cls, first: ArrayLike, count: ArrayLike, *, total: int) -> Allowed:
        """Rows of ranges: `count[i]` rows from `first[i]` on, of `total` rows; ranges may overlap.

        Raises:
            InputError: a range that leaves 0 .. total.
        """
        starts = np.atleast_1d(np.asarray(first, np.int64))
        counts = np.atleast_1d(np.asarray(count, np.int64))
        ends = starts + counts
        if len(starts) and (starts.min() < 0 or counts.min() < 0 or ends.max() > total):
            raise InputError(
                f"allowed: expected ranges within 0 .. {total}, got {starts.min()} .. {ends.max()}; "
                "the index is older than the rows, or the other way round"
            )
        steps = np.zeros(total + 1, np.int32)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        return cls(np.cumsum(steps[:-1]) > 0)

    @classmethod
    def of_ids(cls, ids: ArrayLike, *, total: int) -> Allowed:
        """Rows by number, of `total`.

        Raises:
            InputError: a number outside 0 .. total - 1.
        """
        numbers = np.asarray(ids, np.int64).reshape(-1)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= total):
            raise InputError(
                f"allowed: expected rows within 0 .. {total - 1}, got {numbers.min()} .. {numbers.max()}"
            )
        mask = np.zeros(total, np.bool_)
        mask[numbers] = True
        return cls(mask)

    @classmethod
    def of(cls, allowed: Allowed | ArrayLike, *, total: int) -> Allowed:
        """From a boolean mask (total,) or from row numbers."""
        if isinstance(allowed, Allowed):
            found = allowed
        else:
            values = np.asarray(allowed)
            found = cls(values) if values.dtype == np.bool_ else cls.of_ids(values, total=total)
        if len(found.mask) != total:
            raise InputError(f"allowed: expected a mask of {total} rows, got {len(found.mask)}")
        return found

    def without(self, rows: Ints) -> Allowed:
        """These rows less some; itself where it holds none of them."""
        if not self.mask[rows].any():
            return self
        mask = self.mask.copy()
        mask[rows] = False
        return Allowed(mask)

    @property
    def share(self) -> float:
        """Part of all rows, 0 to 1."""
        return self.size / max(1, len(self.mask))

    def blocks(self, size: int) -> Iterator[Ints]:
        """Numbers of the rows in rising order, at most `size` at a time."""
        for start in range(0, len(self.mask), _BLOCK):
            numbers = np.flatnonzero(self.mask[start : start + _BLOCK]) + start
            for first in range(0, len(numbers), size):
                yield numbers[first : first + size]

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """(first, end) where the rows are one range, else None."""
        if not self.size:
            return (0, 0)
        first = int(self.mask.argmax())
        end = len(self.mask) - int(self.mask[::-1].argmax())
        return (first, end) if end - first == self.size else None

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """One bit a row."""
        return np.packbits(self.mask, bitorder="little")

    def selector(self, first: int = 0) -> Any:
        """FAISS's selector for an index that calls the row `first` 0."""
        faiss = library()
        if self.span is not None:
            return faiss.IDSelectorRange(self.span[0] - first, self.span[1] - first)
        if not first:
            return faiss.IDSelectorBitmap(self.bits)
        return faiss.IDSelectorBitmap(np.packbits(self.mask[first:], bitorder="little"))
