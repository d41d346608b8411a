"""Stage one of a query: the pool images that are worth scoring; stage two scores these.

In: fitted questions, a vector space, the pool images that may answer. Out: image ids. A small pool is scored
whole. Of a large one three things name images, each its best:

    evidence    class-wise uncertainty, of which every model starts: the classes of all candidates are read,
                eleven bytes each
    line        FAISS: the rows that the linear function names which follows the model most closely
    examples    FAISS: the rows nearest to each failure, which need no evidence
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Images, Mined
from curator.query.methods.plain import ClassUncertainty
from curator.query.methods.predictor import PredictorScorer
from curator.query.methods.similarity import SimilarityScorer
from curator.query.run_answers import Question
from curator.query.run_rows import EXACT_ROWS, index_folder, space_rows
from curator.query.sketch import Sketch
from store.records import Floats, Ints, SpaceShape

if TYPE_CHECKING:
    from store.store import Store


IMAGES = 1000  # images that evidence names at least, and `DEPTH` times the budget; all questions together
DEPTH = 10
BESIDE = 3  # the line and the examples name one for so many
ROWS = 4  # rows that the line names for each image
NEAREST = 20  # rows that each example names
ALONE = 200  # the same, where examples are all that a method has
LEAST_WEIGHT = 0.05  # of a mined box, beside its expected failures, where the model is followed
EXAMPLES = 64  # of a question, evenly
ASKING = (PredictorScorer, SimilarityScorer, ClassUncertainty)  # the others need every image


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What stage one named.

    Attributes:
        image_ids: to be scored exactly. allowed: those with vectors that may answer, M of them. whole: True
            where all of these are named.
        evidence: (M, Q) class-wise uncertainty of each, by question; nothing where `whole`.
        how: one line for people.
    """

    image_ids: list[int]
    allowed: list[int]
    whole: bool
    evidence: NDArray[np.float64]
    how: str


def retrieve(
    store: Store,
    space: str,
    shape: SpaceShape,
    questions: Sequence[Question],
    mined: Mined,
    pool: Sequence[int],
    budget: int,
    *,
    exact_rows: int = EXACT_ROWS,
    least: int = IMAGES,
) -> Named:
    """Name the images that are worth scoring.

    Args:
        exact_rows: boxes up to which every image is. least: images that are named at least.
    """
    ids, first, count = store.box_ranges(space, role="pool", image_ids=pool)
    total = int(count.sum())
    wanted = max(least, DEPTH * budget)
    every = ids.tolist()
    nothing = np.zeros((len(ids), 0))
    said = f"{len(ids)} images with {total} boxes scored, all"
    if total <= exact_rows or len(ids) <= wanted:
        return Named(image_ids=every, allowed=every, whole=True, evidence=nothing, how=said)
    if any(not isinstance(question.scorer, ASKING) for question in questions):
        how = f"{said}: this method names none"
        return Named(image_ids=every, allowed=every, whole=True, evidence=nothing, how=how)
    from curator.represent.index.allowed import Allowed  # loads faiss
    from curator.represent.index.faiss_index import open_index

    index = open_index(space_rows(store, space, shape), index_folder(store, space))
    allowed = Allowed.of_ranges(first, count, total=index.count)
    known = evidence_of(store, space, questions, ids, pool)

    def best(rows: Ints, most: int) -> Ints:
        """The first images that rows belong to."""
        rows = rows[rows >= 0]
        found = ids[np.searchsorted(first, rows, side="right") - 1]
        _, places = np.unique(found, return_index=True)
        return np.asarray(found[np.sort(places)][:most])

    def certain(values: NDArray[np.float64], most: int) -> Ints:
        """The images with the most evidence; where few have some, others fill up."""
        return np.asarray(ids[np.argsort(-values, kind="stable")[:most]])

    each = -(-wanted // len(questions))
    ranked = [n for n, question in enumerate(questions) if not isinstance(question.scorer, SimilarityScorer)]
    found = [certain(known[:, ranked].sum(1), wanted)] if len(ranked) > 1 else []  # they answer several
    for number, question in enumerate(questions):
        if number in ranked:
            found.append(certain(known[:, number], each))
        lines, examples = asking_vectors(question, mined, shape)
        if len(lines):
            rows = index.search(lines, ROWS * each // BESIDE, allowed=allowed)[1]
            found.append(best(rows.ravel(), each // BESIDE))
        if len(examples):
            alone = not len(lines)
            rows = index.search(examples, ALONE if alone else NEAREST, allowed=allowed)[1]
            found.append(best(rows.T.ravel(), len(ids) if alone else each // BESIDE))
    named = np.unique(np.concatenate(found))
    return Named(
        image_ids=named.tolist(),
        allowed=every,
        whole=False,
        evidence=known,
        how=f"{len(named)} of {len(ids)} images named by their detections and by FAISS "
        f"({index.facts.kind}), and scored exactly",
    )


def evidence_of(
    store: Store, space: str, questions: Sequence[Question], ids: Ints, pool: Sequence[int]
) -> NDArray[np.float64]:
    """Class-wise uncertainty (M, Q) of the images (M,) for each question."""
    order = np.argsort(ids, kind="stable")
    result = np.zeros((len(ids), len(questions)))
    for rows in store.scan_classes(space, role="pool", image_ids=pool):
        images = Images.of(rows.image_ids)
        places = order[np.searchsorted(ids[order], images.ids)]
        for number, question in enumerate(questions):
            result[places, number] = images.sums(ClassUncertainty(asked=question.asked).values(rows))
    return result


def asking_vectors(question: Question, mined: Mined, shape: SpaceShape) -> tuple[Floats, Floats]:
    """A question as vectors: linear functions (L, D + E) and examples (K, D + E)."""
    sketch = Sketch.of(tuple(shape.views), shape.classes)
    nothing = np.zeros((0, sum(shape.views.values()) + sketch.directions.shape[1]), np.float32)
    examples = nothing
    own = mined.asking(question.asked)
    if len(own):
        part = own.take(np.linspace(0, len(own) - 1, min(EXAMPLES, len(own))).astype(np.int64))
        examples = _unit(sketch.rows(part))
    scorer = question.scorer
    if isinstance(scorer, PredictorScorer):
        logits, index = scorer.model.logits(mined.offered)
        weight = LEAST_WEIGHT + scorer.model.calibrated(logits)
        return sketch.linear(mined.offered.take(index), logits, weight)[None], examples
    return nothing, examples if isinstance(scorer, SimilarityScorer) else nothing


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
