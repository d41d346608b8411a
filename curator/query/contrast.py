"""Fitting contrastive queries: what looks like the failures and unlike everything that works.

In: vectors of failures (their boxes and, where they were explained, their culprit regions), and of all that
the mined images offer otherwise. Out: a few linear queries that score any box with vectors in the same views.

A query's view is Fisher's linear discriminant of some failures against the negatives (Fisher 1936; with few
positives and the covariance of the negatives it is the "exemplar LDA" of Hariharan, Malik and Ramanan, ECCV
2012):

    w = S^-1 (m_F - m_N),  score(v) = <w, v - m_N>

    symbol   code          meaning
    m_N, S   Whitening     mean and covariance of negatives: successes, boxes that touch no failure
    z        white         S^-1/2 (v - m_N); in z the discriminant is the mean of the failures

Whitening separates the cause from the nuisances (class, place, size, other objects): directions in which the
negatives vary anyway count little.

One selector's failures have several causes, and nobody says which. Every failure therefore proposes a query
from its nearest neighbours, in several views, by its box and by its culprit region. A proposal is judged as
it will be used: by how many failing images its best box ranks above the images without such failures, each
failing image scored by a query that has not seen it. Greedy facility location takes proposals until no more
failures are explained: mixtures of causes rank poorly and lose, and failures that resemble nothing do not
ask. Each failure then joins the query that ranks it highest, as in k-means, and the queries are fitted
anew: a mean of many is less noisy than one of few. What the detector said counts as evidence: a missed
object lies where it said little, a false positive where it said much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curator.query.base import BoxTable, ContrastiveQuery, Examples, Source, whitened
from curator.represent.whiten import Whitening, unit
from store.records import Ints

Array = NDArray[np.floating]

VIEWS = ("object", "context", "sides", "image")  # the order in which views are tried and added
NEIGHBOURS = (6, 16, 40)  # sizes of the neighbourhoods that propose queries
MOST = 12  # queries per kind of failure
SEEDS = 1000  # failures per source that propose; more are taken evenly
IMAGES = 2000  # failing, and clean, images that proposals are judged on; of more, evenly
ROUNDS = 3  # of joining and fitting anew
EXCEEDED = 0.005  # share of images without such failures that a proposal may rank above a failing image
HEIGHT, GAIN = 4.0, 6.0  # where height above the bar stops to count, and what a query must add, in deviations
DEVIATIONS = 3.5  # a failing image must also lie this far above the mean of those images


def fit_queries(
    examples: Sequence[Examples],
    negatives: BoxTable,
    mined: BoxTable,
    *,
    kind: Literal["FN", "FP"],
    views: Sequence[str],
) -> list[ContrastiveQuery]:
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
    judge = _Judge(
        negatives, mined, np.unique(np.concatenate([e.table.image_ids for e in examples])), whitenings
    )
    chosen = _cover(
        [p for e in examples for subset in _subsets(e, views) for p in _proposals(e, subset, judge)]
    )
    for _ in range(ROUNDS):
        chosen = _cover(_refitted(chosen, judge))
    queries = [
        judge.query(proposal, f"{kind}/{number}", limits) for number, proposal in enumerate(chosen, start=1)
    ]
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


def _evenly(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of the values, evenly spread over their order."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(int)]


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
        return np.asarray(self.order[self.starts[place] : end])


@dataclass(frozen=True, slots=True)
class _Space:
    """Whitened vectors: of failures (n, D), and per view those of clean and of failing images' boxes."""

    source: Source
    views: tuple[str, ...]
    prototypes: Array
    outcome_ids: Ints
    owner: Ints
    quiet: tuple[Array, ...]
    loud: tuple[Array, ...]


