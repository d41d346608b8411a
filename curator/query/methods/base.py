"""The seam of ranking methods: fitted to mined images, a method gives every box of a pool image a value."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Asked, Images, Mined
from store.records import BoxRows, Ints

Array = NDArray[np.float64]


class Scorer(Protocol):
    """A fitted method.

    Attributes:
        pooling: an image's score is the sum of its boxes' values, or the highest.
        expects: True where values are expected numbers of failures.
        note: a line for people, "" where there is nothing to say.
        learns: (may be absent) False where failures and feedback change nothing.
    """

    @property
    def pooling(self) -> Literal["sum", "max"]: ...
    @property
    def expects(self) -> bool: ...
    @property
    def note(self) -> str: ...

    def values(self, rows: BoxRows) -> Array:
        """A value (N,) for each box; the images are complete. -inf: not this box (with "max")."""


class Ranker(Protocol):
    """A method, by name in `curator.registry.RANKERS`. Questions are fitted side by side, in threads.

    Attributes:
        reads_explanations: (may be absent) True where it learns from the regions that explanations blame.
    """

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> Scorer:
        """Learn from mined images what is asked."""


def image_scores(scorer: Scorer, rows: BoxRows) -> tuple[Ints, Array, Ints]:
    """Image ids (M,), their scores and the row of each one's best box; images complete and adjacent."""
    values = scorer.values(rows)
    images = Images.of(rows.image_ids)
    best = images.best(values)
    scores = images.sums(values) if scorer.pooling == "sum" else values[best]
    return images.ids, np.asarray(scores, np.float64), best
