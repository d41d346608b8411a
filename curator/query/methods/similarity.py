"""Similarity: the highest cosine of a box to a failure's box, in one view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from curator.query.asked import Asked, Mined
from curator.query.methods.base import Array
from curator.represent.whiten import unit
from store.records import BoxRows, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityScorer:
    """Failures that boxes are compared with: `examples` (K, D) unit vectors."""

    view: str
    examples: Floats
    pooling: Literal["sum", "max"] = "max"
    expects: bool = False
    note: str = ""

    def values(self, rows: BoxRows) -> Array:
        """Cosines in [-1, 1]."""
        if not len(self.examples):
            return np.zeros(len(rows))
        vectors = unit(rows.components(self.view))
        return np.asarray((vectors @ self.examples.T).max(1), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """See the module.

    Args:
        view: None: the first box view.
    """

    view: str | None = None

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> SimilarityScorer:
        """Take the failures as examples."""
        own = mined.asking(asked)
        view = self.view or next(iter(mined.offered.views))
        return SimilarityScorer(view=view, examples=unit(own.components(view)).astype(np.float32))
