"""How alike maps of one target are, under different seeds, patch sizes, segment counts (G-methods, 4.4).

In: densities (h, w) of one size. Out: SSIM (Wang et al., 2004), Pearson correlation of HOG features (Dalal &
Triggs, CVPR 2005) and Spearman rank correlation, by scikit-image and SciPy. SSIM needs a range: each map is
divided by its largest |value|, so that it lies in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from skimage.feature import hog
from skimage.metrics import structural_similarity

from curator.errors import InputError
from curator.explain.measures.fidelity import pearson, spearman
from curator.represent.pixel_maps import Array

_CELL = 16  # px of a HOG cell; blocks of 3 x 3 cells and 9 orientations are scikit-image's defaults


@dataclass(frozen=True, slots=True)
class Similarity:
    """Three similarities, at most 1 each; nan where a map is constant and the measure has no value."""

    ssim: float
    hog: float
    spearman: float


def similarity(a: Array, b: Array) -> Similarity:
    """Compare two maps (h, w).

    Raises:
        InputError: maps of different sizes, or smaller than three HOG cells (48 px).
    """
    if a.shape != b.shape or min(a.shape) < 3 * _CELL:
        raise InputError(
            f"similarity: expected two maps of one size of at least {3 * _CELL} px, got {a.shape} and "
            f"{b.shape}"
        )
    first, second = _scaled(a), _scaled(b)
    features = [
        hog(m, pixels_per_cell=(_CELL, _CELL), cells_per_block=(3, 3), block_norm="L2-Hys")
        for m in (first, second)
    ]
    return Similarity(
        ssim=float(structural_similarity(first, second, data_range=2.0)),  # type: ignore[no-untyped-call]
        hog=pearson(*features),
        spearman=spearman(first, second),
    )


def mean_similarity(maps: Sequence[Array]) -> Similarity:
    """The mean over all pairs of k maps of one target (k (k - 1) / 2, as in G-methods), nan left out.

    Raises:
        InputError: fewer than two maps, or as `similarity`.
    """
    if len(maps) < 2:
        raise InputError(f"similarity: expected at least 2 maps, got {len(maps)}")
    pairs = [similarity(a, b) for a, b in combinations(maps, 2)]
    return Similarity(
        ssim=_mean([p.ssim for p in pairs]),
        hog=_mean([p.hog for p in pairs]),
        spearman=_mean([p.spearman for p in pairs]),
    )


def _scaled(values: Array) -> Array:
    largest = float(np.abs(values).max(initial=0.0))
    return np.asarray(values / largest if largest > 0 else values, dtype=np.float64)


def _mean(values: Sequence[float]) -> float:
    known = np.array(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
