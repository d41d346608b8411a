"""Kinds of like failures within what is asked: what diversity spreads a budget over.

In: boxes of failures with vectors. Out: clusters, and for any box the cluster and the failure it is most
like. One selector's failures have several causes, and nobody says which; a plain ranking spends the whole
budget on the cause that is easiest to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.represent.whiten import unit
from store.records import BoxRows, Floats, Ints

FEWEST = 6  # failures a kind, on average
MOST = 6  # kinds
EXAMPLES = 500  # failures that boxes are compared with, evenly
CHUNK = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """Clusters of failures.

    Attributes:
        names: of the clusters, e.g. "FN Car/2"; the bare name where there is one.
        views: compared, as one vector. examples: (K, D) unit vectors. outcome_ids, labels: (K,) of them.
    """

    names: tuple[str, ...]
    views: tuple[str, ...]
    examples: Floats
    outcome_ids: Ints
    labels: Ints

    @classmethod
    def of(cls, failures: BoxRows, name: str, views: Sequence[str], *, spread: bool, seed: int) -> Kinds:
        """Cluster failures by k-means on unit vectors.

        Args:
            spread: False: one cluster.
        """
        if len(failures) > EXAMPLES:
            failures = failures.take(np.linspace(0, len(failures) - 1, EXAMPLES).astype(np.int64))
        examples = vectors(failures, views)
        count = min(MOST, len(failures) // FEWEST) if spread else 1
        labels = np.zeros(len(failures), np.int64)
        if count > 1:
            from sklearn.cluster import KMeans

            found = KMeans(count, n_init=4, random_state=seed).fit_predict(examples.astype(np.float64))
            # By falling size, so that names say something.
            order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
            labels = np.argsort(order)[found].astype(np.int64)
        names = (name,) if count <= 1 else tuple(f"{name}/{i + 1}" for i in range(count))
        return cls(
            names=names,
            views=tuple(views),
            examples=examples,
            outcome_ids=failures.outcome_ids,
            labels=labels,
        )

    def most_like(self, rows: BoxRows) -> tuple[Ints | None, Floats | None]:
        """Outcome id of the failure most like each box (N,), and the cosine; None where nothing asks."""
        if not len(self.examples):
            return None, None
        places, cosines = self._best(rows)
        return self.outcome_ids[places], cosines

    def nearest(self, rows: BoxRows) -> NDArray[np.int64]:
        """The cluster (N,) of the failure most like each box."""
        if not len(self.examples):
            return np.zeros(len(rows), np.int64)
        return self.labels[self._best(rows)[0]]

    def _best(self, rows: BoxRows) -> tuple[Ints, Floats]:
        places, cosines = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
        for start in range(0, len(rows), CHUNK):
            part = np.arange(start, min(start + CHUNK, len(rows)))
            found = vectors(rows.take(part), self.views) @ self.examples.T
            places[part] = found.argmax(1)
            cosines[part] = found.max(1)
        return places, cosines


def vectors(rows: BoxRows, views: Sequence[str]) -> Floats:
    """Unit vectors (N, D) of the views, each view of equal weight."""
    parts = [unit(rows.components(view)) for view in views]
    return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(len(parts)), np.float32)
