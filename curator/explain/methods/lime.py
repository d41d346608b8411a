"""LIME for images (Ribeiro et al., "Why should I trust you?", KDD 2016) with either kind of fill.

    symbol      here
    z           members (K, M), z_1 = 1, the others Bernoulli(0.5) per segment
    F(z)        the target's score, hidden segments show the fill (no noise: METHODS.md)
    D(z, 1)     1 - cos(z, 1) = 1 - sqrt(|z| / M); 1 for z = 0
    pi(z)       exp(-D^2 / (2 width^2)), the package's kernel (it takes the root of exp(-D^2 / width^2))
    g(z)        c + phi . z

In: an image, its segments, targets. Out: phi (M,), the coefficients of the weighted ridge regression
    min_{c, phi} sum_z pi(z) (F(z) - c - phi . z)^2 + ridge ||phi||^2,
the intercept c fitted and not penalised, all M coefficients kept. LIME claims no completeness: the gap
F(1) - F(0) - sum(phi) is reported as it is. The ridge shrinks every coefficient, and a segment that the score
does not depend on gets 0 only in the limit K -> infinity. An inpainter's hole fill makes it LIME-G.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.game import coalition_game, segment_maps
from curator.explain.segments import keyed_draws
from curator.explain.target import scores_of
from store.records import GridMap, Pin, SegmentMap


def neighbourhood(
    segments: NDArray[np.uint16], samples: int, *, seed: int, image_key: str
) -> NDArray[np.bool_]:
    """z (K, M): the first row all shown, every other entry a coin keyed by (seed, image_key, the segment's
    pixels, k)."""
    draws = keyed_draws(segments, samples, "lime", seed, image_key)
    members = (draws >> np.uint64(63)).astype(bool)
    members[0] = True
    return members


def kernel(members: NDArray[np.bool_], width: float) -> NDArray[np.float64]:
    """pi(z) (K,) of members (K, M)."""
    distance = 1 - np.sqrt(members.mean(1))  # cosine distance to z = 1
    return np.asarray(np.exp(-(distance**2) / (2 * width**2)), dtype=np.float64)


def weighted_ridge(
    members: NDArray[np.bool_], values: NDArray[np.float64], weights: NDArray[np.float64], ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit c + phi . z to F(z), see the module.

    Args:
        members: (K, M). values: F (K, T). weights: pi (K,), positive.
    Returns:
        phi (T, M) and c (T,).
    """
    z = members.astype(np.float64)
    share = weights / weights.sum()
    z_mean, mean = share @ z, share @ values  # centring by the weighted means fits the intercept
    centred = z - z_mean
    system = (centred * weights[:, None]).T @ centred  # (M, M)
    system[np.diag_indices_from(system)] += ridge
    right = (centred * weights[:, None]).T @ (values - mean)  # (M, T)
    phi = scipy.linalg.solve(system, right, assume_a="pos").T
    return phi, mean - phi @ z_mean


class LIME:
    """LIME; `samples` counts the masked images K, the clean one included.

    Settings: `width`, of the kernel (default 0.25); `ridge`, the penalty (default 1).
    """

    name = "lime"
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("width", "ridge"))
        self.width = self.options.number("width", 0.25, low=1e-3)
        self.ridge = self.options.number("ridge", 1.0, low=1e-9)

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
            a `SegmentMap` per target; `extra` holds the intercept and the weighted R^2 of the fit (nan for a
            score that does not move). `passes` is K + 1: F(1) is the first sample, F(0) one more.
        Raises:
            InputError: shapes that do not agree, or no target.
        """
        scores = scores_of(detector, pin, targets)
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        members = neighbourhood(segments, self.options.samples, seed=seed, image_key=image_key)  # (K, M)
        values = game(np.concatenate([members, np.zeros_like(members[:1])]))  # (K + 1, T)
        full, empty, values = values[0], values[-1], values[:-1]
        weights = kernel(members, self.width)
        moved = values - full  # exactly 0 for a constant score, whatever rounding does to means
        phi, intercept = weighted_ridge(members, moved, weights, self.ridge)
        residual = weights @ (moved - intercept - members @ phi.T) ** 2
        total = weights @ (moved - weights @ moved / weights.sum()) ** 2
        explained = 1 - np.divide(residual, total, out=np.full_like(total, np.nan), where=total > 0)
        extra = [
            {"intercept": float(c + f), "r_squared": float(r)}
            for c, f, r in zip(intercept, full, explained, strict=True)
        ]
        return [
            *segment_maps(self.name, targets, phi, full, empty, passes=len(members) + 1, extra=extra),
        ]
