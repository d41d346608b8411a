"""S: how like a box is to failures, to what is none, and to successes.

In: int8 components of boxes and of reference boxes. Out: per view four cosines: to the most similar failure,
the mean of the three most similar failures, the mean of the five most similar negatives, the most similar
success. In training the references on a box's own image are left out, or the model learns that a failure
resembles itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curator.represent.whiten import unit
from store.records import BoxRows, Floats, Ints

CHUNK = 8192  # boxes at a time
PER_VIEW = 4
MOST = (300, 500, 300)  # references kept of failures, negatives, successes: evenly, where there are more
ALONE = 0.0  # of a box that has nothing to be compared with


@dataclass(frozen=True, slots=True)
class References:
    """Boxes that others are compared with.

    Attributes:
        image_ids: (K,). vectors: view -> (K, D) unit vectors.
    """

    image_ids: Ints
    vectors: dict[str, Floats]

    @classmethod
    def of(cls, rows: BoxRows, views: Sequence[str], most: int) -> References:
        """At most `most` rows, evenly spread over their order."""
        if len(rows) > most:
            rows = rows.take(np.linspace(0, len(rows) - 1, most).astype(np.int64))
        return cls(rows.image_ids, {view: unit(rows.components(view)).astype(np.float32) for view in views})


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarities to failures, negatives and successes."""

    views: tuple[str, ...]
    failures: References
    negatives: References
    successes: References

    @classmethod
    def of(cls, failures: BoxRows, negatives: BoxRows, successes: BoxRows, views: Sequence[str]) -> Likeness:
        """From the mined boxes of each."""
        found = (
            References.of(rows, views, most)
            for rows, most in zip((failures, negatives, successes), MOST, strict=True)
        )
        return cls(tuple(views), *found)

    def __call__(self, rows: BoxRows) -> Floats:
        """Similarities (N, 4 x views) in [-1, 1], to references on other images."""
        result = np.full((len(rows), PER_VIEW * len(self.views)), ALONE, np.float32)
        for number, view in enumerate(self.views):
            vectors = unit(rows.components(view)).astype(np.float32)
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                to = [
                    _top(vectors[part], rows.image_ids[part], references, view, k)
                    for references, k in ((self.failures, 3), (self.negatives, 5), (self.successes, 1))
                ]
                columns = (to[0][:, 0], to[0].mean(1), to[1].mean(1), to[2][:, 0])
                result[part, PER_VIEW * number : PER_VIEW * (number + 1)] = np.stack(columns, axis=1)
        return result


def _top(vectors: Floats, image_ids: Ints, references: References, view: str, k: int) -> Floats:
    """The k highest cosines (n, k), best first; `ALONE` where there are no references."""
    others = references.vectors[view]
    if not len(others):
        return np.full((len(vectors), 1), ALONE, np.float32)
    cosines = vectors @ others.T
    cosines[_own(image_ids, references.image_ids)] = -np.inf
    k = min(k, cosines.shape[1])
    best = np.empty((len(vectors), k), np.float32)
    every = np.arange(len(vectors))
    for rank in range(k):  # k of at most 5 passes cost a third of a partition
        first = cosines.argmax(axis=1)
        best[:, rank] = cosines[every, first]
        cosines[every, first] = -np.inf
    alone = np.isneginf(best)
    # Fewer than k on other images: the mean of those there are.
    known = np.where(alone, 0, best).sum(1) / np.maximum((~alone).sum(1), 1)
    return np.asarray(np.where(alone, known[:, None], best), np.float32)


def _own(image_ids: Ints, others: Ints) -> tuple[Ints, Ints]:
    """Pairs (row, reference) of one image."""
    order = np.argsort(others, kind="stable")
    first = np.searchsorted(others, image_ids, "left", sorter=order)
    count = np.searchsorted(others, image_ids, "right", sorter=order) - first
    rows = np.repeat(np.arange(len(image_ids)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, order[first[rows] + within]
