"""The contrastive query: which boxes look like the failures and unlike everything that works.

In: vectors of failures (their boxes and, where they were explained, their culprit regions), and of all that the
mined images offer otherwise. Out: a few linear queries that score any box with vectors in the same views.

A query's view is Fisher's linear discriminant of some failures against the negatives (Fisher 1936; with few
positives and the covariance of the negatives it is the "exemplar LDA" of Hariharan, Malik and Ramanan, ECCV
2012):

    w = S^-1 (m_F - m_N),  score(v) = <w, v - m_N>

    symbol   code          meaning
    m_N, S   Whitening     mean and covariance of the negatives: successes, and boxes that touch no failure
    z        white         S^-1/2 (v - m_N); in z the discriminant is the mean of the failures

Whitening separates the cause from the nuisances (class, place, size, other objects): directions in which the
negatives vary anyway count little.

One selector's failures have several causes, and nobody says which. Every failure therefore proposes a query
from its nearest neighbours, in several views, by its box and by its culprit region. A proposal is judged as it will be
used: by how many failing images its best box ranks above the images without such failures, each failing image
scored by a query that has not seen it. Greedy facility location takes proposals until no more failures are
explained: mixtures of causes rank poorly and lose, and failures that resemble nothing do not ask. Each failure then joins
the query that ranks it highest, as in k-means, and the queries are fitted anew: a mean of many is less noisy
than one of few. What the detector said counts as evidence: a missed object lies where it said little, a false
positive where it said much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curator.whiten import Whitening, unit
from store.records import Floats, Ints

Array = NDArray[np.float64]
Source = Literal["box", "culprit"]

VIEWS = ("object", "context", "sides", "image")  # the order in which views are tried and added
NEIGHBOURS = (6, 16, 40)  # sizes of the neighbourhoods that propose queries
MOST = 12  # queries per kind of failure
ROUNDS = 3  # of joining and fitting anew
EXCEEDED = 0.005  # share of images without such failures that a proposal may rank above a failing image
HEIGHT, GAIN = 4.0, 6.0  # where height above the bar stops to count, and what a query must add, in deviations
DEVIATIONS = 3.5  # a failing image must also lie this far above the mean of those images


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
        return BoxTable(image_ids=self.image_ids[index], boxes=self.boxes[index], ids=self.ids[index],
                        outcome_ids=self.outcome_ids[index], evidence=self.evidence[index],
                        views={name: values[index] for name, values in self.views.items()})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveQuery:
    """One linear query.

    Attributes:
        name: e.g. "FN/2". outcome_ids: the failures that ask, those it was made from first.
        source: what of them was compared. views: those used.
        separation: AUC of the failing images against those without such failures, held out; nan with one.
        covered: failing images that it ranks above nearly all of the others. bar: the score needed for that.
        limits: evidence that a box must lie between.
    """

    name: str
    outcome_ids: tuple[int, ...]
    source: Source
    views: tuple[str, ...]
    separation: float
    covered: int
    bar: float
    limits: tuple[float, float]
    whitenings: Mapping[str, Whitening]
    direction: Array
    scale: tuple[float, float]
    examples: Array

    @property
    def weight(self) -> float:
        """What its share of a budget grows with."""
        return float(max(self.covered, 1))

    def score(self, table: BoxTable) -> Array:
        """Scores (N,) of boxes: 0 is the typical best box of an image without such failures, 1 a deviation
        above; -inf where the detector's evidence is not that of these failures."""
        low, high = self.limits
        raw = _joined(table, self.whitenings, self.views) @ self.direction
        return np.where((table.evidence >= low) & (table.evidence <= high), (raw - self.scale[0]) / self.scale[1],
                        -np.inf)

    def vectors(self, table: BoxTable) -> Array:
        """Unit vectors (N, D) of boxes in the whitened views used."""
        return unit(_joined(table, self.whitenings, self.views))

    def nearest(self, table: BoxTable) -> Ints:
        """The asking failure most like each box -> outcome ids (N,)."""
        best = (self.vectors(table) @ self.examples.T).argmax(1)
        return np.asarray(np.array(self.outcome_ids, np.int64)[best])

    def describe(self) -> dict[str, Any]:
        """What is told about the query, as plain JSON."""
        separation = None if np.isnan(self.separation) else round(self.separation, 4)
        return {"name": self.name, "failures": len(self.outcome_ids), "covered": self.covered,
                "source": self.source, "views": list(self.views), "separation": separation}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityQuery:
    """The baseline: a box scores its highest cosine to a failure's box, in standardised vectors."""

    name: str
    view: str
    outcome_ids: tuple[int, ...]
    mean: Array
    deviation: Array
    examples: Array

    @classmethod
    def fit(cls, failures: BoxTable, reference: BoxTable, *, name: str, view: str) -> SimilarityQuery:
        """`reference` gives mean and deviation of every dimension."""
        data = np.asarray(reference.views[view], dtype=np.float64)
        mean, deviation = data.mean(0), np.maximum(data.std(0), 1e-6)
        return cls(name=name, view=view, outcome_ids=tuple(int(i) for i in failures.outcome_ids), mean=mean,
                   deviation=deviation, examples=unit((failures.views[view] - mean) / deviation))

    @property
    def weight(self) -> float:
        """The number of failures."""
        return float(len(self.outcome_ids))

    def vectors(self, table: BoxTable) -> Array:
        """Unit vectors (N, D) of boxes."""
        return unit((table.views[self.view] - self.mean) / self.deviation)

    def score(self, table: BoxTable) -> Array:
        """Scores (N,) in [-1, 1] of boxes."""
        return np.asarray((self.vectors(table) @ self.examples.T).max(1))

    def nearest(self, table: BoxTable) -> Ints:
        """The failure most like each box -> outcome ids (N,)."""
        best = (self.vectors(table) @ self.examples.T).argmax(1)
        return np.asarray(np.array(self.outcome_ids, np.int64)[best])

    def describe(self) -> dict[str, Any]:
        """What is told about the query, as plain JSON."""
        return {"name": self.name, "failures": len(self.outcome_ids), "views": [self.view]}


