"""The clustered paired bootstrap behind every printed interval (percentile method; Efron, 1979).

In: values, per value the cluster it belongs to (an image, a video, a rendering) and, where networks were
trained, the training seed. Out: mean and interval, the same for the same arguments.

Values of one cluster share pixels and noise, so whole clusters are drawn, with replacement, as many as there
are. A training seed's luck is common to all clusters, so seeds are drawn too, once per replicate for all
clusters, and a value counts (times its cluster was drawn) x (times its seed was drawn): Owen's pigeonhole
bootstrap (Annals of Applied Statistics 2007), on the wide side. A comparison draws differences, so that what
both sides share cancels.

    symbol    code      meaning
    y         sums      sum of the values of each (cluster, seed), (C, S); sizes: how many
    a, b      drawn     how often a replicate drew each cluster (R, C) and each seed (R, S)
    m         means     sum(a b y) / sum(a b sizes), one per replicate

With few clusters the interval is too narrow: on normal values, a nominal 95% holds the truth in 51% of cases
with two clusters, 73% with three, 84% with five, 94% with thirty.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curator.errors import InputError

DRAWS = 2000
BLOCK = 1 << 22  # numbers drawn at once, so that memory does not grow with the clusters


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval; nan bounds where fewer than two clusters are known. `count`: values."""

    mean: float
    low: float
    high: float
    count: int

    def plain(self) -> dict[str, float | None]:
        """Plain JSON, nan as null."""
        figures = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def bootstrap_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    seeds: Sequence[Hashable] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of values (n,) and its percentile interval; nan values are left out.

    Args:
        clusters: per value the image, video or rendering it belongs to; None: each value is its own.
        seeds: per value the training seed behind it, the second level; None: there is none.
        level: of the interval, in (0, 1).
        draws: replicates. seed: keys what they draw.
    Raises:
        InputError: a cluster or a seed missing, or a level outside (0, 1).
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    of_cluster: Sequence[Hashable] = range(len(data)) if clusters is None else clusters
    of_seed: Sequence[Hashable] = [0] * len(data) if seeds is None else seeds
    if not len(data) == len(of_cluster) == len(of_seed) or not 0 < level < 1:
        raise InputError(
            "bootstrap: expected a cluster per value, a seed per value and a level in (0, 1), got "
            f"{len(of_cluster)} clusters and {len(of_seed)} seeds of {len(data)} values, and level {level}"
        )
    known = np.flatnonzero(~np.isnan(data))
    if not len(known):
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(data[known].mean())
    row, C = _numbered([of_cluster[i] for i in known.tolist()])
    column, S = _numbered([of_seed[i] for i in known.tolist()])
    if C < 2:
        return Interval(mean, math.nan, math.nan, len(known))
    cell = row * S + column
    sums = np.bincount(cell, weights=data[known], minlength=C * S).astype(np.float64).reshape(C, S)
    sizes = np.bincount(cell, minlength=C * S).reshape(C, S)
    means = _replicates(sums, sizes, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(known))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    seeds: Sequence[Hashable] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of a - b, paired value by value, and its interval; a pair that lacks either (nan) is left out.

    Raises:
        InputError: as `bootstrap_interval`, or arrays of different sizes.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(f"paired bootstrap: expected equal shapes, got {first.shape} and {second.shape}")
    return bootstrap_interval(
        first - second, clusters=clusters, seeds=seeds, level=level, draws=draws, seed=seed
    )


def _numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Names as numbers in their order of appearance, and how many differ."""
    order: dict[Hashable, int] = {}
    numbers = np.array([order.setdefault(name, len(order)) for name in names], dtype=np.int64)
    return numbers, len(order)


def _replicates(
    sums: NDArray[np.float64], sizes: NDArray[np.int64], draws: int, seed: int
) -> NDArray[np.float64]:
    """Means of the replicates (R,); those that drew no value (seeds missing in clusters) are left out."""
    C, S = sums.shape
    of_clusters = np.random.default_rng([seed, draws])
    of_seeds = np.random.default_rng([seed, draws, 1])
    block = max(1, BLOCK // max(C, S))
    means = []
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = _drawn(of_clusters, rows, C)  # (R, C)
        again = _drawn(of_seeds, rows, S)  # (R, S)
        total = ((drawn @ sums) * again).sum(1)
        count = ((drawn @ sizes) * again).sum(1)
        means.append(total[count > 0] / count[count > 0])
    return np.concatenate(means)


def _drawn(rng: np.random.Generator, rows: int, count: int) -> NDArray[np.int64]:
    """How often each of `count` was drawn in `count` draws with replacement, (rows, count)."""
    picks = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count)
