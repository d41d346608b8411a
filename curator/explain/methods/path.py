"""E2X-path: integrated gradients along random staircases, between IG_s and permutation Shapley (ours).

    symbol     here
    x, b       image, baseline (3, h, w);  u(w) = b + w[label] (x - b)
    rank_i     place of segment i in a path's random order, 0..M-1
    o_i        (1 - beta) rank_i / (M - 1), when segment i begins to appear
    w_i(t)     clip((t - o_i) / beta, 0, 1), t in [0, 1]: each segment fades in during a time beta
    phi_i      mean over paths of the integral over t of dw_i/dt <(x - b)_i, ds/du_i at u(w(t))>

In: an image, its segments, targets. Out: phi (M,) per target. Each path runs from b to x, so phi is complete:
the gap F(1) - F(0) - sum(phi) is integration error and vanishes with the number of steps. beta = 1 makes
every path the straight line: IG_s, which tends to Aumann-Shapley values. For beta -> 0 segments appear one
after the other, and the integral over one segment's time is F(with it) - F(without it): permutation Shapley.

Integration: n equal cells in t per path; the gradient is taken at the cell's midpoint and weighs with what
w_i gains over the cell (sum_cells gain_i = 1), so that a linear score is attributed exactly for every n, beta
and seed. Paths come in antithetic pairs, the second in the reverse order of the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import continuous_baseline
from curator.explain.game import segment_maps
from curator.explain.masked import MaskedImages, Weights
from curator.explain.segments import keyed_draws
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap


def path_ranks(segments: NDArray[np.uint16], paths: int, *, seed: int, image_key: str) -> NDArray[np.int64]:
    """rank (P, M): random orders of the segments, odd rows reversing the row before.

    An order sorts numbers keyed by (seed, image_key, the segment's pixels, pair).
    """
    draws = keyed_draws(segments, (paths + 1) // 2, "e2x_path", seed, image_key)
    ranks = np.argsort(np.argsort(draws, axis=1, kind="stable"), axis=1)
    pairs = np.stack([ranks, ranks.shape[1] - 1 - ranks], axis=1)  # (pairs, 2, M)
    return pairs.reshape(-1, ranks.shape[1])[:paths]


def staircase(rank: NDArray[np.int64], steps: int, beta: float) -> tuple[Weights, Weights]:
    """One path: weights w (n, M) at the cells' midpoints and what they gain over each cell (n, M)."""
    start = (1 - beta) * rank / max(len(rank) - 1, 1)  # o (M,)

    def appeared(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((t[:, None] - start) / beta, 0, 1)

    edges = appeared(np.arange(steps + 1) / steps)
    edges[-1] = 1.0  # whatever rounding did to o_i + beta
    middle = appeared((np.arange(steps) + 0.5) / steps)
    return middle.astype(np.float32), np.diff(edges, axis=0).astype(np.float32)


class E2XPath:
    """E2X-path; settings: `beta` in (0, 1] (default 0.5) and `paths` (default 4, at most `samples`).

    `samples` counts the masked images of all paths together; a path gets a `paths`-th of them, the first ones
    one more where that leaves a rest.
    """

    name = "e2x_path"
    takes: tuple[FillKind, ...] = ("continuous",)
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("beta", "paths"))
        self.beta = self.options.number("beta", 0.5, low=1e-6, high=1.0)
        self.paths = self.options.whole("paths", min(4, self.options.samples), low=1)
        if self.paths > self.options.samples:
            raise ConfigError(
                f"--method e2x_path: expected at least one sample per path, got {self.options.samples} for "
                f"{self.paths} paths; use more --samples or e2x_path?paths={self.options.samples}"
            )

    def weights(self, segments: NDArray[np.uint16], *, seed: int, image_key: str) -> tuple[Weights, Weights]:
        """w (K, M) of all paths and their coefficients (K, M): gains over the number of paths."""
        ranks = path_ranks(segments, self.paths, seed=seed, image_key=image_key)
        each, rest = divmod(self.options.samples, self.paths)
        walked = [staircase(rank, each + (p < rest), self.beta) for p, rank in enumerate(ranks)]
        gains = np.concatenate([gain for _, gain in walked])
        return np.concatenate([w for w, _ in walked]), (gains / self.paths).astype(np.float32)

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
            a `SegmentMap` per target; `passes` counts K forwards, K backwards and the two ends.
        Raises:
            ConfigError: a fill that only fills holes, or log-odds that the detector does not give.
            InputError: shapes that do not agree, or no target.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = TargetScores(detector, pin, targets)
        masked = MaskedImages(scores, image, baseline, segments, batch_size=self.options.batch_size)
        w, c = self.weights(segments, seed=seed, image_key=image_key)  # (K, M) each
        precision = self.options.precision
        phi = masked.weighted_products(w, c, precision)  # (T, M)
        ends = np.stack([np.ones(masked.count), np.zeros(masked.count)]).astype(np.float32)
        full, empty = masked.evaluate(ends, precision)  # F(1), F(0): (T,) each
        extra = [{"bf16": 1.0} if precision == "bf16" else {}] * len(targets)
        return [*segment_maps(self.name, targets, phi, full, empty, passes=2 * len(w) + 2, extra=extra)]
