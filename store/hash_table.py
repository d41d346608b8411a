"""The hashes of many pictures, kept so that those near a few others are found at the speed of the cache.

In: hashes of pictures (`store.appearance`), a few or many at a time. Out: which could show one scene.

A pair of pictures has 38 pairs of hashes: each side (the picture, its mirror image) of one against the
picture and the nine windows of the other, and the other way round. Three tests replace ten of them. The
windows of a row of the 3 x 3 lie near one another, so for a group G of hashes

    S(G)  bits that all of G agree on, of 64 (43 in a photograph)
    r     any hash of G
    min over w in G of |q ^ w|  >=  |(q ^ r) & S(G)|          |.| counts bits

and where the right side is beyond the radius (98 to 99% of the pairs), no hash of G needs to be looked at.
The answer is that of comparing all 38. Hashes lie in columns, in blocks of `ROWS` pictures that fit a core's
cache; adding pictures moves none.

Why this and no index of bits: docs/decisions/0008.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from store.appearance import HASHES

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Near = tuple[Rows, Rows, NDArray[np.bool_]]
"""(i, j, mirrored): places on the left and on the right, and whether one of the two is mirrored."""

RADIUS = 10
"""Bits of 64 up to which two pictures are compared at all: real pictures lie 32 +- 5 apart, a crop to 90% of
each side lies within 10 of a window (benchmarks/near_duplicates.py)."""
ROWS = 8192
"""Pictures in a block: 64 KiB a column."""
_AT_ONCE = 8 * ROWS  # pairs tested together: 512 KiB
_MOST = 1 << 21  # pairs held at a time, 16 MB, where one picture does not have more
_MIRROR = HASHES - 1
_ORDER = (5, 0, 4, 6, 1, 2, 3, 7, 8, 9, _MIRROR)  # columns of a block: hashes of a group beside one another
_PLACES = [_ORDER.index(number) for number in range(HASHES)]
_GROUPS = (slice(0, 4), slice(4, 7), slice(7, 10))  # middle, picture, left and right; top; bottom
_WINDOWS = ((5, 4, 6), (1, 2, 3), (7, 8, 9))  # the same without the picture itself
_COLUMNS = HASHES + len(_GROUPS)
_BITS = np.array([bin(value).count("1") for value in range(1 << 16)], dtype=np.uint8)


def popcount(values: Hashes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Number of set bits, elementwise."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values, out=out), dtype=np.uint8)
    halves = np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, 4)  # numpy 1.26
    return np.asarray(_BITS[halves].sum(-1), dtype=np.uint8)


class HashTable:
    """Hashes of pictures by their place; 112 bytes a picture, and at most one block of `ROWS` to spare."""

    def __init__(self, hashes: Hashes | None = None) -> None:
        """
        Args:
            hashes: (N, HASHES).
        """
        self._blocks: list[Hashes] = []  # (_COLUMNS, ROWS) each: hashes, then the agreed bits of each group
        self._count = 0
        if hashes is not None:
            self.append(hashes)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(block.nbytes for block in self._blocks)

    def append(self, hashes: Hashes) -> None:
        """Add (N, HASHES) after the others."""
        start = 0
        while start < len(hashes):
            place = self._count % ROWS
            if place == 0:
                self._blocks.append(np.empty((_COLUMNS, ROWS), dtype=np.uint64))
            part = hashes[start : start + ROWS - place]
            self._blocks[-1][:, place : place + len(part)] = _columns(part)
            start += len(part)
            self._count += len(part)

    def put(self, row: int, hashes: Hashes) -> None:
        """Replace those of one picture by (HASHES,)."""
        self._blocks[row // ROWS][:, row % ROWS] = _columns(hashes[None])[:, 0]

    def rows(self, rows: Rows) -> Hashes:
        """(N, HASHES) of some pictures, in their order."""
        found = np.empty((len(rows), HASHES), dtype=np.uint64)
        of_block = rows // ROWS
        for number in np.unique(of_block).tolist():
            chosen = of_block == number
            found[chosen] = self._blocks[number][np.ix_(_PLACES, rows[chosen] % ROWS)].T
        return found

    def near(self, asked: Hashes) -> Iterator[Near]:
        """Yield pictures that could show one scene with one of `asked`, by rising (i, j, mirrored).

        One of the two, or its mirror image, lies within `RADIUS` bits of the other one or of a window of it.
        A pair may come as it is and mirrored.

        Args:
            asked: (M, HASHES); hundreds at once cost a third of one at a time.
        """
        found = self._near(asked)
        if found is not None:
            if len(found[0]):
                yield found
            return
        half = len(asked) // 2  # many frames of one camera
        yield from self.near(asked[:half])
        for i, j, mirrored in self.near(asked[half:]):
            yield i + half, j, mirrored

    def _near(self, asked: Hashes) -> Near | None:
        """All pairs; None where they are too many to hold, and `asked` can be cut."""
        found: list[Rows] = []  # (i * count + j) * 2 + mirrored
        total = 0
        bits, counts = np.empty(_AT_ONCE, dtype=np.uint64), np.empty(_AT_ONCE, dtype=np.uint8)
        for number, block in enumerate(self._blocks):
            columns = block[:, : min(ROWS, self._count - number * ROWS)]
            step = _AT_ONCE // columns.shape[1]
            for start in range(0, len(asked), step):
                part = asked[start : start + step]
                shape, pairs = (len(part), columns.shape[1]), len(part) * columns.shape[1]
                room = bits[:pairs].reshape(shape), counts[:pairs].reshape(shape)
                for i, j, mirrored in _in_block(part, columns, *room):
                    found.append(((i + start) * self._count + j + number * ROWS) * 2 + mirrored)
                    total += len(i)
            if total > _MOST:
                found = [np.unique(np.concatenate(found))]
                total = len(found[0])
                if total > _MOST and len(asked) > 1:
                    return None
        # several hashes of a pair may be near
        keys = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
        i, j = np.divmod(keys // 2, max(1, self._count))
        return i, j, (keys % 2).astype(bool)


def _columns(hashes: Hashes) -> Hashes:
    """(N, HASHES) -> (_COLUMNS, N): hashes in `_ORDER`, then the bits that the hashes of each group share."""
    ordered = np.ascontiguousarray(hashes[:, _ORDER].T)
    return np.concatenate([ordered, np.stack([_agreed(ordered[group]) for group in _GROUPS])])


def _agreed(group: Hashes) -> Hashes:
    """(G, N) -> (N,) bits that all of a group share."""
    return np.asarray(~(np.bitwise_or.reduce(group, axis=0) & ~np.bitwise_and.reduce(group, axis=0)))


def _in_block(
    asked: Hashes, columns: Hashes, bits: Hashes, counts: NDArray[np.uint8]
) -> Iterator[tuple[Rows, Rows, bool]]:
    """(i, j, mirrored) by group of hashes, so that a pair may come more than once.

    Args:
        asked: (m, HASHES). columns: (_COLUMNS, n). bits, counts: (m, n) to work in.
    """
    windows = [np.ascontiguousarray(asked[:, group].T) for group in _WINDOWS]
    agreed = [_agreed(group)[:, None] for group in windows]
    for side in (0, _MIRROR):
        own, other = asked[:, side], columns[_PLACES[side]]
        for number, place in enumerate(_GROUPS):  # a side of `asked`, hashes of the table
            np.bitwise_xor(own[:, None], columns[place.start], out=bits)
            np.bitwise_and(bits, columns[HASHES + number], out=bits)
            i, j = _within(bits, counts)
            if len(i):
                near = _any_within(columns[place].take(j, axis=1), own.take(i))
                yield i[near], j[near], side == _MIRROR
        for group, shared in zip(windows, agreed, strict=True):  # windows of `asked`, a side of the table
            np.bitwise_xor(group[0][:, None], other, out=bits)
            np.bitwise_and(bits, shared, out=bits)
            i, j = _within(bits, counts)
            if len(i):
                near = _any_within(group.take(i, axis=1), other.take(j))
                yield i[near], j[near], side == _MIRROR


def _within(bits: Hashes, counts: NDArray[np.uint8]) -> tuple[Rows, Rows]:
    """Places (i, j) with at most `RADIUS` bits set."""
    flat = np.flatnonzero(popcount(bits, out=counts) <= RADIUS)
    if len(bits) == 1:
        return np.zeros_like(flat), flat
    i = flat // bits.shape[1]
    return i, flat - i * bits.shape[1]


def _any_within(group: Hashes, one: Hashes) -> NDArray[np.bool_]:
    """(G, N) and (N,) -> (N,) is a hash of the group within `RADIUS` bits."""
    return np.asarray(popcount(group ^ one).min(axis=0) <= RADIUS)