def fit_queries(examples: Sequence[Examples], negatives: BoxTable, mined: BoxTable, *, kind: Literal["FN", "FP"],
                views: Sequence[str]) -> list[ContrastiveQuery]:
    """Fit the queries of one kind of failure.

    Args:
        examples: per source, the failures.
        negatives: successes, and boxes of mined images that touch no failure and no culprit.
        mined: all boxes of the mined images that a pool image would offer too.
        views: the views to choose from.
    Returns:
        queries by falling number of failing images covered; at least one.
    """
    limits = _limits(examples, kind)
    near = (negatives.evidence >= limits[0]) & (negatives.evidence <= limits[1])
    negatives = negatives.take(near) if near.sum() >= 200 else negatives
    mined = mined.take((mined.evidence >= limits[0]) & (mined.evidence <= limits[1]))
    whitenings = {view: Whitening.fit(negatives.views[view]) for view in views}
    judge = _Judge(negatives, mined, np.unique(np.concatenate([e.table.image_ids for e in examples])), whitenings)
    chosen = _cover([p for e in examples for subset in _subsets(e, views) for p in _proposals(e, subset, judge)])
    for _ in range(ROUNDS):
        chosen = _cover(_refitted(chosen, judge))
    queries = [judge.query(proposal, f"{kind}/{number}", limits) for number, proposal in enumerate(chosen, start=1)]
    return sorted(queries, key=lambda query: -query.covered)


def _limits(examples: Sequence[Examples], kind: str) -> tuple[float, float]:
    """The evidence at which such failures lie, from boxes that a pool image offers too."""
    box = next(e for e in examples if e.source == "box")
    found = np.concatenate([box.twins.evidence, box.table.evidence])
    if kind == "FP":
        return float(np.quantile(found, 0.05)), np.inf
    return -np.inf, float(np.quantile(found, 0.95))


