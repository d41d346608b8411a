"""E2X's gradients as the prior of Shapley's regression: they say where to look, coalitions how much (ours).

    symbol      here
    G           gradient samples: K / 8, at least 8 (at most K / 2)
    g, g_v      mean over G samples of E2X's products (eq. 5) at the input, and of the same at inner layers
                (`inner_layers`)
    z, F(z)     2 (K - G) coalitions of shown segments, their sizes stratified over 1..M-1
    phi         the mean of what both leave likely (`posterior`)

E2X alone estimates a Banzhaf-like value whose scale is often twice Shapley's, from gradients with heavy
tails; coalitions alone (KernelSHAP, LIME) say little about 200 segments in a hundred passes. Here the
gradients only say which segments may matter, and how sure that is; neighbouring segments are expected to
be alike; coalitions decide, and all targets of an image share them. A segment whose pixels have no gradient
keeps exactly 0. Evidence: docs/decisions/0007.

In: an image, its segments, targets. Out: phi (M,) per target. `samples` K costs what E2X's K does, and less
for many targets at once, since most of it is forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import continuous_baseline
from curator.explain.game import ends_of, segment_maps
from curator.explain.inner_layers import inner_layers
from curator.explain.masked import MaskedImages
from curator.explain.methods.e2x import permuted_weights
from curator.explain.posterior import posterior_mean
from curator.explain.segments import keyed_draws, segment_centres
from curator.explain.target import TargetScores
from curator.tensors import generator
from store.records import GridMap, Pin, SegmentMap

_GRADIENTS, _SHARE = 8, 8


def stratified_coalitions(
    segments: NDArray[np.uint16], count: int, *, seed: int, image_key: str
) -> NDArray[np.bool_]:
    """z (count, M): coalitions whose sizes are stratified over 1..M-1.

    Sizes are keyed by (seed, image_key); which segments are shown, by their pixels too.
    """
    players = int(segments.max()) + 1
    inside = torch.rand(count, generator=generator("e2x_kernel", seed, image_key), dtype=torch.float64)
    sizes = 1 + np.floor((np.arange(count) + inside.numpy()) / count * (players - 1)).astype(np.int64)
    draws = keyed_draws(segments, count, "e2x_kernel", seed, image_key)  # (count, M)
    ranks = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.asarray(ranks < sizes[:, None])


class E2XKernel:
    """E2X's gradients corrected by coalitions; see the module. `samples` must be at least 8."""

    name = "e2x_kernel"
    version = 2  # docs/decisions/0007
    takes: tuple[FillKind, ...] = ("continuous",)
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name)
        if self.options.samples < 8:
            raise ConfigError(f"--method e2x_kernel: expected at least 8 samples, got {self.options.samples}")

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

        Raises:
            ConfigError: a fill that only fills holes, or log-odds that the detector does not give.
            InputError: shapes that do not agree, or no target.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = TargetScores(detector, pin, targets)
        masked = MaskedImages(scores, image, baseline, segments, batch_size=self.options.batch_size)
        samples = self.options.samples
        gradients = min(samples // 2, max(_GRADIENTS, samples // _SHARE))
        w = permuted_weights(segments, gradients, "midpoint", seed=seed, image_key=image_key)
        precision = self.options.precision
        layers = inner_layers(detector.modules(), scores, image, baseline, segments)
        products = masked.samples(w, precision, network=detector.modules(), layers=layers)  # (V, T, G, M)
        products *= (products[0] != 0).any(1)[:, None]  # no gradient at its pixels: nothing to blame it for
        full, empty = ends_of(lambda m: masked.evaluate(m.astype(np.float32), precision), masked.count)
        phi = products[0].mean(1)  # (T, M)
        coalitions = 2 * (samples - gradients) if masked.count > 1 else 0
        if coalitions:
            z = stratified_coalitions(segments, coalitions, seed=seed, image_key=image_key)
            values = masked.evaluate(z.astype(np.float32), precision)  # (n, T)
            centres, side = segment_centres(segments)
            for t in range(len(targets)):
                views = products[:, t]
                phi[t] = posterior_mean(
                    views.mean(1),
                    views.var(1).mean(0) / gradients,
                    centres,
                    side,
                    z,
                    values[:, t],
                    full[t],
                    empty[t],
                )
        passes = 2 * gradients + coalitions + (4 if layers else 2)
        extra = [{"bf16": 1.0} if precision == "bf16" else {}] * len(targets)
        return [*segment_maps(self.name, targets, phi, full, empty, passes=passes, extra=extra)]
