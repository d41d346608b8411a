"""Compact vectors: the first principal components of an embedder's vectors, as int8.

In: raw vectors (N, D) of one view. Out: components of unit deviation, in 1/25 of a deviation per step, so
that a box's view costs as many bytes as it has components. The projection is fitted once, on boxes of mined
images, and kept with the vector space: what is indexed later is projected by the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.records import VIEW_SCALE, Floats

LEAST = 1e-6  # a deviation below is that of a constant
FEWEST = 2  # rows from which a projection can be fitted


@dataclass(frozen=True, slots=True)
class Projection:
    """z = (v - mean) / scale @ matrix, then divided by `deviation`.

    Attributes:
        mean, scale: (D,) of the raw vectors. matrix: (D, d) orthonormal columns.
        deviation: (d,) of the components before they are scaled to 1: how much each tells.
    """

    mean: Floats
    scale: Floats
    matrix: Floats
    deviation: Floats

    @classmethod
    def fit(cls, vectors: NDArray[np.floating], components: int) -> Projection:
        """Principal components of standardised vectors (N, D); at most `components`, D of them.

        Raises:
            ValueError: fewer than two rows.
        """
        data = np.asarray(vectors, np.float64)
        if len(data) < FEWEST:
            raise ValueError(f"projection: expected {FEWEST} vectors or more, got {len(data)}")
        mean, scale = data.mean(0), data.std(0)
        scale = np.where(scale > LEAST * max(1.0, float(scale.max())), scale, 1.0)
        standard = (data - mean) / scale
        values, basis = np.linalg.eigh(standard.T @ standard / len(data))
        order = np.argsort(-values, kind="stable")[:components]
        basis = basis[:, order]
        # Of v and -v the one whose largest entry is positive: the same on every machine.
        signs = np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])
        deviation = np.sqrt(np.maximum(values[order], LEAST**2))
        return cls(*(np.asarray(a, np.float32) for a in (mean, scale, basis * signs, deviation)))

    def __call__(self, vectors: NDArray[np.floating]) -> NDArray[np.int8]:
        """Vectors (N, D) -> (N, d) int8."""
        z = ((np.asarray(vectors, np.float32) - self.mean) / self.scale) @ self.matrix
        z = np.where(self.deviation > 2 * LEAST, z / np.maximum(self.deviation, LEAST), 0)
        return np.asarray(np.clip(np.rint(z * VIEW_SCALE), -127, 127), np.int8)

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.deviation)

    def arrays(self, view: str) -> dict[str, NDArray[Any]]:
        """What is stored of it."""
        return {
            f"{view}/{name}": getattr(self, name) for name in ("mean", "scale", "matrix", "deviation")
        }

    @classmethod
    def stored(cls, arrays: Mapping[str, NDArray[Any]], view: str) -> Projection:
        """What `arrays` gave."""
        return cls(*(arrays[f"{view}/{name}"] for name in ("mean", "scale", "matrix", "deviation")))