def _subsets(examples: Examples, views: Sequence[str]) -> list[tuple[str, ...]]:
    """Views to try: the first alone, the first two, ..., all; a culprit has no surroundings of its own."""
    known = sorted(views, key=lambda view: (VIEWS.index(view) if view in VIEWS else len(VIEWS), view))
    own = [view for view in known if view in examples.table.views]
    return [tuple(own[: n + 1]) for n in range(len(own))]


def _joined(table: BoxTable, whitenings: Mapping[str, Whitening], views: Sequence[str]) -> Array:
    return np.concatenate([whitenings[view](table.views[view]) for view in views], axis=1)


class _Groups:
    """Rows by image."""

    def __init__(self, image_ids: Ints) -> None:
        self.order = np.argsort(image_ids, kind="stable")
        self.values, self.starts = np.unique(image_ids[self.order], return_index=True)

    def maxima(self, scores: Array) -> Array:
        """Highest score per image: (rows, Q) -> (images, Q)."""
        return np.asarray(np.maximum.reduceat(scores[self.order], self.starts, axis=0))

    def place(self, image: int) -> int | None:
        """Where an image stands in `values`; None where it offers no row."""
        found = int(np.searchsorted(self.values, image))
        return found if found < len(self.values) and self.values[found] == image else None

    def rows(self, place: int) -> Ints:
        """Row indices of the image at a place."""
        end = self.starts[place + 1] if place + 1 < len(self.starts) else len(self.order)
        return np.asarray(self.order[self.starts[place]: end])


@dataclass(frozen=True, slots=True)
class _Space:
    """Whitened vectors in some views: of failures (n, D), of clean images' boxes and failing images' boxes."""

    source: Source
    views: tuple[str, ...]
    prototypes: Array
    outcome_ids: Ints
    owner: Ints
    quiet: Array
    loud: Array


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A query from the mean of some failures (rows of its space), and how it ranks.

    `held`: per failing image its best score, by a query that has not seen it. `mean`, `deviation`, `bar`: of
    clean images' best scores.
    """

    space: _Space
    members: Ints
    held: Array
    mean: float
    deviation: float
    bar: float

    @property
    def excess(self) -> Array:
        return (self.held - self.bar) / self.deviation

    @property
    def covers(self) -> NDArray[np.bool_]:
        return self.held > self.bar


class _Judge:
    """Ranks failing images against those without such failures, by their best boxes."""

    def __init__(self, negatives: BoxTable, mined: BoxTable, failing: Ints, whitenings: Mapping[str, Whitening]) -> None:
        clean = ~np.isin(negatives.image_ids, failing)
        enough = len(np.unique(negatives.image_ids[clean])) >= 50
        self.clean = negatives.take(clean) if enough else negatives
        self.mined = mined.take(np.isin(mined.image_ids, failing))
        self.clean_groups, self.groups = _Groups(self.clean.image_ids), _Groups(self.mined.image_ids)
        self.whitenings = whitenings

    def space(self, examples: Examples, views: tuple[str, ...]) -> _Space:
        """Whiten what is compared in these views."""
        return _Space(examples.source, views, _prototypes(examples, views, self.whitenings),
                      examples.table.outcome_ids, examples.table.image_ids,
                      _joined(self.clean, self.whitenings, views), _joined(self.mined, self.whitenings, views))

    def proposals(self, space: _Space, members: Sequence[Ints]) -> list[_Proposal]:
        """Judge queries by their members."""
        directions = unit(np.stack([space.prototypes[own].mean(0) for own in members]))
        best = self.clean_groups.maxima(space.quiet @ directions.T)  # (clean images, Q)
        mean, deviation = best.mean(0), np.maximum(best.std(0), 1e-9)
        bar = np.maximum(np.quantile(best, 1 - EXCEEDED, axis=0), mean + DEVIATIONS * deviation)
        held = self.groups.maxima(space.loud @ directions.T)  # (failing images, Q)
        for q, own in enumerate(members):
            for image in np.unique(space.owner[own]):
                others, place = own[space.owner[own] != image], self.groups.place(int(image))
                if place is not None and len(others):
                    direction = unit(space.prototypes[others].mean(0, keepdims=True))[0]
                    held[place, q] = (space.loud[self.groups.rows(place)] @ direction).max()
        return [_Proposal(space, own, held[:, q], float(mean[q]), float(deviation[q]), float(bar[q]))
                for q, own in enumerate(members)]

    def query(self, proposal: _Proposal, name: str, limits: tuple[float, float]) -> ContrastiveQuery:
        """The query of a proposal."""
        space, members = proposal.space, proposal.members
        direction = unit(space.prototypes[members].mean(0, keepdims=True))[0]
        best = self.clean_groups.maxima((space.quiet @ direction)[:, None])[:, 0]
        own = np.isin(self.groups.values, space.owner[members])
        separation = area_under_curve(proposal.held[own], best) if own.sum() > 1 else np.nan
        return ContrastiveQuery(
            name=name, outcome_ids=tuple(int(i) for i in space.outcome_ids[members]), source=space.source,
            views=space.views, separation=separation, covered=int(proposal.covers.sum()), limits=limits,
            bar=(proposal.bar - proposal.mean) / proposal.deviation, direction=direction,
            scale=(proposal.mean, proposal.deviation), examples=unit(space.prototypes[members]),
            whitenings={view: self.whitenings[view] for view in space.views})


def _prototypes(examples: Examples, views: Sequence[str], whitenings: Mapping[str, Whitening]) -> Array:
    """Per failure the mean of its own whitened vector and its twins' -> (n, D)."""
    own = _joined(examples.table, whitenings, views)
    if len(examples.twins):
        place = {int(outcome): row for row, outcome in enumerate(examples.table.outcome_ids)}
        rows = np.array([place[int(outcome)] for outcome in examples.twins.outcome_ids])
        np.add.at(own, rows, _joined(examples.twins, whitenings, views))
        own /= (1 + np.bincount(rows, minlength=len(own)))[:, None]
    return own


