"""KernelSHAP (Lundberg & Lee, NeurIPS 2017) with paired sampling (Covert & Lee, AISTATS 2021, eqs. 6-9).

    symbol      here
    z           coalitions (n, M) of shown segments, neither empty nor full
    p(k)        (M - 1) / (k (M - k)), normalised: the probability of the size k = |z| = 1..M-1
    F(z)        the target's score, hidden segments show the fill
    D           F(1) - F(0)
    c_z         how often z was drawn; where all are enumerated, p(|z|) / C(M, |z|)

In: an image, its segments, targets. Out: phi (M,), the solution of
    min_phi sum_z c_z (F(z) - F(0) - phi . z)^2   subject to   sum(phi) = D.
Every draw brings its complement, equal draws are merged. With phi = D/M + psi, sum(psi) = 0, it is least
squares in psi over z - |z|/M, so the constraint holds exactly. A coalition and its complement see the same
direction: below K = 2 (M - 1) the system is singular, and for a while nearly so, where plain least squares
multiplies the noise. So where its smallest eigenvalue is under `ridge` (1%) of the largest, up to about
K = 4 M, that much is added to all eigenvalues; elsewhere nothing. (M = 80, a smooth game, r to Shapley at
K = 80, 170, 200, 260: .38, .09, .40, .49 without, .38, .47, .50, .55 with it.) Where K reaches 2^M - 2, all
coalitions are enumerated and phi is Shapley's value. Sampled, a segment that the score does not depend on
gets 0 only in the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.game import coalition_game, segment_maps
from curator.explain.segments import keyed_draws
from curator.explain.target import scores_of
from curator.tensors import generator
from store.records import GridMap, Pin, SegmentMap

_RIDGE = 1e-2  # relative to the system's largest eigenvalue


def size_probabilities(count: int) -> NDArray[np.float64]:
    """p(k) (M - 1,) for k = 1..M-1."""
    k = np.arange(1, count)
    p = (count - 1) / (k * (count - k))
    return np.asarray(p / p.sum(), dtype=np.float64)


def every_coalition(count: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """All z (2^M - 2, M) and their weights p(|z|) / C(M, |z|)."""
    codes = np.arange(1, 2**count - 1)
    members = (codes[:, None] >> np.arange(count)) & 1 == 1
    per_size = size_probabilities(count) / [math.comb(count, k) for k in range(1, count)]
    return members, per_size[members.sum(1) - 1]


def paired_coalitions(
    segments: NDArray[np.uint16], samples: int, *, seed: int, image_key: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """z (n, M) and counts (n,) of floor(samples / 2) draws and their complements, equal ones merged.

    Sizes are keyed by (seed, image_key); which segments are shown, by their pixels too.
    """
    pairs, count = samples // 2, int(segments.max()) + 1
    numbers = generator("kernel_shap", seed, image_key)
    uniform = torch.rand(pairs, generator=numbers, dtype=torch.float64).numpy()
    sizes = 1 + np.searchsorted(size_probabilities(count).cumsum()[:-1], uniform, side="right")  # (pairs,)
    draws = keyed_draws(segments, pairs, "kernel_shap", seed, image_key)  # (pairs, M)
    ranks = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    drawn = ranks < sizes[:, None]
    members, counts = np.unique(np.concatenate([drawn, ~drawn]), axis=0, return_counts=True)
    return members, counts.astype(np.float64)


def constrained_least_squares(
    members: NDArray[np.bool_],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    full: NDArray[np.float64],
    empty: NDArray[np.float64],
    *,
    ridge: float,
) -> NDArray[np.float64]:
    """Solve for phi (T, M), see the module.

    Args:
        members: z (n, M). values: F (n, T). weights: c (n,). full, empty: F(1), F(0) (T,).
        ridge: relative to the largest eigenvalue, added where the smallest is less.
    """
    count = members.shape[1]
    z = members.astype(np.float64)
    share = z.mean(1, keepdims=True)  # |z| / M
    centred = z - share  # (n, M), rows sum to 0
    rest = values - empty - share * (full - empty)  # (n, T): what psi . (z - |z|/M) has to explain
    weighted = centred * (weights / weights.sum())[:, None]
    eigenvalues, vectors = scipy.linalg.eigh(weighted.T @ centred)  # ascending; the first belongs to 1
    eigenvalues, vectors = eigenvalues[1:].clip(min=0), vectors[:, 1:]
    if eigenvalues[0] < ridge * eigenvalues[-1]:
        eigenvalues = eigenvalues + ridge * eigenvalues[-1]
    psi = vectors @ ((vectors.T @ (weighted.T @ rest)) / eigenvalues[:, None])  # (M, T)
    psi -= psi.mean(0)
    return np.asarray((psi + (full - empty) / count).T, dtype=np.float64)


class KernelSHAP:
    """KernelSHAP; `samples` K counts the masked images drawn, beside the two ends.

    An odd K draws one less; merged images are not run again, so `passes` may be less than K + 2.
    Setting: `ridge` (0.01), see the module.
    """

    name = "kernel_shap"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("ridge",))
        self.ridge = self.options.number("ridge", _RIDGE, low=1e-12)
        if self.options.samples < 2:
            raise ConfigError(
                "--method kernel_shap: expected at least 2 samples, a coalition and its complement, got 1"
            )

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

        Returns:
            a `SegmentMap` per target, its gap 0 up to rounding.
        Raises:
            InputError: shapes that do not agree, or no target.
        """
        scores = scores_of(detector, pin, targets)
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        count, samples = int(segments.max()) + 1, self.options.samples
        if count == 1:
            members, weights = np.zeros((0, 1), dtype=bool), np.zeros(0)
        elif 2**count - 2 <= samples:
            members, weights = every_coalition(count)
        else:
            members, weights = paired_coalitions(segments, samples, seed=seed, image_key=image_key)
        ends = np.stack([np.ones(count, dtype=bool), np.zeros(count, dtype=bool)])
        values = game(np.concatenate([ends, members]))  # (n + 2, T)
        full, empty, values = values[0], values[1], values[2:]
        if count == 1:
            phi = (full - empty)[:, None]
        else:
            phi = constrained_least_squares(members, values, weights, full, empty, ridge=self.ridge)
        return [*segment_maps(self.name, targets, phi, full, empty, passes=len(members) + 2)]
