"""Whitening: the change of coordinates in which what works is white noise.

In: vectors (N, D) of what works. Out: v -> z with mean 0 and covariance I for them. The covariance is shrunk
towards a multiple of the identity by the optimal share (Ledoit and Wolf, J. Multivariate Analysis 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


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
    """Ledoit-Wolf estimate (D, D) from centred data (N, D): (1 - a) C + a tr(C)/D I with the optimal a."""
    n, d = centred.shape
    covariance = centred.T @ centred / n
    target = np.trace(covariance) / d
    distance = float(((covariance - target * np.eye(d)) ** 2).sum())
    spread = float(((centred**2).sum(1) ** 2).sum() / n - (covariance**2).sum()) / n
    share = 1.0 if distance <= 0 else min(1.0, max(1e-3, spread / distance))
    return np.asarray((1 - share) * covariance + share * target * np.eye(d))


def unit(vectors: Array) -> Array:
    """Rows (N, D) scaled to length 1; 0 stays 0."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
