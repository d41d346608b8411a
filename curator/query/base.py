"""Contrastive queries: boxes with their vectors, and what scores them.

In: a table of boxes with vectors in several views. Out: scores, and which failure each box resembles.
`curator.query.contrast` fits contrastive queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curator.represent.whiten import Whitening, unit
from store.records import Floats, Ints

Array = NDArray[np.floating]
Source = Literal["box", "culprit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTable:
    """Boxes with their vectors; row i of every field describes box i.

    Attributes:
        image_ids: (N,). boxes: (N, 4) stored-image pixels.
        ids: (N,) vector ids. outcome_ids: (N,), -1 where the box is no outcome's.
        evidence: (N,) log-odds of the best detector candidate there.
        views: {view: (N, D)}.
    """

    image_ids: Ints
    boxes: Floats
    ids: Ints
    outcome_ids: Ints
    evidence: Floats
    views: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> BoxTable:
        """The rows that a mask or an index array picks."""
        return BoxTable(
            image_ids=self.image_ids[index],
            boxes=self.boxes[index],
            ids=self.ids[index],
            outcome_ids=self.outcome_ids[index],
            evidence=self.evidence[index],
            views={name: values[index] for name, values in self.views.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Vectors of failures from one source.

    Attributes:
        source: "box", or "culprit": the region that an attribution blames.
        table: one row per failure; views that a culprit has not ("context", ...) are absent.
        twins: boxes that a pool image would offer too (candidates, windows, cells) and that overlap a row of
            `table`; `outcome_ids` says whose.
    """

    source: Source
    table: BoxTable
    twins: BoxTable


def whitened(table: BoxTable, whitenings: Mapping[str, Whitening], views: Sequence[str]) -> Array:
    """Whitened vectors (N, D) of boxes in some views, one after the other."""
    return np.concatenate([whitenings[view](table.views[view]) for view in views], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveQuery:
    """One linear query.

    Attributes:
        name: e.g. "FN/2". outcome_ids: the failures that ask, those it was made from first.
        source: what of them was compared. views: those used.
        separation: AUC of the failing images against those without such failures, held out; nan with one.
        found: ids of the failing images that it ranks above nearly all of the others. bar: the score needed
            for that.
        limits: evidence that a box must lie between.
    """

    name: str
    outcome_ids: tuple[int, ...]
    source: Source
    views: tuple[str, ...]
    separation: float
    found: tuple[int, ...]
    bar: float
    limits: tuple[float, float]
    whitenings: Mapping[str, Whitening]
    direction: Array
    scale: tuple[float, float]
    examples: Array

    @property
    def covered(self) -> int:
        """Number of failing images that it ranks above nearly all of the others."""
        return len(self.found)

    def score(self, table: BoxTable) -> Array:
        """Scores (N,) of boxes: 0 is the typical best box of an image without such failures, 1 a deviation
        above; -inf where the detector's evidence is not that of these failures."""
        low, high = self.limits
        widths = [table.views[view].shape[1] for view in self.views]
        parts = np.split(self.direction, np.cumsum(widths)[:-1])
        raw = np.sum(
            [
                self.whitenings[view].along(table.views[view], part)
                for view, part in zip(self.views, parts, strict=True)
            ],
            axis=0,
        )
        return np.where(
            (table.evidence >= low) & (table.evidence <= high), (raw - self.scale[0]) / self.scale[1], -np.inf
        )

    def vectors(self, table: BoxTable) -> Array:
        """Unit vectors (N, D) of boxes in the whitened views used."""
        return unit(whitened(table, self.whitenings, self.views))

    def nearest(self, table: BoxTable) -> Ints:
        """The asking failure most like each box -> outcome ids (N,)."""
        best = (self.vectors(table) @ self.examples.T).argmax(1)
        return np.asarray(np.array(self.outcome_ids, np.int64)[best])

    def describe(self) -> dict[str, Any]:
        """What is told about the query, as plain JSON."""
        separation = None if np.isnan(self.separation) else round(self.separation, 4)
        return {
            "name": self.name,
            "failures": len(self.outcome_ids),
            "covered": self.covered,
            "source": self.source,
            "views": list(self.views),
            "separation": separation,
        }
