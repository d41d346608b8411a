"""Bootstrap intervals over targets (Efron, 1979; percentile method), keyed by a seed.

In: a value per target, and optionally the image that each target lies on. Out: mean and interval. Targets of
one image are drawn together where images are given, since they share pixels and noise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from curator.errors import InputError

DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval; nan bounds where fewer than two targets (or images) are known."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of values (n,) and its percentile interval; nan values are left out.

    Args:
        clusters: per value the image it belongs to; whole images are drawn.
        level: of the interval, in (0, 1).
    Raises:
        InputError: a cluster missing, or a level outside (0, 1).
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    names = list(range(len(data))) if clusters is None else list(clusters)
    if len(names) != len(data) or not 0 < level < 1:
        raise InputError(
            f"bootstrap: expected a cluster per value and a level in (0, 1), got {len(names)} clusters of "
            f"{len(data)} values and level {level}"
        )
    known = np.flatnonzero(~np.isnan(data))
    if not len(known):
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(data[known].mean())
    order: dict[Hashable, int] = {}
    owner = np.array([order.setdefault(names[i], len(order)) for i in known])
    if len(order) < 2:
        return Interval(mean, math.nan, math.nan, len(known))
    sums, sizes = np.bincount(owner, weights=data[known]), np.bincount(owner)  # per cluster
    drawn = np.random.default_rng([seed, draws]).integers(0, len(order), (draws, len(order)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(known))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of a - b over targets and its interval; a target that either lacks (nan) is left out.

    Raises:
        InputError: as `bootstrap_interval`, or arrays of different sizes.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(f"paired bootstrap: expected equal shapes, got {first.shape} and {second.shape}")
    return bootstrap_interval(first - second, clusters=clusters, level=level, draws=draws, seed=seed)
