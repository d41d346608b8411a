"""Maps of either kind as a density per pixel and as a value per segment.

In: a `SegmentMap` or `GridMap`, segment labels (h, w). Out: (h, w) density in units of the target per input
pixel; (M,) values in units of the target; the point that a map singles out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError
from curator.represent.heatmap import density
from store.records import GridMap, SegmentMap

Array = NDArray[np.float64]
Labels = NDArray[np.uint16]
Map = SegmentMap | GridMap
Point = tuple[float, float]
Size = tuple[int, int]


def map_pixels(explained: Map, labels: Labels | None, size: Size) -> Array:
    """Density (h, w) of a map.

    Segments show phi_i / |S_i|. A grid's cell of scale[0] x scale[1] px shows its value per pixel,
    interpolated linearly between the cells' centres and constant beyond the outermost ones.

    Args:
        labels: (h, w) segments; a grid needs none. size: (h, w) of the input frame.
    Raises:
        InputError: a segment map without labels, or labels of another size or with segments that have no phi.
    """
    if isinstance(explained, SegmentMap):
        checked = _checked(explained, labels, size)
        return np.asarray(density(checked, explained.phi)[checked], dtype=np.float64)
    per_pixel = explained.values.astype(np.float64) / (explained.scale[0] * explained.scale[1])
    (top, bottom, down), (left, right, along) = (
        _between(
            size[axis], explained.values.shape[axis], explained.scale[1 - axis], explained.offset[1 - axis]
        )
        for axis in (0, 1)
    )
    rows = per_pixel[top] * (1 - down)[:, None] + per_pixel[bottom] * down[:, None]  # (h, columns)
    return np.asarray(rows[:, left] * (1 - along) + rows[:, right] * along)


def _between(
    pixels: int, cells: int, scale: float, offset: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """For each pixel centre along one axis: the cells before and after it and how far it is between them."""
    place = ((np.arange(pixels) + 0.5 - offset) / scale).clip(0, cells - 1)
    before = np.floor(place).astype(np.int64)
    return before, np.minimum(before + 1, cells - 1), place - before


def _checked(explained: SegmentMap, labels: Labels | None, size: Size) -> Labels:
    if labels is None or labels.shape != tuple(size):
        got = None if labels is None else labels.shape
        raise InputError(f"a segment map: expected labels of {tuple(size)}, got {got}")
    if int(labels.max()) >= len(explained.phi):
        raise InputError(
            f"a segment map: expected phi of {int(labels.max()) + 1} segments, got {len(explained.phi)}"
        )
    return labels


def segment_values(explained: Map, labels: Labels) -> Array:
    """One value per segment (M,): phi itself, or the sum of a grid's density over each segment.

    Raises:
        InputError: as `map_pixels`.
    """
    if isinstance(explained, SegmentMap):
        _checked(explained, labels, (labels.shape[0], labels.shape[1]))
        return explained.phi.astype(np.float64)
    pixels = map_pixels(explained, None, (labels.shape[0], labels.shape[1]))
    return np.asarray(np.bincount(labels.ravel(), weights=pixels.ravel()), dtype=np.float64)


def strongest_point(explained: Map, labels: Labels) -> Point | None:
    """Where a map points: the centroid (x, y) of its densest segment, or the centre of its largest cell.

    The first of several equals; None where nothing is above 0.
    """
    if isinstance(explained, SegmentMap):
        _checked(explained, labels, (labels.shape[0], labels.shape[1]))
        values = density(labels, explained.phi)
        best = int(values.argmax())
        if not values[best] > 0:
            return None
        rows, columns = np.nonzero(labels == best)
        return float(columns.mean() + 0.5), float(rows.mean() + 0.5)
    row, column = np.unravel_index(int(explained.values.argmax()), explained.values.shape)
    if not explained.values[row, column] > 0:
        return None
    return (
        float(explained.scale[0] * column + explained.offset[0]),
        float(explained.scale[1] * row + explained.offset[1]),
    )


def positive_share(pixels: Array) -> Array:
    """Density (h, w) -> its positive part over its maximum, in [0, 1]; all 0 where nothing is above 0."""
    strength = np.clip(pixels, 0, None)
    largest = strength.max(initial=0.0)
    return np.asarray(strength / largest if largest > 0 else strength)
