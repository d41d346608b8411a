"""Episodes and the methods that answer them (`query_real.py`).

An `Episode` is all that a query may know: the mined half with its outcomes, as the product hands it to its
ranking methods, and what the pool offers. A method answers with a score per pool image, and where it can with
the number of failures that it expects there. The pool's truth is kept apart, for the judge and the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from query_looks import CRITERIA, Look, Packing, packed
from query_splits import LEAST_BY_CAUSE, LEAST_FAILURES, LEAST_IMAGES, halves

from curator.query.asked import KINDS, Asked, Images, Mined
from curator.query.feedback import Said, taught
from curator.query.kinds import Kinds
from curator.query.methods.base import Ranker, Scorer, image_scores
from curator.query.methods.predictor import Predictor, PredictorScorer
from curator.query.predictor import FailurePredictor, FeatureRecipe
from curator.query.run_answers import Question, scores_by_group
from curator.query.selection import Answers, choose
from curator.registry import RANKERS
from store.records import BoxRows, Feedback, Ints, Outcome

Scores = NDArray[np.floating]
DRAWS = 50  # of random


@dataclass(frozen=True, kw_only=True)
class Half:
    """What the episodes of one (set, detector, split) have in common.

    Attributes:
        mined: the mined half, as the product reads it from its Store. pool: boxes that the pool's images
            offer. pool_images: (M,) ascending; an image that offers no box is left out.
        labels_of: class -> the detector's labels.
        memory: what methods keep from one episode to the next.
    """

    dataset: str
    detector: str
    split: int
    mined: Mined
    pool: BoxRows
    pool_images: Ints
    labels_of: Mapping[str, tuple[int, ...]]
    memory: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One question: which pool images hold such failures?

    Attributes:
        shows: what a person who looks at a pool image (its place) says: it holds such a failure, or not.
    """

    half: Half
    asked: Asked
    shows: Callable[[int], bool] = lambda place: False

    @property
    def kind(self) -> str:
        """FN or FP."""
        return self.asked.kind

    @property
    def category(self) -> str:
        """The class of the set."""
        return self.asked.categories[0]

    @property
    def cause(self) -> str | None:
        """None: any."""
        return self.asked.causes[0] if self.asked.causes else None

    @property
    def failures(self) -> list[Outcome]:
        """The mined failures that ask."""
        return [o for o in self.half.mined.known.values() if self.asked.matches(o)]

    @property
    def selector(self) -> tuple[str, str, str, str, str]:
        """The cluster of the bootstrap."""
        return (self.half.dataset, self.half.detector, self.kind, self.category, self.cause or "")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A method's answer.

    Attributes:
        scores: (M,), or (R, M) of R draws. expected: (M,) failures expected per image, None where unknown.
        chosen: places of the images chosen for a budget, where they are not the first by score.
        note: of a method that fell back on another.
    """

    scores: Scores
    expected: Scores | None = None
    chosen: Callable[[int], Ints] | None = None
    note: str = ""


Method = Callable[[Episode], Answer]


def episodes(
    seen: Look, *, dataset: str, detector: str, split: int, packing: Packing, unread: bool = False
) -> Iterator[tuple[Episode, Ints]]:
    """Episodes of a split, each with the truth: (M,) such failures per pool image."""
    places, pool = (np.sort(own) for own in halves(seen.sha256, split, unread=unread))
    boxes = packed(seen, places, packing)
    of_image: list[list[Outcome]] = [[] for _ in seen.sha256]
    for outcome in seen.outcomes:
        of_image[outcome.image_id].append(outcome)
    pool = pool[[len(boxes.offered[i]) > 0 for i in pool]]
    known = {o.id: o for i in places for o in of_image[i] if o.id is not None}
    half = Half(
        dataset=dataset,
        detector=detector,
        split=split,
        mined=Mined(
            offered=BoxRows.of([boxes.offered[i] for i in places if len(boxes.offered[i])]),
            image_ids=places,
            outcomes=BoxRows.of([boxes.outcomes[i] for i in places]),
            culprits=None,
            known=known,
            units={},
        ),
        pool=BoxRows.of([boxes.offered[i] for i in pool]),
        pool_images=pool,
        labels_of=seen.labels_of,
    )
    causes = sorted({(o.kind, o.category, o.cause or "") for o in known.values() if o.kind != "TP"})
    plain = [(kind, category, "") for kind, category in sorted({c[:2] for c in causes})]
    for kind, category, cause in [*plain, *causes]:
        if category not in seen.labels_of:
            continue
        asked = Asked(
            kind=KINDS[0] if kind == KINDS[0] else KINDS[1],
            categories=(category,),
            labels=seen.labels_of[category],
            threshold=CRITERIA.score,
            causes=(cause,) if cause else (),
        )
        episode = Episode(half=half, asked=asked)
        truth = np.array([sum(map(asked.matches, of_image[i])) for i in pool], np.int64)
        least = LEAST_BY_CAUSE if cause else LEAST_FAILURES
        if len(episode.failures) >= least and (truth > 0).sum() >= LEAST_IMAGES:
            yield replace(episode, shows=lambda place, truth=truth: bool(truth[place] > 0)), truth


# ---------------------------------------------------------------- methods


def random(episode: Episode) -> Answer:
    """The mean of `DRAWS` orders."""
    draw = np.random.default_rng(episode.half.split)
    return Answer(scores=draw.random((DRAWS, len(episode.half.pool_images))))


def ranked(ranker: Callable[[], Ranker]) -> Method:
    """A ranking method of the product: images by their scores, no diversity."""

    def method(episode: Episode) -> Answer:
        return _answer(_fitted(ranker, episode), episode)

    return method


def named(name: str) -> Method:
    """A ranking method by the product's name."""
    return ranked(lambda: RANKERS.load(name)())


