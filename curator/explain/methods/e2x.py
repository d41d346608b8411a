"""E2X (Gudovskiy et al., "Explain to Fix", 2018, eq. 5) and integrated gradients over segments (IG_s).

    symbol        paper          here
    x, x~         x, x~          image, baseline b (default: the detector's mean colour)
    M, K          M, K           number of segments, of samples
    w_i(k)        w_i(k)         weights (K, M)
    u(w)          u_x(k)         b + w[label] (x - b)
    s_x           s_x            sum over a segment's pixels (the paper averages: that is the density)
    phi_i         phi_i          (1/K) sum_k sum_{p in S_i, channels} (x - b)_p ds/du_p at u(w(k))

In: an image, its segments, targets. Out: phi (M,) per target with F(1), F(0) and the gap
F(1) - F(0) - sum(phi). The paper reads phi as Shapley values; its limit for K -> infinity is
E_{w_-i}[F(w_i = 1) - F(w_i = 0)] with the other weights uniform and independent, which is Banzhaf-like: for
F = w1 w2 w3 it is 0.25 each where Shapley's is 1/3. So the gap does not vanish with K, and it is reported.
IG_s gives all segments one weight and is complete: its gap vanishes with K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import continuous_baseline
from curator.explain.game import segment_maps
from curator.explain.masked import MaskedImages, Weights
from curator.explain.segments import keyed_draws
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap


def grid_values(samples: int, grid: Literal["midpoint", "paper"]) -> Weights:
    """The K weights that every segment takes in some order: (k + 0.5)/K, or the paper's k/(K - 1)."""
    k = np.arange(samples, dtype=np.float64)
    return ((k + 0.5) / samples if grid == "midpoint" else k / (samples - 1)).astype(np.float32)


def permuted_weights(
    segments: NDArray[np.uint16],
    samples: int,
    grid: Literal["midpoint", "paper"],
    *,
    seed: int,
    image_key: str,
) -> Weights:
    """w (K, M): for each segment a permutation of the grid of its own.

    Segment i's permutation orders K numbers drawn by a counter-based generator keyed by (seed, image_key,
    the segment's pixels, k); neither labels nor targets nor batches enter.
    """
    draws = keyed_draws(segments, samples, "e2x", seed, image_key)  # (K, M)
    return grid_values(samples, grid)[np.argsort(draws, axis=0, kind="stable")]


class _WeightedGradients:
    """The arithmetic that E2X and IG_s share; they differ in their weights alone."""

    name: str
    settings: tuple[str, ...] = ()
    takes: tuple[FillKind, ...] = ("continuous",)
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, self.settings)

    def weights(self, segments: NDArray[np.uint16], *, seed: int, image_key: str) -> Weights:
        """w (K, M)."""
        raise NotImplementedError

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
            a `SegmentMap` per target. `passes` counts what the target costs alone: K forwards, K backwards
            and the two ends. `evidence` is False when no |phi_i| exceeds `EVIDENCE_FLOOR`.
        Raises:
            ConfigError: a fill that only fills holes, or log-odds that the detector does not give.
            InputError: shapes that do not agree, or no target.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = TargetScores(detector, pin, targets)
        masked = MaskedImages(scores, image, baseline, segments, batch_size=self.options.batch_size)
        w = self.weights(segments, seed=seed, image_key=image_key)  # (K, M)
        precision = self.options.precision
        phi = masked.mean_products(w, precision)  # (T, M)
        ends = np.stack([np.ones(masked.count), np.zeros(masked.count)]).astype(np.float32)
        full, empty = masked.evaluate(ends, precision)  # F(1), F(0): (T,) each
        extra = [{"bf16": 1.0} if precision == "bf16" else {}] * len(targets)
        return [*segment_maps(self.name, targets, phi, full, empty, passes=2 * len(w) + 2, extra=extra)]


class E2X(_WeightedGradients):
    """E2X, eq. 5: the grid permuted for each segment by itself.

    Settings: `low` (ours, 0): the weights lie in [low, 1] instead of [0, 1]. Near 1 the map tells what fading
    a segment does to the picture as it is; the paper's tells what it does on average over pictures of which
    half is faded, where the object itself is faded too and what disturbs it has nothing left to disturb.
    Culprits of misses show better with 0.5, of false positives worse, and Shapley's values are no longer what
    is estimated (docs/explain.md).
    """

    name = "e2x"
    settings = ("low",)

    def __init__(self, options: AttributionOptions | None = None) -> None:
        super().__init__(options)
        self.low = self.options.number("low", 0.0, high=0.99)

    def weights(self, segments: NDArray[np.uint16], *, seed: int, image_key: str) -> Weights:
        """w (K, M), see `permuted_weights`."""
        w = permuted_weights(
            segments, self.options.samples, self.options.grid, seed=seed, image_key=image_key
        )
        return w if self.low == 0 else (self.low + (1 - self.low) * w).astype(np.float32)


class SegmentIntegratedGradients(_WeightedGradients):
    """IG_s: integrated gradients (Sundararajan et al., ICML 2017) summed over segments, w = (k + 0.5)/K."""

    name = "ig_s"

    def weights(self, segments: NDArray[np.uint16], *, seed: int, image_key: str) -> Weights:
        """w (K, M), all segments alike."""
        values = grid_values(self.options.samples, "midpoint")
        return np.repeat(values[:, None], int(segments.max()) + 1, axis=1)
