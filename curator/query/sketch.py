"""What FAISS searches: a box's vectors with the detector's evidence appended, and questions in the same form.

In: boxes with int8 views and their best classes. Out: rows (N, D + E) whose inner product with a question's
vector is high where its model's probability is. Evidence dimensions: of up to 16 classes one each holds the
log-odds of the class above the floor; of more, each class points in a fixed random direction, so that inner
products keep, nearly, what a dimension of its own would hold (Charikar, Chen and Farach-Colton 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.query.evidence import FLOOR, log_odds
from store.keys import content_key
from store.records import BoxRows, Floats

EXACT_CLASSES = 16  # dimensions of evidence
SPREAD = 4.0  # log-odds above the floor that count as one
RIDGE = 10.0


@dataclass(frozen=True, slots=True)
class Sketch:
    """Rows for an index.

    Attributes:
        views: box views, in order. directions: (K, E) of the detector's classes.
    """

    views: tuple[str, ...]
    directions: Floats

    @classmethod
    def of(cls, views: Sequence[str], classes: int) -> Sketch:
        """For a space's box views and the detector's number of classes."""
        if classes <= EXACT_CLASSES:
            return cls(tuple(views), np.eye(classes, dtype=np.float32))
        draw = np.random.default_rng(int(content_key("sketch", classes)[:16], 16))
        signs = draw.integers(0, 2, (classes, EXACT_CLASSES)) * 2 - 1
        return cls(tuple(views), (signs / np.sqrt(EXACT_CLASSES)).astype(np.float32))

    def rows(self, boxes: BoxRows) -> Floats:
        """(N, D + E) float32."""
        known = boxes.labels >= 0
        height = np.where(known, log_odds(boxes.scores) - log_odds(np.array(FLOOR)), 0) / SPREAD
        evidence = np.zeros((len(boxes), self.directions.shape[1]), np.float32)
        for rank in range(boxes.labels.shape[1]):
            own = known[:, rank]
            evidence[own] += height[own, rank, None] * self.directions[boxes.labels[own, rank]]
        return np.concatenate([*(boxes.components(view) for view in self.views), evidence], axis=1)

    def linear(self, boxes: BoxRows, values: NDArray[np.float64], weight: NDArray[np.float64]) -> Floats:
        """The vector (D + E,) whose inner products with rows follow `values` (N,) most closely.

        Ridge regression, weighted: what a model that is not linear says of mined boxes, as one question.
        """
        x = self.rows(boxes).astype(np.float64)
        total = max(float(weight.sum()), 1e-9)
        mean, level = weight @ x / total, float(weight @ values) / total
        x = (x - mean) * np.sqrt(weight)[:, None]
        y = (values - level) * np.sqrt(weight)
        found = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        return np.asarray(found, np.float32)
