"""How much an index must search to find what the exact scan finds: measured at build, used at search.

In: an index and its rows. Out: `Effort`s. For ranks r = 10, 100, 1000: the least width, and with it the least
number of candidates per wanted row, with which the index holds the r truly nearest rows among its candidates.
Candidates are rescored exactly, so that what they hold is found: recall@r.

k rows of a part s of all rows, drawn anyhow, lie about as deep as rank k / s of all. So one curve, rank ->
width, serves every k and every filter (`ivf` takes s from where the query lies, not from the whole).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from curator.represent.index.base import Effort, Floats, Ints, Kind, Metric, Rows, Shard
from curator.represent.index.exact import scan

GOAL = 0.97
"""recall that is aimed at, so that other queries than the measured ones reach the promised 0.95."""
RANKS = ((10, 1000), (100, 200), (1000, 50))
"""Ranks with the number of queries for each."""
FACTORS = (2, 4, 8, 16, 32, 64, 128, 256)
_CANDIDATES = 8000  # candidates of a query at most
_FEW, _CHEAPER = 8, 4  # a factor that needs no saving, and what is worth twice the lists
_GAIN, _MOSTLY = 0.002, 0.9  # more recall by twice the lists that counts for none, once most is found
_LEAST_RANKED = 10  # a rank is measured where the rows are this many times as many


def measure(
    kind: Kind, shards: Sequence[Shard], rows: Rows, *, metric: Metric, seed: int
) -> tuple[list[Effort], int]:
    """(efforts by rising rank, number of queries for rank 10)."""
    count = shards[-1].end
    random = np.random.default_rng([seed, 1])
    sample = np.sort(random.choice(count, min(count, RANKS[0][1]), replace=False))
    queries = rows.read(random.permutation(sample))
    efforts: list[Effort] = []
    start = 0
    for rank, most in RANKS:
        if rank > 10 and rank * _LEAST_RANKED > count:
            break
        asked = queries[:most]
        truth = scan(rows, asked, min(rank, count), metric=metric)[1]
        effort = _least(kind, shards, asked, truth, rank, start)
        efforts.append(effort)
        start = effort.width
    return efforts, len(queries)


def _least(
    kind: Kind, shards: Sequence[Shard], queries: Floats, truth: Ints, rank: int, start: int
) -> Effort:
    """The least width that reaches the goal; the next one where that saves most of the rescoring. Where no
    width does, the least from which on more lists find no more."""
    best: Effort | None = None
    factors = [factor for factor in FACTORS if factor * rank <= max(_CANDIDATES, FACTORS[0] * rank)]
    for width in kind.widths(shards[0].index):
        if width < start:
            continue
        found = kind.candidates(
            shards, queries, factors[-1] * rank, k=rank, width=constant(width), allowed=None
        )
        places = _places(found, truth)
        recalls = [float((places < factor * rank).mean()) for factor in factors]
        place = next((i for i, recall in enumerate(recalls) if recall >= GOAL), len(factors) - 1)
        effort = Effort(rank=rank, width=width, factor=factors[place], recall=recalls[place])
        if best is not None and best.recall >= GOAL:
            return effort if _CHEAPER * effort.factor <= best.factor else best
        if best is not None and effort.recall < min(best.recall + _GAIN, GOAL) and best.recall > _MOSTLY:
            return best
        best = effort
        if best.recall >= GOAL and best.factor <= _FEW:
            return best
    assert best is not None
    return best


def _places(found: Ints, truth: Ints) -> Ints:
    """Where in each line (Q, n) of found rows the true ones (Q, r) stand, n where they do not."""
    places = np.empty(truth.shape, np.int64)
    for line, (left, right) in enumerate(zip(found, truth, strict=True)):
        order = np.argsort(left)
        spots = np.minimum(np.searchsorted(left, right, sorter=order), len(left) - 1)
        places[line] = np.where(left[order[spots]] == right, order[spots], len(left))
    return places


def constant(width: int) -> Callable[[NDArray[np.float64]], Ints]:
    """The same width whatever the rank."""
    return lambda ranks: np.full(np.shape(ranks), width, np.int64)


def widths(efforts: Sequence[Effort], *, count: int, most: int) -> Callable[[NDArray[np.float64]], Ints]:
    """Rank -> width, straight between the measured ones in logarithms, `most` at rank `count`."""
    ranks = [float(effort.rank) for effort in efforts]
    values = [float(effort.width) for effort in efforts]
    if count > ranks[-1]:
        ranks.append(float(count))
        values.append(float(most))
    x, y = np.log(ranks), np.log(np.maximum.accumulate(np.maximum(values, 1.0)))

    def width(asked: NDArray[np.float64]) -> Ints:
        found = np.exp(np.interp(np.log(np.maximum(asked, 1.0)), x, y))
        return np.asarray(np.clip(np.ceil(found - 1e-6), 1, most), np.int64)

    return width


def factor(efforts: Sequence[Effort], k: int) -> int:
    """Candidates per wanted row for k rows: those of the next measured rank below, where more are needed."""
    below = [effort for effort in efforts if effort.rank <= max(k, efforts[0].rank)]
    return below[-1].factor
