"""What a picture looks like, small enough to keep: hashes to look it up by, and a thumbnail to compare it by.

In: pixels. Out: an `Appearance`.

hashes     11 hashes of 64 bits: of the picture, of nine windows of 92% of each side (corners, edges, middle),
           so that a crop lies near one of them, and of the mirror image. Each says which of the 8 x 8 lowest
           DCT coefficients of 32 x 32 grey blocks exceed their median (Zauner 2010, as `imagehash.phash`).
thumbnail  means of 64 x 64 blocks of luma and of 32 x 32 blocks of the two colour differences, uint8
           (ITU-R BT.601 as in JPEG), 6,144 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Doubles = NDArray[np.float64]
Window = tuple[float, float, float, float]
"""(top, bottom, left, right) as fractions of the picture."""

LUMA, COLOUR = 64, 32
"""Blocks a side."""
FULL: Window = (0.0, 1.0, 0.0, 1.0)
_SIDE = 236 / 256
WINDOWS: tuple[Window, ...] = (
    FULL,
    *(
        (y, y + _SIDE, x, x + _SIDE)
        for y in (0.0, (1 - _SIDE) / 2, 1 - _SIDE)
        for x in (0.0, (1 - _SIDE) / 2, 1 - _SIDE)
    ),
)
HASHES = len(WINDOWS) + 1
"""Hashes a picture: of `WINDOWS` in order, then of the mirror image."""
_GRID, _LOW = 32, 8
_BYTES = LUMA * LUMA + 2 * COLOUR * COLOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """Plain bytes, as they are stored.

    Attributes:
        hashes: `HASHES` unsigned 64-bit numbers, little-endian.
        thumbnail: luma, then blue and red colour difference, rows first.
    """

    hashes: bytes
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Planes:
    """A thumbnail as numbers: luma (LUMA, LUMA) in [0, 255], colour (COLOUR, COLOUR, 2) about 0."""

    luma: Doubles
    colour: Doubles

    def mirrored(self) -> Planes:
        """The mirror image."""
        return Planes(self.luma[:, ::-1], self.colour[:, ::-1])


def appearance(image: Image.Image | NDArray[np.uint8]) -> Appearance:
    """Describe an RGB picture of any size."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    factor = min(picture.size) // (4 * LUMA)
    if factor > 1:  # exact means of whole pixels first: the rest is fast
        picture = picture.reduce(factor)
    pixels = np.asarray(picture.convert("YCbCr"), dtype=np.float32)
    luma = _means(pixels[..., 0], LUMA)
    colours = [_means(pixels[..., c], COLOUR) for c in (1, 2)]
    return Appearance(
        hashes=_hashes(luma.astype(np.float64)).astype("<u8").tobytes(),
        thumbnail=b"".join(blocks.tobytes() for blocks in (luma, *colours)),
    )


def _means(plane: NDArray[np.float32], count: int) -> NDArray[np.uint8]:
    """Exact means of count x count blocks, parts of pixels included: Pillow's box filter takes whole ones."""
    rows, columns = (resampling(0.0, 1.0, count, size).astype(np.float32) for size in plane.shape)
    return np.asarray(np.rint(rows @ plane @ columns.T), dtype=np.uint8)


def planes(thumbnail: bytes) -> Planes:
    """The numbers of a stored thumbnail.

    Raises:
        ValueError: another number of bytes.
    """
    if len(thumbnail) != _BYTES:
        raise ValueError(f"thumbnail: expected {_BYTES} bytes, got {len(thumbnail)}")
    numbers = np.frombuffer(thumbnail, dtype=np.uint8).astype(np.float64)
    luma, colour = numbers[: LUMA * LUMA], numbers[LUMA * LUMA :] - 128
    return Planes(
        luma.reshape(LUMA, LUMA), np.moveaxis(colour.reshape(2, COLOUR, COLOUR), 0, -1)
    )


@lru_cache(maxsize=20_000)
def resampling(low: float, high: float, count: int, size: int) -> Doubles:
    """(count, size) matrix of means: the stretch [low, high] of an axis of `size` blocks, in `count`."""
    edges = (low + (high - low) * np.arange(count + 1) / count) * size
    blocks = np.arange(size)
    shared = np.minimum(edges[1:, None], blocks + 1) - np.maximum(edges[:-1, None], blocks)
    shared = np.clip(shared, 0, None)
    matrix: Doubles = shared / shared.sum(1, keepdims=True)
    return matrix


@lru_cache(maxsize=64)
def _to_frequencies(low: float, high: float) -> Doubles:
    """(8, LUMA): the lowest DCT-II coefficients of a stretch of an axis."""
    k, x = np.arange(_LOW)[:, None], np.arange(_GRID)[None]
    cosines = np.cos(np.pi * (2 * x + 1) * k / (2 * _GRID))
    matrix: Doubles = cosines @ resampling(low, high, _GRID, LUMA)
    return matrix


def _hashes(luma: Doubles) -> NDArray[np.uint64]:
    low = np.stack(
        [_to_frequencies(t, b) @ luma @ _to_frequencies(le, r).T for t, b, le, r in WINDOWS]
    )
    mirror = low[0] * (-1.0) ** np.arange(_LOW)  # odd cosines change their sign
    flat = np.concatenate([low, mirror[None]]).reshape(HASHES, _LOW * _LOW)
    bits = np.round(flat, 6) > np.median(np.round(flat, 6), axis=1, keepdims=True)
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64).ravel()
