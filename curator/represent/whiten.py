"""Whitening: the change of coordinates in which what works is white noise.

In: vectors (N, D) of what works. Out: v -> z with mean 0 and covariance I for them. The covariance is shrunk
towards a multiple of the identity by the optimal share (Ledoit and Wolf, J. Multivariate Analysis 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

LEAST_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Whitening:
    """z = (v - mean) @ matrix."""

    mean: Array
    matrix: Array

    @classmethod
    def fit(cls, vectors: NDArray[np.floating]) -> Whitening:
        """Fit to vectors (N, D), N >= 1; a constant column is left alone."""
        data = np.asarray(vectors, dtype=np.float64)
        mean, scale = data.mean(0), data.std(0)
        scale = np.where(scale > 1e-6 * max(1.0, float(scale.max())), scale, 1.0)
        values, basis = np.linalg.eigh(shrunk_covariance((data - mean) / scale))
        whitener = basis * (1 / np.sqrt(np.maximum(values, 1e-6))) @ basis.T
        return cls(mean, whitener / scale[:, None])

    def __call__(self, vectors: NDArray[np.floating]) -> Array:
        """Vectors (N, D) -> (N, D) float32."""
        matrix = self.matrix.astype(np.float32)
        return np.asarray(
            np.asarray(vectors, dtype=np.float32) @ matrix - (self.mean @ self.matrix).astype(np.float32)
        )

    def along(self, vectors: NDArray[np.floating], direction: Array) -> Array:
        """z @ direction (N,) without computing z: one product per vector instead of D."""
        folded = self.matrix @ direction
        return np.asarray(np.asarray(vectors, dtype=np.float64) @ folded - self.mean @ folded)


def shrunk_covariance(centred: Array) -> Array:
    """Ledoit-Wolf estimate (D, D) from centred data (N, D): (1 - a) C + a tr(C)/D I.

    a is scikit-learn's optimal share, but at least `LEAST_SHARE`: what never varies among very many rows
    would otherwise be stretched without bound.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # slow to load

    n, d = centred.shape
    covariance = centred.T @ centred / n
    share = 1.0 if n < 2 else max(LEAST_SHARE, float(ledoit_wolf_shrinkage(centred, assume_centered=True)))
    return np.asarray((1 - share) * covariance + share * np.trace(covariance) / d * np.eye(d))


def unit(vectors: Array) -> Array:
    """Rows (N, D) scaled to length 1; 0 stays 0."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
