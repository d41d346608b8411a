"""DVE: deep visual explanation by frequency bands (Babiker & Goebel, "An Introduction to Deep Visual
Explanation", NIPS-W 2017, section 3).

    symbol   meaning
    x_i      (h, w) map i of a feature level
    G_j      (h, w) Gaussian low-pass exp(-f^2 / (2 sigma_j^2)), f in cycles per cell, 1 at f = 0
    S        sum_i Finv(F(x_i) G_1) o Finv(F(x_i) (1 - G_2)): low times high spatial scale
    S'       S where S > mean(S), else 0. The paper's constant is lost from its text; the mean is our choice
    S''      targeted DVE (3.1): the same product and filter applied to S'

In: a feature level. Out: a map of its cells, not normalised: S of c x is c^2 S, and S of a constant map is 0.
The Fourier transform is periodic, so the map's opposite borders touch. As published DVE does not look at
the prediction: all targets of an image get one map. What ties it to a target are two settings of ours:
`crop` (the filter's mean and the map inside its box alone) and `weighted` (map i counts with the mean
gradient of the target's score with respect to x_i, as in Grad-CAM; a level that does not feed the
candidate gets weights of 0 and no evidence, so name its own `level`).

Settings: `level` (the coarsest, the paper's "last pooling layer"), `sigma1`, `sigma2` (0.1 cycles per cell,
Nyquist is 0.5), `targeted`, `weighted`, `crop` (0 or 1; all 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector, FeatureMap
from curator.errors import ConfigError, InputError, StageError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.game import coalition_game, ends_of
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap

Maps = NDArray[np.float64]


def low_pass(size: tuple[int, int], sigma: float) -> Maps:
    """G (h, w) over the frequencies of `numpy.fft.fft2`, 1 at frequency 0, which comes first."""
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None, :]
    return np.asarray(np.exp(-(fy**2 + fx**2) / (2 * sigma**2)))


def band_products(x: Maps, sigma1: float, sigma2: float) -> Maps:
    """Finv(F(x) G_1) o Finv(F(x) (1 - G_2)) of each map: (..., h, w) -> (..., h, w)."""
    size = (x.shape[-2], x.shape[-1])
    spectrum = np.fft.fft2(x)
    low = np.fft.ifft2(spectrum * low_pass(size, sigma1)).real
    high = np.fft.ifft2(spectrum * (1 - low_pass(size, sigma2))).real
    return np.asarray(low * high)


def keep_above_mean(s: Maps, inside: NDArray[np.bool_]) -> Maps:
    """S' (h, w): S where it exceeds its mean over `inside` (h, w), 0 elsewhere and outside."""
    return np.where(inside & (s > s[inside].mean()), s, 0.0)


class Dve:
    """DVE and targeted DVE."""

    name = "dve"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        o = self.options
        o.only(self.name, ("level", "sigma1", "sigma2", "targeted", "weighted", "crop"))
        self.sigma = tuple(o.number(name, 0.1, low=1e-3, high=10.0) for name in ("sigma1", "sigma2"))
        self.targeted, self.weighted, self.crop = (
            o.choice(name, "0", ("0", "1")) == "1" for name in ("targeted", "weighted", "crop")
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
            a `GridMap` of the level's cells per target, values >= 0 (with `weighted`, above the mean). Their
            unit is that of squared features, so `evidence` compares max |S| with EVIDENCE_FLOOR times the
            maps' mean square, sum_i mean(x_i^2): it says that the level has structure, not that it matters.
        Raises:
            ConfigError: a black box, or a level that the detector does not have.
            InputError: `crop` without a box. StageError: features that are not finite.
        """
        scores = TargetScores(detector, pin, targets)
        feature, weights = self._features(detector, image, pin, targets)
        x = feature.values[0].detach().double().cpu().numpy()  # (C, h, w)
        if not np.isfinite(x).all():
            raise StageError("dve: expected finite features, got nan or infinity; try --precision fp32")
        products = band_products(x, *self.sigma)  # (C, h, w)
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        full, empty = ends_of(game, int(segments.max()) + 1)
        maps: list[SegmentMap | GridMap] = []
        for t, target in enumerate(targets):
            inside = self._inside(feature, target, pin)
            s = keep_above_mean(np.tensordot(weights[t], products, 1), inside)
            scale = float(np.abs(weights[t]) @ (x**2).mean((1, 2)))
            if self.targeted:
                s, scale = keep_above_mean(band_products(s, *self.sigma), inside), float((s**2).mean())
            maps.append(
                GridMap(
                    values=s.astype(np.float32),
                    scale=feature.scale,
                    offset=feature.offset,
                    full=float(full[t]),
                    empty=float(empty[t]),
                    gap=float("nan"),
                    passes=4 if self.weighted else 3,
                    evidence=bool(np.abs(s).max() > EVIDENCE_FLOOR[target.kind] * scale),
                )
            )
        return maps

    def _features(
        self, detector: Detector, image: Tensor, pin: Pin, targets: Sequence[Target]
    ) -> tuple[FeatureMap, Maps]:
        """The level, and the weight of each of its maps for each target (T, C): 1, or the mean gradient."""
        if not detector.levels:
            raise ConfigError(f"--method dve: {detector.spec} names no feature levels; use another method")
        level = self.options.choice("level", detector.levels[-1], detector.levels)
        if not self.weighted:
            with torch.no_grad():
                nothing = torch.zeros(0, dtype=torch.int64, device=image.device)
                feature = detector.candidates(image[None], pin, index=nothing, levels=(level,)).features[
                    level
                ]
            return feature, np.ones((len(targets), feature.values.shape[1]))
        u = image[None].detach().clone().requires_grad_(True)
        with torch.enable_grad():
            values, found = TargetScores(detector, pin, targets).look(u, (level,))
        feature = found[level]
        rows = []
        for value in values[0]:
            (gradient,) = torch.autograd.grad(value, feature.values, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(feature.values) if gradient is None else gradient
            rows.append(gradient[0].double().mean((1, 2)).cpu().numpy())
        return feature, np.stack(rows)

    def _inside(self, feature: FeatureMap, target: Target, pin: Pin) -> NDArray[np.bool_]:
        """Cells (h, w) whose centres lie in the target's box, the nearest one at least; all without crop."""
        h, w = feature.values.shape[-2:]
        if not self.crop:
            return np.ones((h, w), dtype=bool)
        if target.box is None:
            raise InputError("dve: expected the targets' boxes to crop to, got none; use crop=0")
        x1, y1, x2, y2 = pin.to_input(np.array(target.box)).tolist()
        columns = _between(feature.scale[0] * np.arange(w) + feature.offset[0], x1, x2)
        rows = _between(feature.scale[1] * np.arange(h) + feature.offset[1], y1, y2)
        return np.asarray(rows[:, None] & columns[None, :])


def _between(centres: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
    inside = (centres >= low) & (centres <= high)
    inside[np.abs(centres - (low + high) / 2).argmin()] = True
    return np.asarray(inside)
