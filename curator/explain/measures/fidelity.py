"""Fidelity: how near phi comes to Shapley values (METHODS.md, Measures).

symbol   meaning
phi*     the reference (M,): permutation Shapley over antithetic pairs
R        its reliability: Spearman-Brown value 2 h / (1 + h) of the correlation h of its two halves
r        Pearson correlation of phi and phi*; r / sqrt(R) is what an errorless reference would show
e        relative error ||phi - phi*|| / ||phi*||
E[rho]   mean correlation over detections with another method's map (E2X, section 4.2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from curator.errors import InputError
from curator.explain.game import Game
from curator.explain.methods.shapley import permutation_values

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """Permutation Shapley values of an image's targets and how reliable they are.

    Attributes:
        phi: (T, M). reliability: R (T,), at most 1; nan for a single pair.
        passes: forward passes that all targets shared.
    """

    phi: Array
    reliability: Array
    passes: int


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson correlation in [-1, 1] of two arrays of equal size; nan where one is constant.

    Raises:
        InputError: arrays of different sizes.
    """
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (a, b))
    if x.shape != y.shape:
        raise InputError(f"correlation: expected arrays of one size, got {x.size} and {y.size} values")
    if not x.size or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(np.clip(x @ y / norm, -1, 1)) if norm > 0 else math.nan


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman rank correlation in [-1, 1], ties at their mean rank; nan where one is constant."""
    return pearson(rankdata(np.asarray(a).ravel()), rankdata(np.asarray(b).ravel()))


def relative_error(phi: ArrayLike, reference: ArrayLike) -> float:
    """||phi - phi*|| / ||phi*||, at least 0; nan where the reference is all zero."""
    found, wanted = np.asarray(phi, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    norm = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(found - wanted)) / norm if norm > 0 else math.nan


def spearman_brown(half: float) -> float:
    """Reliability 2 h / (1 + h) of the whole from the correlation h of its halves (Spearman; Brown, 1910)."""
    return 2 * half / (1 + half) if half > -1 else -math.inf


def corrected(correlation: float, reliability: float) -> float:
    """r / sqrt(R), not clipped (chance can lift it above 1); nan where the reference has no reliability."""
    return correlation / math.sqrt(reliability) if reliability > 0 else math.nan


def shapley_reference(game: Game, orders: NDArray[np.int64]) -> Reference:
    """The reference by antithetic permutations, all targets from the same passes.

    Args:
        orders: (K, M) permutations; the halves are the even and the odd ones.
    Raises:
        InputError: no permutation.
    """
    pairs, count = orders.shape
    if not pairs:
        raise InputError("reference: expected at least one pair of permutations, got none")
    if pairs == 1:
        phi, _ = permutation_values(game, orders)
        return Reference(phi, np.full(len(phi), np.nan), 2 * (count - 1) + 2)
    even, odd = (permutation_values(game, orders[start::2])[0] for start in (0, 1))
    share = len(orders[::2]) / pairs
    reliability = [spearman_brown(pearson(a, b)) for a, b in zip(even, odd, strict=True)]
    passes = 2 * pairs * (count - 1) + 4
    return Reference(share * even + (1 - share) * odd, np.array(reliability), passes)


def expected_correlation(
    maps: Sequence[ArrayLike], references: Sequence[ArrayLike], *, ranks: bool = False
) -> float:
    """E[rho] of E2X (section 4.2): the mean over detections of a map's correlation with a reference's.

    The paper correlates feature importance values and does not say which coefficient; Pearson's is ours.
    Methods with segments of their own are compared by their densities per pixel (`maps.map_pixels`).

    Args:
        maps, references: per detection two arrays of one size. ranks: Spearman's coefficient instead.
    Returns:
        the mean over detections where neither map is constant; nan where there is none.
    Raises:
        InputError: different numbers of maps and references.
    """
    if len(maps) != len(references):
        raise InputError(f"E[rho]: expected a reference per map, got {len(maps)} and {len(references)}")
    correlate = spearman if ranks else pearson
    values = np.array([correlate(a, b) for a, b in zip(maps, references, strict=True)])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
