"""Near-duplicates by perceptual hash: Hamming distance between 64-bit hashes, vectorised.

In: hashes as 16 hex digits. Out: which pairs lie within a distance. XOR and population count of N x M pairs
in blocks, so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_BLOCK_PAIRS = 2_000_000
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