def _proposals(examples: Examples, views: tuple[str, ...], judge: _Judge) -> list[_Proposal]:
    """Every failure's neighbourhoods as queries."""
    space = judge.space(examples, views)
    near = unit(space.prototypes)
    ranked = np.argsort(-(near @ near.T), axis=1, kind="stable")
    sizes = dict.fromkeys(min(size, len(near)) for size in NEIGHBOURS)
    return judge.proposals(space, [row[:size] for size in sizes for row in ranked])


def _cover(proposals: Sequence[_Proposal]) -> list[_Proposal]:
    """Greedy facility location: maximise the sum over failing images of the height above the bar, in deviations
    and capped, at which the best of the chosen queries ranks them."""
    excess = np.stack([np.clip(p.excess, 0, HEIGHT) for p in proposals])
    reached = np.zeros(excess.shape[1])
    chosen: list[_Proposal] = []
    while len(chosen) < MOST:
        gains = np.maximum(excess - reached, 0).sum(1)
        best = int(np.argmax(gains))
        if chosen and gains[best] < GAIN:
            break
        chosen.append(proposals[best])
        reached = np.maximum(reached, excess[best])
    return chosen


def _refitted(chosen: Sequence[_Proposal], judge: _Judge) -> list[_Proposal]:
    """Let every failing image join the query that ranks it highest above its bar; fit each query anew."""
    excess = np.stack([p.excess for p in chosen])  # (Q, failing images)
    best = excess.argmax(0)
    found = []
    for q, proposal in enumerate(chosen):
        joined = judge.groups.values[(best == q) & (excess[q] > 0)]
        members = np.flatnonzero(np.isin(proposal.space.owner, joined))
        found.append(judge.proposals(proposal.space, [members])[0] if len(members) >= 2 else proposal)
    return found


def area_under_curve(good: Array, bad: Array) -> float:
    """Probability that a good score exceeds a bad one, ties counting half."""
    ordered = np.sort(bad)
    below, upto = np.searchsorted(ordered, good, "left"), np.searchsorted(ordered, good, "right")
    return float((below + upto).sum() / (2 * len(good) * len(bad)))
