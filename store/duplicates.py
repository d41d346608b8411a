"""Which pairs of pictures could be one: Hamming distance between 64-bit hashes, vectorised.

In: hashes. Out: which pairs lie within a distance. XOR and population count of N x M pairs in blocks, so that
memory stays flat. `candidates` finds mirrored and cropped copies too; `store.likeness` judges what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from store.appearance import HASHES

Hashes = NDArray[np.uint64]

RADIUS = 12
"""Bits of 64 up to which two pictures are compared at all: real pictures lie 32 +- 5 apart, a crop to 90% of
each side lies within 12 of a window (benchmarks/near_duplicates.py)."""
_BLOCK_PAIRS = 500_000
_BITS = np.array([bin(value).count("1") for value in range(1 << 16)], dtype=np.uint8)


def parse_hashes(texts: Sequence[str]) -> Hashes:
    """Hex digits -> (N,) uint64."""
    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


def popcount(values: Hashes) -> NDArray[np.uint8]:
    """Number of set bits, elementwise."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values), dtype=np.uint8)
    halves = np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, 4)  # numpy 1.26
    return np.asarray(_BITS[halves].sum(-1), dtype=np.uint8)


def pairs_within(
    left: Hashes, right: Hashes, distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield index arrays (i, j) of the pairs with Hamming distance(left[i], right[j]) <= `distance`."""
    if not len(left) or not len(right):
        return
    step = max(1, _BLOCK_PAIRS // len(right))
    for start in range(0, len(left), step):
        close = popcount(left[start : start + step, None] ^ right[None, :]) <= distance
        i, j = np.nonzero(close)
        if len(i):
            yield i + start, j


def candidates(
    left: Hashes, right: Hashes
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield (i, j, mirrored) of the pairs whose pictures could show one scene, by rising i.

    One of the pictures, or its mirror image, must lie near the other one or near a window of it. A pair may
    come as it is and mirrored.

    Args:
        left, right: (N, HASHES) and (M, HASHES), as `store.appearance` makes them.
    """
    if not len(left) or not len(right):
        return
    step = max(1, _BLOCK_PAIRS // len(right))
    mirror = HASHES - 1
    for start in range(0, len(left), step):
        own = left[start : start + step]
        found = []
        for side in (0, mirror):
            near = np.zeros((len(own), len(right)), dtype=bool)
            for window in range(mirror):
                near |= popcount(own[:, None, side] ^ right[None, :, window]) <= RADIUS
                if window:
                    near |= popcount(own[:, None, window] ^ right[None, :, side]) <= RADIUS
            i, j = np.nonzero(near)
            found.append((i, j, np.full(len(i), side == mirror)))
        i, j, mirrored = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((mirrored, j, i))
        if len(i):
            yield i[order] + start, j[order], mirrored[order]
