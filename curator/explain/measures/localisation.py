"""Does a map lie on the object: boxes from thresholds, pointing game, energy inside, IoU with a mask.

In: densities (h, w) in the input frame (`maps.map_pixels`), boxes or masks in the same frame. Out: numbers.
Only what raises the target counts: a map's negative part is read as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from curator.boxes import iou
from curator.errors import InputError
from curator.represent.pixel_maps import Array, Point, Size, positive_share
from store.records import BoxTuple

Mask = NDArray[np.bool_]

ALPHAS = np.arange(20) * 0.05
"""Thresholds as shares of the map's maximum, 0 to 0.95 (G-methods, section 4.3)."""
TOLERANCE = 15.0
"""Pixels by which the pointing game may miss (Zhang et al., IJCV 2018)."""


def box_mask(box: BoxTuple, size: Size) -> Mask:
    """Pixels (h, w) whose centres lie in a box of the input frame."""
    x1, y1, x2, y2 = box
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    return np.asarray(((rows >= y1) & (rows < y2))[:, None] & ((columns >= x1) & (columns < x2))[None, :])


def box_at(pixels: Array, alpha: float) -> BoxTuple | None:
    """The smallest box around all pixels of at least alpha times the map's maximum (G-methods, section 4.3).

    None where nothing is above 0.
    """
    strength = positive_share(pixels)
    if not strength.any():
        return None
    rows, columns = np.nonzero(strength >= alpha)
    return (
        float(columns.min()),
        float(rows.min()),
        float(columns.max() + 1),
        float(rows.max() + 1),
    )


def box_overlaps(pixels: Array, box: BoxTuple, alphas: ArrayLike = ALPHAS) -> Array:
    """IoU (A,) of `box_at` each threshold with the object's box; 0 where the map gives no box."""
    found = [box_at(pixels, float(alpha)) for alpha in np.asarray(alphas)]
    return np.array([0.0 if b is None else float(iou([b], [box])[0, 0]) for b in found])


@dataclass(frozen=True, slots=True)
class Chosen:
    """A measure at the threshold that held-out images chose.

    Attributes:
        alpha: the threshold. value: mean over the tested images. held_out: over those that chose it.
    """

    alpha: float
    value: float
    held_out: float


def chosen_on_held_out(
    tested: Mapping[str, ArrayLike], held_out: Mapping[str, ArrayLike], *, alphas: ArrayLike = ALPHAS
) -> Chosen:
    """A measure whose threshold was chosen on other images than it is measured on.

    Args:
        tested, held_out: per image (or target) key the measure (A,) at each threshold, smaller is better.
    Returns:
        at the first threshold of the least mean over `held_out`.
    Raises:
        InputError: a key in both, an empty side, or values that are not one per threshold.
    """
    shared = sorted(set(tested) & set(held_out))
    if shared or not tested or not held_out:
        raise InputError(
            f"threshold: expected tested and held-out images without a common one, got {len(tested)} and "
            f"{len(held_out)} with {len(shared)} common"
        )
    grid = np.asarray(alphas, dtype=np.float64)
    tables = [
        np.array([np.asarray(v, dtype=np.float64) for v in side.values()]) for side in (tested, held_out)
    ]
    for table in tables:
        if table.shape[1:] != grid.shape:
            raise InputError(f"threshold: expected {len(grid)} values per image, got {table.shape[1:]}")
    means = tables[1].mean(0)
    best = int(means.argmin())
    return Chosen(float(grid[best]), float(tables[0][:, best].mean()), float(means[best]))


def localisation_error(
    tested: Mapping[str, ArrayLike],
    held_out: Mapping[str, ArrayLike],
    *,
    overlap: float = 0.5,
    alphas: ArrayLike = ALPHAS,
) -> Chosen:
    """Share of objects whose box is missed (IoU below `overlap`), the threshold chosen on held-out images.

    Args:
        tested, held_out: per key the IoUs (A,) of `box_overlaps`.
    Raises:
        InputError: as `chosen_on_held_out`.
    """
    missed = [
        {key: (np.asarray(v) < overlap).astype(np.float64) for key, v in side.items()}
        for side in (tested, held_out)
    ]
    return chosen_on_held_out(*missed, alphas=alphas)


def points_at_box(point: Point | None, box: BoxTuple, tolerance: float = TOLERANCE) -> bool:
    """Pointing game: does the point lie at most `tolerance` px from a box? No point is a miss."""
    if point is None:
        return False
    x, y = point
    away = max(box[0] - x, 0.0, x - box[2]), max(box[1] - y, 0.0, y - box[3])
    return math.hypot(*away) <= tolerance


def points_at_mask(point: Point | None, mask: Mask, tolerance: float = TOLERANCE) -> bool:
    """Pointing game: does the point lie at most `tolerance` px from a mask's pixel (its centre)?"""
    if point is None or not mask.any():
        return False
    rows, columns = np.nonzero(mask)
    x, y = point
    inside = (np.floor(x) == columns) & (np.floor(y) == rows)
    return bool(inside.any() or np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() <= tolerance)


def energy_inside(pixels: Array, inside: Mask) -> float:
    """Share in [0, 1] of a map's positive mass that lies inside a box's or an object's mask; 0 without mass.

    Raises:
        InputError: a mask of another size.
    """
    if pixels.shape != inside.shape:
        raise InputError(f"energy: expected a mask of {pixels.shape}, got {inside.shape}")
    strength = np.clip(pixels, 0, None)
    total = float(strength.sum())
    return float(strength[inside].sum()) / total if total > 0 else 0.0


def mask_overlaps(pixels: Array, mask: Mask, thresholds: ArrayLike) -> Array:
    """IoU (A,) of a mask with the pixels of at least each share of the map's maximum (VEBI, section 4.4).

    All pixels where the threshold is 0; none where nothing is above 0 and the threshold is.

    Raises:
        InputError: a mask of another size.
    """
    if pixels.shape != mask.shape:
        raise InputError(f"IoU: expected a mask of {pixels.shape}, got {mask.shape}")
    strength = positive_share(pixels)
    values = []
    for threshold in np.asarray(thresholds):
        shown = strength >= threshold
        union = int((shown | mask).sum())
        values.append(int((shown & mask).sum()) / union if union else 0.0)
    return np.array(values)


def overlap_area(pixels: Array, mask: Mask, steps: int = 20) -> float:
    """Area in [0, 1] under IoU against threshold, 0 to 1 (VEBI, Figs. 8 and 9), by the trapezoid rule."""
    thresholds = np.linspace(0, 1, steps + 1)
    return float(trapezoid(mask_overlaps(pixels, mask, thresholds), thresholds))
