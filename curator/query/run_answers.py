"""What the pool answers: every image's score for every kind of failure, and the boxes that say why.

In: fitted methods, a vector space, the pool images that may answer. Out: `Answered`. The pool is read in
pieces, so that memory does not grow with it but for a few numbers an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curator.errors import StageError
from curator.query.asked import Asked, Images, Mined
from curator.query.kinds import Kinds
from curator.query.methods.base import Scorer
from curator.query.threads import each
from curator.query.wording import Shown, failed
from store.records import BoxRows, Ints

if TYPE_CHECKING:
    from store.store import Store

Array = NDArray[np.float64]
BLOCK = 16_384  # boxes that a core scores at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A fitted method with what it was fitted for.

    Attributes:
        kinds: splits its failures into groups of like ones.
        told: what ranks, in words, where a method gives scores alone: "missed Car by similarity".
    """

    asked: Asked
    told: str = ""
    scorer: Scorer
    kinds: Kinds

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of hits."""
        return self.kinds.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Scores of pool images.

    Attributes:
        image_ids: (M,) ascending. scores: (M, G) by group, G those of all questions.
        groups: their names. of: (G,) the question of each. objects: (M,) boxes to draw where labelled.
    """

    image_ids: Ints
    scores: Array
    groups: tuple[str, ...]
    of: tuple[int, ...]
    objects: Array


def answers(
    store: Store, space: str, questions: Sequence[Question], image_ids: Sequence[int], threshold: float
) -> Answered:
    """Score the images that have vectors."""
    found_ids, found_scores, found_objects = [], [], []
    for rows in store.scan_boxes(space, role="pool", image_ids=image_ids):
        images = Images.of(rows.image_ids)
        found_ids.append(images.ids)
        found_scores.append(scored(questions, rows, images))
        seen = (rows.labels[:, 0] >= 0) & (rows.scores[:, 0] >= threshold)
        found_objects.append(np.maximum(images.sums(seen.astype(np.float64)), 1))
    groups = tuple(name for q in questions for name in q.groups)
    if not found_ids:
        return Answered(
            image_ids=np.zeros(0, np.int64),
            scores=np.zeros((0, len(groups))),
            groups=groups,
            of=(),
            objects=np.zeros(0),
        )
    ids = np.concatenate(found_ids)
    order = np.argsort(ids, kind="stable")
    return Answered(
        image_ids=ids[order],
        scores=np.concatenate(found_scores)[order],
        groups=groups,
        of=tuple(i for i, q in enumerate(questions) for _ in q.groups),
        objects=np.concatenate(found_objects)[order],
    )


def scored(questions: Sequence[Question], rows: BoxRows, images: Images) -> Array:
    """Scores (M, G) by group, those of all questions side by side; the cores share questions and images.

    Raises:
        StageError: a score is not a number.
    """
    last = images.starts + images.counts
    cuts = [0, *np.unique(np.searchsorted(last, np.arange(BLOCK, len(rows), BLOCK))).tolist(), len(last)]
    blocks = [slice(first, stop) for first, stop in pairwise(cuts) if stop > first]
    parts = [(question, block) for block in blocks for question in questions]

    def one(part: tuple[Question, slice]) -> Array:
        question, of = part
        own = rows.take(np.arange(images.starts[of][0], last[of][-1]))
        return scores_by_group(question, own, Images.of(own.image_ids))

    found = each(one, parts)
    width = len(questions)
    return np.concatenate(
        [np.concatenate(found[at : at + width], axis=1) for at in range(0, len(found), width)]
    )


def scores_by_group(question: Question, rows: BoxRows, images: Images) -> Array:
    """Scores (M, G): a box counts for the group whose failures it is most like.

    Raises:
        StageError: a score is not a number.
    """
    values = question.scorer.values(rows)
    broken = np.unique(rows.image_ids[np.isnan(values)]).tolist()
    if broken:
        raise StageError(
            f"query: expected finite vectors, got scores of nan for {len(broken)} pool images "
            f"(first: {broken[0]}); run curator index in a new workspace"
        )
    group = question.kinds.nearest(rows) if len(question.groups) > 1 else np.zeros(len(rows), np.int64)
    count = len(question.groups)
    if question.scorer.pooling == "sum":
        flat = np.bincount(images.places * count + group, weights=values, minlength=len(images.ids) * count)
        return np.asarray(flat.reshape(-1, count), np.float64)
    best = np.full((len(images.ids), count), -np.inf)
    np.maximum.at(best, (images.places, group), values)
    return best


def shown(
    store: Store,
    space: str,
    questions: Sequence[Question],
    answered: Answered,
    picked: Mapping[int, str],
    mined: Mined,
    classes: Sequence[str],
) -> dict[int, Shown]:
    """What says why an image was picked.

    Args:
        picked: image id -> the group that it was taken for. classes: the detector's, in the data set's words.
    """
    rows = store.boxes(space, "offered", image_ids=sorted(picked))
    images = Images.of(rows.image_ids)
    question_of = dict(zip(answered.groups, answered.of, strict=True))
    columns = {name: column for column, name in enumerate(answered.groups)}
    result: dict[int, Shown] = {}
    for number, question in enumerate(questions):
        own = [i for i, image in enumerate(images.ids) if question_of[picked[int(image)]] == number]
        if not own:
            continue
        values = question.scorer.values(rows)
        nearest, likeness = question.kinds.most_like(rows)
        group = question.kinds.nearest(rows) if len(question.groups) > 1 else np.zeros(len(rows), np.int64)
        for i in own:
            image = int(images.ids[i])
            places = np.arange(images.starts[i], images.starts[i] + images.counts[i])
            wanted = question.groups.index(picked[image])
            of_group = places[group[places] == wanted]
            places = of_group if len(of_group) else places
            at = int(places[np.argmax(values[places])])
            x1, y1, x2, y2 = (float(v) for v in rows.boxes[at])
            seen = [
                (classes[int(label)], float(score))
                for label, score in zip(rows.labels[at], rows.scores[at], strict=True)
                if label >= 0
            ]
            outcome = int(nearest[at]) if nearest is not None else -1
            lead, score = "", None
            place = int(np.searchsorted(answered.image_ids, image))
            if question.scorer.expects and len(questions) > 1:
                told, of = answered.scores[place], np.array(answered.of)
                every = float(told[[questions[n].scorer.expects for n in answered.of]].sum())
                what = failed(question.asked.kind, question.asked.category)
                lead = f"{float(told[of == number].sum()):.1f} {what} of {every:.1f} failures expected"
            if not question.scorer.expects:
                score = float(answered.scores[place, columns[picked[image]]])
                lead = f"{question.told} {score:.2f}"
            result[image] = Shown(
                kind=question.asked.kind,
                category=question.asked.category,
                box=(x1, y1, x2, y2),
                size=(int(rows.sizes[at, 0]), int(rows.sizes[at, 1])),
                seen=tuple(seen),
                outcome_id=outcome if outcome >= 0 else None,
                likeness=None if likeness is None else float(likeness[at]),
                lead=lead,
                score=score,
            )
    return result
