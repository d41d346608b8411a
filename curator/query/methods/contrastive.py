"""Contrastive queries (`curator.query.contrast`): what looks like the failures and unlike what works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from curator.query.asked import Asked, Mined, main_view, overlaps
from curator.query.base import BoxTable, ContrastiveQuery, Examples
from curator.query.contrast import fit_queries
from curator.query.evidence import NAMES, evidence, log_odds
from curator.query.methods.base import Array, Scorer
from curator.query.methods.plain import ClassUncertainty
from store.records import BoxRows

TWIN = 0.5  # IoU at which a mined image's box shows the failure too
TWIN_REGION = 0.35  # the same for a culprit region, whose outline is rough
CLEAR = 0.2  # IoU below which it shows something else


def box_table(rows: BoxRows, asked: Asked, views: Sequence[str], *, complete: bool) -> BoxTable:
    """Boxes as contrastive queries read them; evidence only of complete images."""
    # The best score of any class at the box: its own, or what overlaps it.
    best = log_odds(rows.scores[:, 0])
    if complete and len(rows):
        best = np.maximum(best, evidence(rows, asked)[:, NAMES.index("near_own")])
    return BoxTable(
        image_ids=rows.image_ids,
        boxes=rows.boxes,
        ids=rows.rows,
        outcome_ids=rows.outcome_ids,
        evidence=np.asarray(best, np.float32),
        views={view: rows.components(view) for view in views},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveScorer:
    """Queries of one kind; a box's value is its highest height above a query's bar, in deviations."""

    asked: Asked
    queries: tuple[ContrastiveQuery, ...]
    views: tuple[str, ...]
    pooling: Literal["sum", "max"] = "max"
    expects: bool = False
    note: str = ""

    def values(self, rows: BoxRows) -> Array:
        """Heights above the bars; -inf where the detector's evidence is not that of these failures."""
        table = box_table(rows, self.asked, self.views, complete=True)
        heights = np.stack([query.score(table) - query.bar for query in self.queries])
        return np.asarray(heights.max(0), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrastive:
    """See the module."""

    reads_explanations: bool = True

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> Scorer:
        """Fit the queries."""
        views = (*mined.offered.views, *mined.offered.image_views)
        offered = box_table(mined.offered, asked, views, complete=True)
        outcomes = box_table(mined.outcomes, asked, views, complete=False)
        outcomes = _evident(outcomes, mined)
        failing = np.array([i for i, o in mined.known.items() if asked.matches(o)], np.int64)
        own = outcomes.take(np.isin(outcomes.outcome_ids, failing))
        if not len(own):
            return ClassUncertainty(asked=asked, note=f"{asked.name}: no failure has vectors")
        wrong = mined.outcome_kinds != "TP"
        failures = mined.outcomes.take(wrong)
        near = overlaps(mined.offered, failures.image_ids, failures.boxes)[0] >= CLEAR
        examples = [Examples(source="box", table=own, twins=_twins(offered, mined, own, TWIN))]
        if mined.culprits is not None:
            regions = mined.culprits.take(np.isin(mined.culprits.outcome_ids, failing))
            near |= overlaps(mined.offered, mined.culprits.image_ids, mined.culprits.boxes)[0] >= CLEAR
            if len(regions):
                first = (main_view(regions.views),)
                table = box_table(regions, asked, first, complete=False)
                examples.append(
                    Examples(source="culprit", table=table, twins=_twins(offered, mined, table, TWIN_REGION))
                )
        near |= mined.silent(asked, mined.offered.image_ids)
        negatives = _stacked(offered.take(~near), outcomes.take(mined.outcome_kinds == "TP"))
        queries = fit_queries(examples, negatives, offered, kind=asked.kind, views=views)
        return ContrastiveScorer(asked=asked, queries=tuple(queries), views=views)


def _evident(outcomes: BoxTable, mined: Mined) -> BoxTable:
    """Outcomes with their own scores as evidence."""
    score = np.array([mined.known[int(i)].score for i in outcomes.outcome_ids], np.float64)
    return replace(outcomes, evidence=log_odds(score))


def _twins(offered: BoxTable, mined: Mined, own: BoxTable, least: float) -> BoxTable:
    """Offered boxes that overlap a row of `own`, with its outcome id."""
    best, which = overlaps(mined.offered, own.image_ids, own.boxes)
    rows = np.flatnonzero(best >= least)
    return replace(offered.take(rows), outcome_ids=own.outcome_ids[which[rows]])


def _stacked(a: BoxTable, b: BoxTable) -> BoxTable:
    return BoxTable(
        image_ids=np.concatenate([a.image_ids, b.image_ids]),
        boxes=np.concatenate([a.boxes, b.boxes]),
        ids=np.concatenate([a.ids, b.ids]),
        outcome_ids=np.concatenate([a.outcome_ids, b.outcome_ids]),
        evidence=np.concatenate([a.evidence, b.evidence]),
        views={view: np.concatenate([a.views[view], b.views[view]]) for view in a.views},
    )
