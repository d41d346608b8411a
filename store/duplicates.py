"""Which pairs of pictures could be one: Hamming distance between 64-bit hashes, vectorised.

In: hashes. Out: which pairs lie within a distance. `candidates` finds mirrored and cropped copies too
(`store.hash_table`); `store.likeness` judges what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from store.hash_table import RADIUS, Hashes, HashTable, Near, popcount

__all__ = ["RADIUS", "Hashes", "candidates", "pairs_within", "parse_hashes", "popcount"]

_BLOCK_PAIRS = 1 << 16  # 512 KiB of distances


def parse_hashes(texts: Sequence[str]) -> Hashes:
    """Hex digits -> (N,) uint64."""
    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


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


def candidates(left: Hashes, right: Hashes) -> Iterator[Near]:
    """Yield (i, j, mirrored) of the pairs whose pictures could show one scene, by rising i.

    One of the pictures, or its mirror image, must lie near the other one or near a window of it. A pair may
    come as it is and mirrored.

    Args:
        left, right: (N, HASHES) and (M, HASHES), as `store.appearance` makes them.
    """
    if len(left) and len(right):
        yield from HashTable(right).near(left)
