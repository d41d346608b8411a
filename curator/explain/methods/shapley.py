"""Shapley values of segments: exactly, by enumeration, and by antithetic permutations.

In: an image, its segments (hidden ones show the fill), targets. Out: phi (M,) with
phi_i = sum_{S not holding i} |S|! (M - |S| - 1)! / M! (F(S + i) - F(S))   (Shapley, 1953).
These are the references that estimators are measured against; they cost 2^M passes, and 2 K (M - 1) + 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.game import Game, coalition_game, ends_of, segment_maps
from curator.explain.segments import keyed_draws
from curator.explain.target import scores_of
from store.records import GridMap, Pin, SegmentMap

LIMIT = 14
"""Largest M that `exact_shapley` enumerates: 16,384 passes."""


def exact_values(game: Game, count: int) -> NDArray[np.float64]:
    """Shapley values (T, M) of a game of M players by enumeration."""
    codes = np.arange(2**count)
    members = (codes[:, None] >> np.arange(count)) & 1 == 1  # (2^M, M)
    values = game(members)  # (2^M, T)
    sizes = members.sum(1)
    phi = np.zeros((values.shape[1], count))
    for i in range(count):
        without = codes[~members[:, i]]
        weight = np.array([1 / (count * math.comb(count - 1, int(size))) for size in sizes[without]])
        phi[:, i] = weight @ (values[without | 1 << i] - values[without])
    return phi


def permutation_values(
    game: Game, orders: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapley values by permutations, each walked forwards and backwards (antithetic).

    Args:
        orders: (K, M) permutations of the players.
    Returns:
        phi (T, M), unbiased, and its standard error (T, M) over the K pairs (nan for K = 1).
    """
    samples, count = orders.shape
    ends = game(np.stack([np.zeros(count, dtype=bool), np.ones(count, dtype=bool)]))  # F(0), F(1)
    pairs = []
    for order in orders:
        rank = np.argsort(order)
        shown = rank[None, :] <= np.arange(count - 1)[:, None]  # after step j + 1: (M - 1, M)
        inner = game(np.concatenate([shown, ~shown])) if count > 1 else np.zeros((0, ends.shape[1]))
        ahead = np.concatenate([ends[:1], inner[: count - 1], ends[1:]])  # F along the walk: (M + 1, T)
        back = np.concatenate([ends[1:], inner[count - 1 :], ends[:1]])
        pairs.append((np.diff(ahead, axis=0) - np.diff(back, axis=0))[rank].T / 2)  # (T, M)
    stacked = np.stack(pairs)
    error = stacked.std(0, ddof=1) / math.sqrt(samples) if samples > 1 else np.full(stacked.shape[1:], np.nan)
    return stacked.mean(0), error


class _Shapley:
    """What both methods share: turning coalitions into images of either kind of fill."""

    name: str
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name)

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Either kind of fill will do.

        Raises:
            ConfigError: too many segments for enumeration.
            InputError: shapes that do not agree, or no target.
        """
        scores = scores_of(detector, pin, targets)
        count = int(segments.max()) + 1
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        phi, error, passes = self._values(game, segments, seed=seed, image_key=image_key)
        full, empty = ends_of(game, count)
        extra = None if error is None else [{"standard_error": float(e.mean())} for e in error]
        return [*segment_maps(self.name, targets, phi, full, empty, passes=passes, extra=extra)]

    def _values(
        self, game: Game, segments: NDArray[np.uint16], *, seed: int, image_key: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, int]:
        raise NotImplementedError


class ExactShapley(_Shapley):
    """Exact Shapley values for M <= 14."""

    name = "shapley"

    def _values(
        self, game: Game, segments: NDArray[np.uint16], *, seed: int, image_key: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, int]:
        count = int(segments.max()) + 1
        if count > LIMIT:
            raise ConfigError(
                f"--method shapley: expected at most {LIMIT} segments, got {count}; use fewer "
                f"--segments, or --method permutation"
            )
        return exact_values(game, count), None, 2**count


class PermutationShapley(_Shapley):
    """Shapley values by K antithetic pairs of permutations: unbiased, with a standard error."""

    name = "permutation"

    def _values(
        self, game: Game, segments: NDArray[np.uint16], *, seed: int, image_key: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, int]:
        samples, count = self.options.samples, int(segments.max()) + 1
        draws = keyed_draws(segments, samples, self.name, seed, image_key)  # (K, M)
        phi, error = permutation_values(game, np.argsort(draws, axis=1, kind="stable"))
        return phi, error, 2 * samples * (count - 1) + 2
