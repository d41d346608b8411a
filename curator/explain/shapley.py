"""Shapley values of segments: exactly, by enumeration, and by antithetic permutations.

In: an image, its segments (hidden ones show the fill), targets. Out: phi (M,) with
phi_i = sum_{S not holding i} |S|! (M - |S| - 1)! / M! (F(S + i) - F(S))   (Shapley, 1953).
These are the references that estimators are measured against; they cost 2^M passes, and 2 K (M - 1) + 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, HoleFill, Target
from curator.explain.masked import MaskedImages
from curator.explain.precision import Precision, autocast, choose
from curator.explain.segments import keyed_draws
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap

LIMIT = 14
"""Largest M that `exact_shapley` enumerates: 16,384 passes."""

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Coalitions (n, M) of shown segments -> F (n, T)."""


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
    continuous = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()

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
        """Explain every target of an image, with either kind of fill; see `curator.explain.base.Attribution`.

        Raises:
            ConfigError: too many segments for enumeration.
            InputError: shapes that do not agree, or no target.
        """
        scores = TargetScores(detector, pin, targets)
        baseline = fill.baseline(image, detector) if fill.continuous else image
        masked = MaskedImages(scores, image, baseline, segments, batch_size=self.options.batch_size)
        precision: Precision = "fp32"
        game: Game
        if fill.continuous:

            def trial(candidate: Precision) -> NDArray[np.float64]:
                return masked.evaluate(np.eye(masked.count, dtype=np.float32)[:4], candidate)

            precision = choose(self.options.precision, detector, image.device, trial)

            def game(members: NDArray[np.bool_]) -> NDArray[np.float64]:
                return masked.evaluate(members.astype(np.float32), precision)
        else:
            if self.options.precision == "bf16":
                precision = "bf16"
            game = _hole_game(scores, image, segments, fill, seed, self.options.batch_size, precision)
        phi, error, passes = self._values(game, segments, seed=seed, image_key=image_key)
        full, empty = game(np.stack([np.ones(masked.count, dtype=bool), np.zeros(masked.count, dtype=bool)]))
        return [
            SegmentMap(
                phi=phi[t].astype(np.float32),
                full=float(full[t]),
                empty=float(empty[t]),
                gap=float(full[t] - empty[t] - phi[t].sum()),
                passes=passes,
                evidence=bool(np.abs(phi[t]).max() > EVIDENCE_FLOOR[target.kind]),
                extra={} if error is None else {"standard_error": float(error[t].mean())},
            )
            for t, target in enumerate(targets)
        ]

    def _values(
        self, game: Game, segments: NDArray[np.uint16], *, seed: int, image_key: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, int]:
        raise NotImplementedError


def _hole_game(
    scores: TargetScores,
    image: Tensor,
    segments: NDArray[np.uint16],
    fill: HoleFill,
    seed: int,
    batch_size: int,
    precision: Precision,
) -> Game:
    """Hidden segments are one hole, filled at once."""
    labels = torch.from_numpy(segments.astype(np.int64)).to(image.device)

    @torch.no_grad()
    def game(members: NDArray[np.bool_]) -> NDArray[np.float64]:
        rows = []
        for start in range(0, len(members), batch_size):
            hidden = torch.from_numpy(~members[start : start + batch_size]).to(image.device)
            u = torch.stack([fill.fill(image, h[labels], seed) for h in hidden])
            with autocast(precision, image.device):
                rows.append(scores(u).double().cpu().numpy())
        return np.concatenate(rows)

    return game


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
