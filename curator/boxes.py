"""Box arithmetic on numpy arrays; boxes are (x1, y1, x2, y2) in absolute pixels, no +1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def area(boxes: ArrayLike) -> Array:
    """Areas (...,) in square pixels of boxes (..., 4); degenerate boxes have 0."""
    b = np.asarray(boxes, dtype=np.float64)
    return np.clip(b[..., 2] - b[..., 0], 0, None) * np.clip(b[..., 3] - b[..., 1], 0, None)


def intersection(a: ArrayLike, b: ArrayLike) -> Array:
    """Intersection areas (N, M) of boxes a (N, 4) and b (M, 4)."""
    a = np.asarray(a, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(b, dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    side = np.clip(high - low, 0, None)
    return np.asarray(side[..., 0] * side[..., 1])


def iou(a: ArrayLike, b: ArrayLike) -> Array:
    """Intersection over union (N, M) in [0, 1] of boxes a (N, 4) and b (M, 4); 0 where both are empty."""
    both = intersection(a, b)
    a = np.asarray(a, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(b, dtype=np.float64).reshape(-1, 4)
    union = area(a)[:, None] + area(b)[None, :] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def paired_iou(a: ArrayLike, b: ArrayLike) -> Array:
    """Intersection over union (N,) of boxes a (N, 4) with boxes b (N, 4), one by one."""
    a, b = (np.asarray(x, dtype=np.float64).reshape(-1, 4) for x in (a, b))
    side = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    both: Array = side[:, 0] * side[:, 1]
    union = area(a) + area(b) - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def clip(boxes: ArrayLike, width: float, height: float) -> Array:
    """Clip boxes (..., 4) to an image of width x height pixels."""
    b = np.array(boxes, dtype=np.float64)
    b[..., 0::2] = np.clip(b[..., 0::2], 0, width)
    b[..., 1::2] = np.clip(b[..., 1::2], 0, height)
    return b


def expand(boxes: ArrayLike, factor: float) -> Array:
    """Scale boxes (..., 4) about their centres by `factor` per side."""
    b = np.asarray(boxes, dtype=np.float64)
    centre = (b[..., :2] + b[..., 2:]) / 2
    half = (b[..., 2:] - b[..., :2]) / 2 * factor
    return np.concatenate([centre - half, centre + half], axis=-1)
