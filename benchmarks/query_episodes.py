"""Episodes and the methods that answer them (`query_real.py`).

An `Episode` is all that a query may know: the mined half with its outcomes, and what the pool offers. A
method answers with a score per pool image, and where it can with the number of failures that it expects
there. The pool's truth is kept apart, for the judge and for the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from query_looks import CRITERIA, Look, Packing, packed, rows_of
from query_splits import LEAST_BY_CAUSE, LEAST_FAILURES, LEAST_IMAGES, halves

from curator.boxes import iou
from curator.query.base import BoxTable, Examples, SimilarityQuery
from curator.query.contrast import fit_queries
from curator.query.run_tables import best_overlap, rows_by_image, twins
from store.records import Floats, Ints, Outcome
from store.records.box_rows import BoxRows

Scores = NDArray[np.floating]
DRAWS = 50  # of random
EVIDENT, TWIN, CLEAR = 0.4, 0.5, 0.2  # overlaps of today's query (curator.query.run)


@dataclass(frozen=True, kw_only=True)
class Half:
    """What the episodes of one (set, detector, split) have in common.

    Attributes:
        mined, pool: boxes that the images offer; every image offers one at least.
        mined_images, pool_images: (I,), (M,) image ids, each in the order of the split.
        outcome_rows: boxes of the mined images' outcomes. outcomes: these, in the order of the rows.
        labels_of: class -> the detector's labels. threshold: of a detection.
    """

    dataset: str
    detector: str
    split: int
    mined: BoxRows
    mined_images: Ints
    outcome_rows: BoxRows
    outcomes: tuple[Outcome, ...]
    pool: BoxRows
    pool_images: Ints
    labels_of: Mapping[str, tuple[int, ...]]
    threshold: float
    memory: dict[str, Any]  # what methods keep from one episode to the next


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One question: which pool images hold failures of this kind, class and (unless None) cause."""

    half: Half
    kind: str
    category: str
    cause: str | None

    @property
    def labels(self) -> tuple[int, ...]:
        """The detector's labels of the asked class."""
        return self.half.labels_of[self.category]

    @property
    def asked(self) -> list[Outcome]:
        """The mined failures that ask."""
        return [o for o in self.half.outcomes if self.holds(o)]

    @property
    def selector(self) -> tuple[str, str, str, str, str]:
        """The cluster of the bootstrap."""
        return (self.half.dataset, self.half.detector, self.kind, self.category, self.cause or "")

    def holds(self, outcome: Outcome) -> bool:
        """True for a failure that is asked."""
        return (
            outcome.kind == self.kind
            and outcome.category == self.category
            and self.cause in (None, outcome.cause)
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A method's answer.

    Attributes:
        scores: (M,), or (R, M) of R draws. expected: (M,) failures expected per image, None where unknown.
    """

    scores: Scores
    expected: Scores | None = None


Method = Callable[[Episode], Answer]


def episodes(
    seen: Look, *, dataset: str, detector: str, split: int, packing: Packing, unread: bool = False
) -> Iterator[tuple[Episode, Ints]]:
    """Episodes of a split, each with the truth: (M,) such failures per pool image."""
    places, pool = halves(seen.sha256, split, unread=unread)
    boxes = packed(seen, places, packing)
    of_image: list[list[Outcome]] = [[] for _ in seen.sha256]
    for outcome in seen.outcomes:
        of_image[outcome.image_id].append(outcome)
    places, pool = (own[[len(boxes.offered[i]) > 0 for i in own]] for own in (places, pool))
    half = Half(
        dataset=dataset,
        detector=detector,
        split=split,
        mined=rows_of(boxes.offered, places),
        mined_images=places,
        outcome_rows=rows_of(boxes.outcomes, places),
        outcomes=tuple(o for i in places for o in of_image[i]),
        pool=rows_of(boxes.offered, pool),
        pool_images=pool,
        labels_of=seen.labels_of,
        threshold=CRITERIA.score,
        memory={},
    )
    causes = sorted({(o.kind, o.category, o.cause or "") for o in half.outcomes if o.kind != "TP"})
    plain = [(kind, category, None) for kind, category in sorted({c[:2] for c in causes})]
    for kind, category, cause in [*plain, *causes]:
        if category not in seen.labels_of:
            continue
        episode = Episode(half=half, kind=kind, category=category, cause=cause)
        truth = np.array([sum(map(episode.holds, of_image[i])) for i in pool], np.int64)
        least = LEAST_FAILURES if cause is None else LEAST_BY_CAUSE
        if len(episode.asked) >= least and (truth > 0).sum() >= LEAST_IMAGES:
            yield episode, truth


# ---------------------------------------------------------------- methods


def summed(rows: BoxRows, images: Ints, values: Scores) -> Scores:
    """Sum of box values per image (M,)."""
    order = np.argsort(images)
    places = order[np.searchsorted(images[order], rows.image_ids)]
    return np.bincount(places, weights=values, minlength=len(images)).astype(np.float64)


def highest(rows: BoxRows, images: Ints, values: Scores) -> Scores:
    """Highest box value per image (M,), -inf without a box."""
    order = np.argsort(images)
    places = order[np.searchsorted(images[order], rows.image_ids)]
    best = np.full(len(images), -np.inf)
    np.maximum.at(best, places, values)
    return best


def random(episode: Episode) -> Answer:
    """The mean of `DRAWS` orders."""
    draw = np.random.default_rng(episode.half.split)
    return Answer(scores=draw.random((DRAWS, len(episode.half.pool_images))))


def uncertainty(episode: Episode) -> Answer:
    """All classes: sum over candidates of 1 - |2 p - 1|, p the score of the best class."""
    rows = episode.half.pool
    values = np.where(rows.labels[:, 0] >= 0, 1 - np.abs(2 * rows.scores[:, 0] - 1), 0)
    return Answer(scores=summed(rows, episode.half.pool_images, values))


def class_values(rows: BoxRows, labels: tuple[int, ...], kind: str, threshold: float) -> Scores:
    """Recipe 7 of QUERY.md per box: of a detection of the class 1 - score, for false positives; for misses
    the class's score of a candidate below the threshold."""
    of_class = np.isin(rows.labels, labels)  # (N, 5)
    score = np.where(of_class, rows.scores, 0).max(1)
    if kind == "FN":
        return np.where(score < threshold, score, 0)
    return np.where(of_class[:, 0] & (score >= threshold), 1 - score, 0)


def class_uncertainty(episode: Episode) -> Answer:
    """See `class_values`."""
    half = episode.half
    values = class_values(half.pool, episode.labels, episode.kind, half.threshold)
    scores = summed(half.pool, half.pool_images, values)
    return Answer(scores=scores, expected=scores)


def cosine(episode: Episode) -> Answer:
    """The best box's highest cosine to a failure's box (`curator.query.base.SimilarityQuery`)."""
    own, negatives, _, pool = _tables(episode)
    query = SimilarityQuery.fit(own, negatives, name=episode.kind, view="object")
    return Answer(scores=highest(episode.half.pool, episode.half.pool_images, query.score(pool)))


def contrastive(episode: Episode) -> Answer:
    """The queries of `curator.query.contrast`, without regions, shares and diversity: an image scores what
    its best box does under the best of them."""
    own, negatives, mined, pool = _tables(episode)
    queries = fit_queries(
        [Examples(source="box", table=own, twins=twins(mined, own, TWIN))],
        negatives,
        mined,
        kind="FN" if episode.kind == "FN" else "FP",
        views=tuple(pool.views),
    )
    scores = np.max([query.score(pool) for query in queries], axis=0)
    return Answer(scores=highest(episode.half.pool, episode.half.pool_images, scores))


METHODS: dict[str, Method] = {
    "random": random,
    "uncertainty": uncertainty,
    "class-uncertainty": class_uncertainty,
    "cosine": cosine,
    "contrastive": contrastive,
}


def _tables(episode: Episode) -> tuple[BoxTable, BoxTable, BoxTable, BoxTable]:
    """As `curator.query.run` makes them: the asking failures, negatives, offered boxes mined and of the
    pool."""
    half = episode.half
    if "tables" not in half.memory:
        half.memory["tables"] = (
            box_table(half.mined),
            box_table(half.pool),
            box_table(half.outcome_rows, half.mined),
        )
    mined, pool, outcomes = half.memory["tables"]
    wrong = [o for o in half.outcomes if o.kind != "TP"]
    ids = np.array([o.id for o in wrong], np.int64)
    near = best_overlap(mined, [o.image_id for o in wrong], [o.box for o in wrong], ids)[0] >= CLEAR
    right = np.array([o.kind == "TP" for o in half.outcomes], bool)
    negatives = joined(mined.take(~near), outcomes.take(right))
    own = outcomes.take(np.array([episode.holds(o) for o in half.outcomes], bool))
    return own, negatives, mined, pool


def box_table(rows: BoxRows, offered: BoxRows | None = None) -> BoxTable:
    """Rows as today's query reads them; the evidence comes from the candidates of `offered`."""
    views = {view: rows.components(view) for view in (*rows.views, *rows.image_views)}
    return BoxTable(
        image_ids=rows.image_ids,
        boxes=rows.boxes,
        ids=rows.rows,
        outcome_ids=rows.outcome_ids,
        evidence=_evidence(rows, rows if offered is None else offered),
        views=views,
    )


def _evidence(rows: BoxRows, offered: BoxRows) -> Floats:
    """Per box the log-odds of the best candidate that overlaps it."""
    score = np.clip(offered.scores[:, 0], 1e-4, 1 - 1e-4)
    odds = np.log(score / (1 - score))
    candidates = np.flatnonzero(offered.labels[:, 0] >= 0)
    of_image = {
        int(offered.image_ids[candidates[own[0]]]): candidates[own]
        for own in rows_by_image(offered.image_ids[candidates])
    }
    evidence = np.full(len(rows), np.log(1e-4), np.float32)
    for own in rows_by_image(rows.image_ids):
        there = of_image.get(int(rows.image_ids[own[0]]))
        if there is not None:
            overlap = iou(rows.boxes[own], offered.boxes[there]) >= EVIDENT
            evidence[own] = np.where(overlap, odds[there], evidence[own, None]).max(1)
    return evidence


def joined(first: BoxTable, second: BoxTable) -> BoxTable:
    """The rows of both."""
    plain = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("image_ids", "boxes", "ids", "outcome_ids", "evidence")
    }
    views = {view: np.concatenate([first.views[view], second.views[view]]) for view in first.views}
    return BoxTable(views=views, **plain)
