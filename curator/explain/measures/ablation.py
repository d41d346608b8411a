"""Filter ablation: does the network need the filters that a method calls relevant (VEBI, Fig. 4)?

In: filters, the most relevant first, and a callable that scores the network with some of them set to zero.
Out: the score over the number of filters removed, beside random filters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError

Filter = TypeVar("Filter", bound=Hashable)


@dataclass(frozen=True, slots=True)
class AblationCurve:
    """Scores (n,) after the first counts[i] filters were removed, such as mean classification accuracy."""

    counts: NDArray[np.int64]
    scores: NDArray[np.float64]


def ablation_curve(
    score_with_filters_ablated: Callable[[Sequence[Filter]], float],
    filters: Sequence[Filter],
    counts: Sequence[int],
) -> AblationCurve:
    """Remove ever more of the ranked filters; the more relevant they are, the faster the score falls.

    Args:
        score_with_filters_ablated: the score of the network with these filters' activations set to zero.
        filters: ranked, the most relevant first. counts: how many to remove at each point.
    Raises:
        InputError: a count outside 0 to the number of filters.
    """
    if any(not 0 <= count <= len(filters) for count in counts):
        raise InputError(f"ablation: expected counts of 0 to {len(filters)}, got {list(counts)}")
    scores = [score_with_filters_ablated(filters[:count]) for count in counts]
    return AblationCurve(np.array(counts, dtype=np.int64), np.array(scores, dtype=np.float64))


def random_ablation_curve(
    score_with_filters_ablated: Callable[[Sequence[Filter]], float],
    pool: Sequence[Filter],
    counts: Sequence[int],
    *,
    draws: int = 5,
    seed: int = 0,
) -> AblationCurve:
    """The mean curve of random rankings of all filters (VEBI, Fig. 4, "Random").

    Raises:
        InputError: as `ablation_curve`, or no draw.
    """
    if draws < 1:
        raise InputError(f"ablation: expected at least 1 draw, got {draws}")
    curves = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(pool))
        curves.append(ablation_curve(score_with_filters_ablated, [pool[i] for i in order], counts).scores)
    return AblationCurve(np.array(counts, dtype=np.int64), np.mean(curves, axis=0))
