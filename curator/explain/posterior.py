"""What gradients and coalitions together say about segments: a small Gaussian model per target (ours).

    symbol      here
    g_v         views (V, M): mean over samples of products per segment, by input and inner layers
    g, v        their mean; g^2 + its squared standard error + the variance between the views: how far from 0
                a segment's value may lie
    z, F(z)     coalitions of shown segments
    phi         N(0, a g g' + b diag(v) + c sqrt(v v') S), a priori; S_ij = exp(-d_ij^2 / (2 (2 l)^2)), d
                between centroids, l the side of a usual segment: neighbours are alike
    F(z) - F(0) = phi . z + e(|z| / M) + noise; e vanishes at 0 and 1: a score that falls at once when little
                is hidden falls for every coalition alike, which says nothing about one segment
    F(1) - F(0) = sum(phi), all but exactly

a, b, c and the noise's variance are not chosen but averaged over: 64 fixed points of a broad log-normal prior
(its centre is the median of what development images preferred; docs/decisions/0007), each weighted by the
likelihood of what was observed. phi is the posterior mean. In: numbers. Out: phi (M,).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.stats import norm, qmc

Floats = NDArray[np.float64]

_CENTRE = (-1.3, -1.9, -0.7, -2.7)  # log a, b, c, noise, each of its unit below; standard deviation 1
_POINTS = 64
_REACH = 2.0  # of S, in sides of a usual segment
_CURVES = (1.0, 2.0)  # e is any mixture of (4 f (1 - f))^k
_EXACT = 1e-6  # the noise of F(1) - F(0), of the mean square of what is observed
_LINEAR = 1e-8  # a mean square error, of the same, that counts as none


@cache
def _points() -> Floats:
    """log a, b, c, noise: (64, 4), the same in every run (a Sobol sequence)."""
    uniform = qmc.Sobol(len(_CENTRE), rng=np.random.default_rng(0)).random(_POINTS)
    return np.asarray(norm.ppf(uniform) + np.array(_CENTRE))


def posterior_mean(
    views: Floats,
    error: Floats,
    centres: Floats,
    side: float,
    members: NDArray[np.bool_],
    values: Floats,
    full: float,
    empty: float,
) -> Floats:
    """phi (M,) of one target; see the module.

    Args:
        views: g_v (V, M), the input's first. error: squared standard error of the views' mean over the
            samples (M,).
        centres: (M, 2) px. side: px of a usual segment.
        members: z (n, M), none empty or full. values: F(z) (n,). full, empty: F(1), F(0).
    Returns:
        Zeros where no view is anything but 0, and the input's own gradients where these foretell every
        coalition, since the score is linear then.
    """
    count = views.shape[1]
    mean = views.mean(0)
    variance = mean**2 + error + views.var(0)
    y = np.append(values - empty, full - empty)  # (n + 1,)
    power = float((y**2).mean())
    if not np.isfinite(power + variance.sum()):
        return np.full(count, np.nan)  # what broke is not known here; the maps' maker refuses it
    if power == 0.0 or not variance.any():
        return np.zeros(count)
    z = np.vstack([members, np.ones(count)]).astype(np.float64)
    if float(((y - z @ views[0]) ** 2).mean()) <= _LINEAR * power:
        return np.array(views[0])
    unit = power / (4 * count)  # a usual phi^2
    direction = mean / max(float(np.linalg.norm(mean)), 1e-300) * np.sqrt(unit * count)
    spread = np.sqrt(variance / variance.mean() * unit)
    squares = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    alike = np.exp(-squares / (2 * (_REACH * side) ** 2))
    along = [  # covariance of phi with what is observed, (M, n + 1) per component
        np.outer(direction, z @ direction),
        (spread**2)[:, None] * z.T,
        spread[:, None] * (alike @ (spread[:, None] * z.T)),
    ]
    noise = np.full(len(y), power / 2)
    noise[-1] = 0.0
    parts = np.stack([*(z @ part for part in along), np.diag(noise)])  # (4, n + 1, n + 1)
    shown = z.sum(1) / count
    curves = np.stack([(4 * shown * (1 - shown)) ** k for k in _CURVES], axis=1)
    fixed = 2 * power * curves @ curves.T + np.diag(np.full(len(y), _EXACT * power))
    likelihoods, found = [], []
    for logs in _points():
        scales = np.exp(logs)
        lower = cholesky(fixed + np.tensordot(scales, parts, axes=1), lower=True, check_finite=False)
        weights = cho_solve((lower, True), y, check_finite=False)
        likelihoods.append(-0.5 * float(y @ weights) - float(np.log(np.diag(lower)).sum()))
        found.append(scales[:3, None] * weights)  # (3, n + 1)
    belief = np.exp(np.array(likelihoods) - max(likelihoods))
    weights = np.tensordot(belief / belief.sum(), np.stack(found), axes=1)  # (3, n + 1)
    return np.asarray(sum(part @ w for part, w in zip(along, weights, strict=True)))