def _scores(parts: Sequence[Array], directions: Array, rows: Ints | slice = slice(None)) -> Array:
    """Vectors given per view times directions (D, Q) -> (rows, Q)."""
    ends = np.cumsum([part.shape[1] for part in parts])
    pieces = np.split(directions.astype(np.float32), ends[:-1])
    return np.asarray(sum(part[rows] @ piece for part, piece in zip(parts, pieces, strict=True)))


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

    def __init__(
        self, negatives: BoxTable, mined: BoxTable, failing: Ints, whitenings: Mapping[str, Whitening]
    ) -> None:
        clean = ~np.isin(negatives.image_ids, failing)
        enough = len(np.unique(negatives.image_ids[clean])) >= 50
        quiet = np.unique(negatives.image_ids[clean] if enough else negatives.image_ids)
        self.clean = negatives.take(np.isin(negatives.image_ids, _evenly(quiet, IMAGES)))
        self.mined = mined.take(np.isin(mined.image_ids, _evenly(failing, IMAGES)))
        self.clean_groups, self.groups = _Groups(self.clean.image_ids), _Groups(self.mined.image_ids)
        self.whitenings = whitenings
        self.white = {
            view: (whiten(self.clean.views[view]), whiten(self.mined.views[view]))
            for view, whiten in whitenings.items()
        }

    def space(self, examples: Examples, views: tuple[str, ...]) -> _Space:
        """Whiten what is compared in these views."""
        return _Space(
            examples.source,
            views,
            _prototypes(examples, views, self.whitenings),
            examples.table.outcome_ids,
            examples.table.image_ids,
            tuple(self.white[view][0] for view in views),
            tuple(self.white[view][1] for view in views),
        )

    def proposals(self, space: _Space, members: Sequence[Ints]) -> list[_Proposal]:
        """Judge queries by their members (rows of the space's prototypes)."""
        taking = np.zeros((len(members), len(space.prototypes)), np.float32)  # (Q, n)
        for q, own in enumerate(members):
            taking[q, own] = 1
        sums = taking @ space.prototypes  # (Q, D)
        norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-9)
        best = self.clean_groups.maxima(_scores(space.quiet, sums.T) / norms)  # (clean images, Q)
        mean, deviation = best.mean(0), np.maximum(best.std(0), 1e-9)
        bar = np.maximum(np.quantile(best, 1 - EXCEEDED, axis=0), mean + DEVIATIONS * deviation)
        raw = _scores(space.loud, sums.T)  # (rows, Q)
        held = self.groups.maxima(raw / norms)  # (failing images, Q)
        along = sums @ space.prototypes.T  # (Q, n)
        for image in np.unique(space.owner):
            place, own = self.groups.place(int(image)), np.flatnonzero(space.owner == image)
            seen = np.flatnonzero(taking[:, own].any(1) & (taking.sum(1) > taking[:, own].sum(1)))
            if place is None or not len(seen):
                continue
            # Without the image's own prototypes P: (s - sum P) . v and |s - sum P|, from products at hand.
            rows, less, mine = self.groups.rows(place), taking[np.ix_(seen, own)], space.prototypes[own]
            score = raw[np.ix_(rows, seen)] - _scores(space.loud, mine.T, rows) @ less.T
            square = norms[seen] ** 2 - 2 * (less * along[np.ix_(seen, own)]).sum(1)
            square += np.einsum("qi,ij,qj->q", less, mine @ mine.T, less)
            held[place, seen] = score.max(0) / np.sqrt(np.maximum(square, 1e-12))
        return [
            _Proposal(space, own, held[:, q], float(mean[q]), float(deviation[q]), float(bar[q]))
            for q, own in enumerate(members)
        ]

    def query(self, proposal: _Proposal, name: str, limits: tuple[float, float]) -> ContrastiveQuery:
        """The query of a proposal."""
        space, members = proposal.space, proposal.members
        direction = unit(space.prototypes[members].mean(0, keepdims=True))[0]
        best = self.clean_groups.maxima(_scores(space.quiet, direction[:, None]))[:, 0]
        own = np.isin(self.groups.values, space.owner[members])
        separation = area_under_curve(proposal.held[own], best) if own.sum() > 1 else np.nan
        return ContrastiveQuery(
            name=name,
            outcome_ids=tuple(int(i) for i in space.outcome_ids[members]),
            source=space.source,
            views=space.views,
            separation=separation,
            found=tuple(int(image) for image in self.groups.values[proposal.covers]),
            limits=limits,
            bar=(proposal.bar - proposal.mean) / proposal.deviation,
            direction=direction,
            scale=(proposal.mean, proposal.deviation),
            examples=unit(space.prototypes[members]),
            whitenings={view: self.whitenings[view] for view in space.views},
        )


def _prototypes(examples: Examples, views: Sequence[str], whitenings: Mapping[str, Whitening]) -> Array:
    """Per failure the mean of its own whitened vector and its twins' -> (n, D)."""
    own = whitened(examples.table, whitenings, views)
    if len(examples.twins):
        place = {int(outcome): row for row, outcome in enumerate(examples.table.outcome_ids)}
        rows = np.array([place[int(outcome)] for outcome in examples.twins.outcome_ids])
        np.add.at(own, rows, whitened(examples.twins, whitenings, views))
        own /= (1 + np.bincount(rows, minlength=len(own)))[:, None]
    return own


def _proposals(examples: Examples, views: tuple[str, ...], judge: _Judge) -> list[_Proposal]:
    """Every failure's neighbourhoods as queries."""
    space = judge.space(examples, views)
    near = unit(space.prototypes)
    asking = _evenly(np.arange(len(near)), SEEDS)
    ranked = np.argsort(-(near[asking] @ near.T), axis=1, kind="stable")
    sizes = dict.fromkeys(min(size, len(near)) for size in NEIGHBOURS)
    return [p for size in sizes for p in judge.proposals(space, [row[:size] for row in ranked])]


def _cover(proposals: Sequence[_Proposal]) -> list[_Proposal]:
    """Greedy facility location: maximise the sum over failing images of the height above the bar, in
    deviations and capped, at which the best of the chosen queries ranks them."""
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
    """Probability that a good score exceeds a bad one, ties counting half; both hold one at least."""
    from sklearn.metrics import roc_auc_score  # slow to load

    is_good = np.repeat([True, False], [len(good), len(bad)])
    return float(roc_auc_score(is_good, np.concatenate([good, bad])))