def spread(episode: Episode) -> Answer:
    """The predictor with the diversity that `curator query` has by default: groups of like failures share
    the budget."""
    scorer = _fitted(Predictor, episode)
    plain = _answer(scorer, episode)
    if not scorer.expects:
        return plain
    views = tuple(episode.half.pool.views)
    kinds = Kinds.of(episode.half.mined.asking(episode.asked), episode.asked.name, views, spread=True, seed=0)
    rows = episode.half.pool
    gains = scores_by_group(
        Question(asked=episode.asked, scorer=scorer, kinds=kinds), rows, Images.of(rows.image_ids)
    )
    answers = Answers(groups=kinds.names, image_ids=episode.half.pool_images, expected=np.maximum(gains, 0))

    def chosen(size: int) -> Ints:
        picks = choose(answers, budget=size).picks
        ids = np.array([pick.image_id for pick in picks], np.int64)
        return np.asarray(np.searchsorted(episode.half.pool_images, ids))

    return Answer(scores=plain.scores, expected=plain.expected, chosen=chosen)


def refined(episode: Episode) -> Answer:
    """`curator query --refine` once: a person judges the first half of the budget, the rest is chosen by what
    that teaches. The calibration stays the first model's."""
    scorer = _fitted(Predictor, episode)
    plain = _answer(scorer, episode)
    if not isinstance(scorer, PredictorScorer):
        return plain
    pool, images = episode.half.pool, Images.of(episode.half.pool.image_ids)
    values = scorer.values(pool)
    order = np.argsort(-plain.scores, kind="stable")

    def chosen(size: int) -> Ints:
        first = order[: size // 2]
        feedback = []
        for place in first:
            own = np.arange(images.starts[place], images.starts[place] + images.counts[place])
            x1, y1, x2, y2 = map(float, pool.boxes[own[values[own].argmax()]])
            feedback.append(
                Feedback(
                    selection="",
                    image_id=int(images.ids[place]),
                    accepted=episode.shows(int(place)),
                    group=episode.asked.name,
                    box=(x1, y1, x2, y2),
                )
            )
        offered = pool.take(np.isin(pool.image_ids, images.ids[first]))
        said = Said(feedback=tuple(feedback), labelled={})
        learned = taught(episode.half.mined, offered, said, [episode.asked])
        found = FailurePredictor.fit(learned, episode.asked)
        again = replace(
            found, slope=scorer.model.slope, shift=scorer.model.shift, factor=scorer.model.factor
        )
        scores = images.sums(again.probabilities(pool))
        scores[first] = -np.inf
        rest = np.argsort(-scores, kind="stable")
        return np.concatenate([first, rest[: size - len(first)]])

    return Answer(scores=plain.scores, expected=plain.expected, chosen=chosen)


def _fitted(ranker: Callable[[], Ranker], episode: Episode) -> Scorer:
    """The fitted method; an episode's methods often share it."""
    made = ranker()
    key = (repr(made), episode.asked)
    if episode.half.memory.get("key") != key:
        episode.half.memory.update(key=key, scorer=made.fit(episode.half.mined, episode.asked, seed=0))
    scorer: Scorer = episode.half.memory["scorer"]
    return scorer


def _answer(scorer: Scorer, episode: Episode) -> Answer:
    ids, scores, _ = image_scores(scorer, episode.half.pool)
    if not np.array_equal(ids, episode.half.pool_images):
        raise ValueError(f"expected a score for each of {len(episode.half.pool_images)} images")
    return Answer(scores=scores, expected=scores if scorer.expects else None, note=scorer.note)


METHODS: dict[str, Method] = {
    "random": random,
    "uncertainty": named("uncertainty"),
    "class-uncertainty": named("class-uncertainty"),
    "cosine": named("similarity"),
    "diversity": named("diversity"),
    "contrastive": named("contrastive"),
    "predictor": named("predictor"),
    "predictor spread": spread,
    "predictor refined": refined,
    "predictor E": ranked(lambda: Predictor(recipe=FeatureRecipe(blocks=("E",)))),
    "predictor E+S": ranked(lambda: Predictor(recipe=FeatureRecipe(blocks=("E", "S")))),
    "predictor E+V": ranked(lambda: Predictor(recipe=FeatureRecipe(blocks=("E", "V")))),
    "predictor S+V": ranked(lambda: Predictor(recipe=FeatureRecipe(blocks=("S", "V")))),
}


def _shrunk(e: float, s: float, v: float, prior: bool = True) -> Method:
    penalties = {"E": e, "S": s, "V": v}
    return ranked(lambda: Predictor(recipe=FeatureRecipe(penalties=penalties, prior=prior)))


# How decision 0011 was made; asked for by name.
SHRUNK: dict[str, Method] = {
    "no prior, 1 10 30": _shrunk(1, 10, 30, prior=False),
    "no prior, 10 30 100": _shrunk(10, 30, 100, prior=False),
    "prior, 3 30 100": _shrunk(3, 30, 100),
    "prior, 30 100 300": _shrunk(30, 100, 300),
    "prior, 100 300 1000": _shrunk(100, 300, 1000),
}
