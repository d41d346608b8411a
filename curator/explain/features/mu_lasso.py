"""mu-Lasso by spectral projected gradients (VEBI, Oramas et al., ICLR 2019, eq. 1).

In: responses X and labels L. Out: W* = argmin ||X W - L||_F^2 subject to ||w_j||_1 <= mu for every class j.
The columns do not depend on each other; each is one Lasso problem for the `spgl1` package, the solver of the
paper's reference [25] (van den Berg & Friedlander, SIAM J. Sci. Comput. 2008). The paper stores a sample per
column; here it is a row, so that X is its X^T.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from spgl1 import spg_lasso

from curator.errors import InputError, StageError

_ITERATIONS = 3000
_TOLERANCE = 1e-6  # of the solver's relative duality gap
_ACCEPTED = 1e-3  # of ours, before a solution is refused
_LEAST_SQUARES = 1e-5  # of the gradient, which settles it where mu is so large that the gap says nothing
_FLOOR = 1e-9  # of the largest weight: below it lies the solver's dust


def mu_lasso(x: NDArray[np.floating], labels: NDArray[np.floating], mu: float) -> NDArray[np.float64]:
    """Solve eq. (1).

    The solver works on X / s with s the largest column norm (and mu s), an equivalent problem: its tolerances
    are made for entries near 1, while normalised responses are near 1 / channels.

    Args:
        x: (N, m) one sample a row. labels: (N, C), 1 where the sample is of the class. mu: > 0.
    Returns:
        W (m, C), ||w_j||_1 <= mu. Entries that the constraint holds at 0 are 0 exactly.
    Raises:
        InputError: shapes that do not agree, values that are not finite, no sample, or mu <= 0.
        StageError: the solver did not reach the minimum.
    """
    if x.ndim != 2 or labels.ndim != 2 or len(x) != len(labels) or not len(x):
        raise InputError(f"mu-Lasso: expected X (N, m) and labels (N, C), got {x.shape} and {labels.shape}")
    if not (np.isfinite(x).all() and np.isfinite(labels).all()):
        raise InputError("mu-Lasso: expected finite responses, got nan or infinity")
    if not mu > 0:
        raise InputError(f"mu: expected a number above 0, got {mu}")
    matrix = x.astype(np.float64)
    scale = float(np.linalg.norm(matrix, axis=0).max(initial=0.0))
    weights = np.zeros((x.shape[1], labels.shape[1]))
    if scale == 0:
        return weights
    matrix /= scale
    for j in range(labels.shape[1]):
        column = labels[:, j].astype(np.float64)
        if not column.any():
            continue
        with _quiet():
            solution, *_ = spg_lasso(
                matrix, column, mu * scale, iter_lim=_ITERATIONS, opt_tol=_TOLERANCE, ls_tol=_TOLERANCE
            )
        gap = duality_gap(matrix, column, solution, mu * scale)
        slope = np.abs(matrix.T @ (column - matrix @ solution)).max()  # 0 at a least-squares solution
        if gap > _ACCEPTED and slope > _LEAST_SQUARES * np.linalg.norm(column):
            raise StageError(
                f"mu-Lasso: expected a relative duality gap of at most {_ACCEPTED}, got {gap:.2g} for class "
                f"{j}; use a smaller --mu"
            )
        weights[:, j] = np.where(np.abs(solution) > _FLOOR * np.abs(solution).max(), solution / scale, 0.0)
    norms = np.abs(weights).sum(0)
    return np.asarray(weights * np.minimum(1.0, mu / np.maximum(norms, mu)))  # rounding may overstep mu


def duality_gap(
    x: NDArray[np.float64], column: NDArray[np.float64], w: NDArray[np.float64], mu: float
) -> float:
    """How far w is from the minimum at most: (mu ||X'r||_inf - <X'r, w>) / ||l||^2, r = l - X w.

    It is 0 at a solution, and bounds the excess of 1/2 ||X w - l||^2 relative to ||l||^2.
    """
    residual = column - x @ w
    slope = x.T @ residual
    return float((mu * np.abs(slope).max() - slope @ w) / (column @ column))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The solver prints and logs line searches that end at rounding; stdout belongs to --json."""
    logger = logging.getLogger("spgl1")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
