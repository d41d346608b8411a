"""E2X as the prior of KernelSHAP: gradients say where to look, coalitions say how much (ours).

    symbol      here
    g, v        mean over K/2 samples of E2X's products (eq. 5) and the squared standard error of that mean
    z, F(z)     K coalitions of shown segments (pairs of complements, sizes stratified over 1..M-1)
    phi         N(alpha g, c diag(v)), a priori
    F(z) - F(0) = phi . z + noise of variance s / sqrt(p(|z|)), p(k) ~ (M - 1) / (k (M - k)), Shapley's kernel
    F(1) - F(0) = sum(phi), all but exactly

E2X alone estimates a Banzhaf-like value whose scale is often twice Shapley's, from gradients with heavy
tails; coalitions alone say little about 200 segments in a hundred passes. Together each corrects the other.
The scale alpha is fitted by generalised least squares, c and s by the largest marginal likelihood over a
small grid, and phi is the posterior mean, a ridge regression with the gradients' own errors as its metric. A
segment without gradient has v = 0 and keeps exactly 0; a linear score is explained exactly; with many
coalitions the prior fades and phi tends to the kernel's weighted fit.

In: an image, its segments, targets. Out: phi (M,) per target. `samples` K costs what E2X's K does: K/2
gradients (two passes each) and K forwards. Evidence: docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.e2x import permuted_weights
from curator.explain.fill import continuous_baseline
from curator.explain.game import ends_of, segment_maps
from curator.explain.masked import MaskedImages
from curator.explain.precision import choose
from curator.explain.segments import keyed_draws
from curator.explain.target import TargetScores
from curator.tensors import generator
from store.records import GridMap, Pin, SegmentMap

Floats = NDArray[np.float64]

_PRIOR_SCALES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # c, relative to the mean of g^2
_NOISE_SCALES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # s, relative to the variance of F(z) - F(0)
_EXACT = 1e-6  # the noise of F(1) - F(0), relative to the same
_LEAST_ALPHA = 0.05  # a prior that the coalitions contradict fades, but never turns round


def stratified_coalitions(
    segments: NDArray[np.uint16], samples: int, *, seed: int, image_key: str
) -> NDArray[np.bool_]:
    """z (n, M): floor(samples / 2) coalitions and their complements, sizes stratified over 1..M-1.

    Sizes are keyed by (seed, image_key); which segments are shown, by their pixels too.
    """
    pairs, count = samples // 2, int(segments.max()) + 1
    numbers = generator("e2x_kernel", seed, image_key)
    inside = torch.rand(pairs, generator=numbers, dtype=torch.float64).numpy()
    sizes = 1 + np.floor((np.arange(pairs) + inside) / pairs * (count - 1)).astype(np.int64)
    draws = keyed_draws(segments, pairs, "e2x_kernel", seed, image_key)  # (pairs, M)
    ranks = draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    shown = ranks < sizes[:, None]
    return np.concatenate([shown, ~shown])


def posterior_mean(
    prior: Floats, variance: Floats, members: NDArray[np.bool_], values: Floats, full: float, empty: float
) -> Floats:
    """phi (M,) of one target; see the module.

    Args:
        prior, variance: g and v (M,). members: z (n, M), none empty or full. values: F(z) (n,).
        full, empty: F(1), F(0).
    """
    count = len(prior)
    y = np.append(values - empty, full - empty)
    spread = float(np.var(y))
    if spread == 0.0 or not prior.any():
        return np.zeros(count) if spread == 0.0 and not y.any() else np.array(prior)
    z = np.vstack([members, np.ones(count)]).astype(np.float64)
    shown = z[:-1].sum(1)
    kernel = np.sqrt((count - 1) / (shown * (count - shown)))
    noise = np.append(np.median(kernel) / kernel, 0.0)
    mean = float(variance.mean())
    metric = variance / mean * float((prior**2).mean()) if mean > 0 else np.zeros(count)
    explained = (z * metric) @ z.T
    best: tuple[float, Floats] | None = None
    for c in _PRIOR_SCALES if mean > 0 else _PRIOR_SCALES[:1]:
        for s in _NOISE_SCALES:
            covariance = c * explained + np.diag(s * spread * noise)
            covariance[-1, -1] += _EXACT * spread
            try:
                lower = cholesky(covariance, lower=True)
            except LinAlgError:  # numerically singular: a coarser noise follows
                continue
            white = solve_triangular(lower, np.stack([z @ prior, y], axis=1), lower=True)
            size = float(white[:, 0] @ white[:, 0])
            alpha = max(_LEAST_ALPHA, float(white[:, 0] @ white[:, 1]) / size) if size > 0 else 1.0
            rest = white[:, 1] - alpha * white[:, 0]
            likelihood = -0.5 * float(rest @ rest) - float(np.log(np.diag(lower)).sum())
            if best is None or likelihood > best[0]:
                weight = solve_triangular(lower, rest, lower=True, trans="T")
                best = likelihood, alpha * prior + c * metric * (z.T @ weight)
    return best[1] if best is not None else np.array(prior)


class E2XKernel:
    """E2X's gradients corrected by coalitions; see the module. `samples` must be at least 8."""

    name = "e2x_kernel"
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
        """Explain every target of an image; see `curator.explain.base.Attribution`.

        Raises:
            ConfigError: a fill that only fills holes, or log-odds that the detector does not give.
            InputError: shapes that do not agree, or no target.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = TargetScores(detector, pin, targets)
        masked = MaskedImages(scores, image, baseline, segments, batch_size=self.options.batch_size)
        gradients = self.options.samples // 2
        w = permuted_weights(segments, gradients, "midpoint", seed=seed, image_key=image_key)
        precision = choose(
            self.options.precision,
            detector,
            image.device,
            lambda candidate: masked.mean_products(w[:2], candidate),
        )
        mean, variance = masked.moments(w, precision)  # (T, M)
        full, empty = ends_of(lambda m: masked.evaluate(m.astype(np.float32), precision), masked.count)
        phi = mean
        if masked.count > 1:
            z = stratified_coalitions(segments, self.options.samples, seed=seed, image_key=image_key)
            values = masked.evaluate(z.astype(np.float32), precision)  # (n, T)
            phi = np.stack(
                [
                    posterior_mean(mean[t], variance[t] / gradients, z, values[:, t], full[t], empty[t])
                    for t in range(len(targets))
                ]
            )
        passes = 2 * gradients + 2 * (self.options.samples // 2) + 2
        extra = [{"bf16": 1.0} if precision == "bf16" else {}] * len(targets)
        return [*segment_maps(self.name, targets, phi, full, empty, passes=passes, extra=extra)]
