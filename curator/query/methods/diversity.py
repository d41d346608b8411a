"""Diversity: k-centre greedy (Gonzalez 1985; core sets of Sener and Savarese, ICLR 2018), blind to failures.

Each next image is the one farthest from those chosen and from the mined images, by the whole image's vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from curator.query.asked import Asked, Images, Mined
from curator.query.methods.base import Array
from store.records import BoxRows, Floats

MOST = 2000  # images in greedy order; the rest follow by their distance


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversityScorer:
    """`known` (K, D): vectors of the mined images. It orders the images that it is handed at once."""

    view: str
    known: Floats
    pooling: Literal["sum", "max"] = "sum"
    expects: bool = False
    note: str = ""
    learns: ClassVar[bool] = False

    def values(self, rows: BoxRows) -> Array:
        """At an image's first box: the falling order of choice, in (0, 2)."""
        images = Images.of(rows.image_ids)
        vectors = rows.components(self.view)[images.starts]
        far = _nearest(vectors, self.known)
        order = np.zeros(len(vectors))
        left = far.copy()
        for step in range(min(MOST, len(vectors))):
            place = int(left.argmax())
            order[place] = 2 - step / MOST
            far = np.minimum(far, np.linalg.norm(vectors - vectors[place], axis=1))
            left = np.where(order > 0, -1.0, far)
        rest = order == 0
        order[rest] = far[rest] / (1 + far[rest])
        result = np.zeros(len(rows))
        result[images.starts] = order
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """See the module."""

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> DiversityScorer:
        """Remember the mined images."""
        offered = mined.offered
        view = next(iter(offered.image_views), next(iter(offered.views)))
        starts = Images.of(offered.image_ids).starts
        return DiversityScorer(view=view, known=offered.components(view)[starts])


def _nearest(vectors: Floats, known: Floats) -> Array:
    """Distance (N,) to the nearest of `known`; large where there is none."""
    if not len(known):
        return np.full(len(vectors), 1e6)
    squares = (vectors**2).sum(1)[:, None] + (known**2).sum(1)[None, :] - 2 * vectors @ known.T
    return np.asarray(np.sqrt(np.maximum(squares.min(1), 0)), np.float64)
