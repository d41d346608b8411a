"""Stage one of a query: FAISS names the pool images that may hold what is asked; stage two scores these.

In: fitted questions, a vector space, the pool images that may answer. Out: image ids. A small pool is scored
whole. A large one answers to vectors: for a fitted model the linear function that follows it most closely,
for every example the rows nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curator.query.asked import Mined
from curator.query.methods.plain import ClassUncertainty
from curator.query.methods.predictor import PredictorScorer
from curator.query.methods.similarity import SimilarityScorer
from curator.query.run_answers import Question
from curator.query.run_index import EXACT_ROWS
from curator.query.sketch import Sketch
from store.records import Floats, Ints, SpaceShape

if TYPE_CHECKING:
    from store.store import Store


IMAGES = 4000  # images that stage one names at least, and `DEPTH` times the budget
DEPTH = 20
CHUNK = 65_536  # rows read at a time
NEAREST = 200  # rows that each example names
LEAST_WEIGHT = 0.05  # of a mined box, beside its expected failures, where the model is followed
EXAMPLES = 64  # of a question, evenly


class SpaceRows:
    """The offered boxes of a vector space as rows of an index, read when they are needed."""

    def __init__(self, store: Store, space: str, sketch: Sketch, dimension: int) -> None:
        self._store, self._space, self._sketch = store, space, sketch
        self._dimension = dimension
        _, first, count = store.box_ranges(space)
        self._count = int((first + count).max(initial=0))

    @property
    def dimension(self) -> int:
        """D + E."""
        return self._dimension

    @property
    def count(self) -> int:
        """Rows in the files; numbers below are rows."""
        return self._count

    def read(self, rows: Ints) -> Floats:
        """Rows by number, in any order."""
        return self._sketch.rows(self._store.box_rows(self._space, rows))

    def chunks(self, start: int = 0, *, size: int = CHUNK) -> Iterator[tuple[int, Floats]]:
        """All rows from `start` on, in order."""
        for first in range(start, self._count, size):
            yield first, self.read(np.arange(first, min(first + size, self._count)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What stage one named.

    Attributes:
        image_ids: to be scored exactly. allowed: those with vectors that may answer. whole: True where all of
            these are named.
        how: one line for people.
    """

    image_ids: list[int]
    allowed: list[int]
    whole: bool
    how: str


def space_rows(store: Store, space: str, shape: SpaceShape) -> SpaceRows:
    """The rows of a space."""
    sketch = Sketch.of(tuple(shape.views), shape.classes)
    return SpaceRows(store, space, sketch, sum(shape.views.values()) + sketch.directions.shape[1])


def index_folder(store: Store, space: str) -> Path:
    """Where the FAISS files of a space lie."""
    return store.space_folder(space) / "faiss"


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
    said = f"{len(ids)} images with {total} boxes scored, all"
    if total <= exact_rows or len(ids) <= wanted:
        return Named(image_ids=every, allowed=every, whole=True, how=said)
    vectors = [asking_vectors(question, mined, shape) for question in questions]
    if any(both is None for both in vectors):
        how = f"{said}: this method names no vectors"
        return Named(image_ids=every, allowed=every, whole=True, how=how)
    from curator.represent.index.allowed import Allowed  # loads faiss
    from curator.represent.index.faiss_index import open_index

    index = open_index(space_rows(store, space, shape), index_folder(store, space))
    allowed = Allowed.of_ranges(first, count, total=index.count)
    found: list[Ints] = []
    for both in vectors:
        if both is None:
            continue
        lines, examples = both
        if len(lines):
            found.append(index.search(lines, 2 * wanted // len(questions), allowed=allowed)[1].ravel())
        if len(examples):
            found.append(index.search(examples, NEAREST, allowed=allowed)[1].ravel())
    rows = np.unique(np.concatenate(found))
    rows = rows[rows >= 0]
    order = np.argsort(first, kind="stable")
    named = np.unique(ids[order][np.searchsorted(first[order], rows, side="right") - 1])
    return Named(
        image_ids=named.tolist(),
        allowed=every,
        whole=False,
        how=f"{len(named)} of {len(ids)} images named by FAISS ({index.facts.kind}) and scored exactly",
    )


def asking_vectors(question: Question, mined: Mined, shape: SpaceShape) -> tuple[Floats, Floats] | None:
    """A question as vectors: linear functions (L, D + E) and examples (K, D + E); None where its method has
    none, so that every image must be scored."""
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
    if isinstance(scorer, SimilarityScorer):
        return nothing, examples
    if isinstance(scorer, ClassUncertainty):
        line = np.zeros(nothing.shape[1], np.float32)
        line[-sketch.directions.shape[1] :] = sketch.directions[list(question.asked.labels)].sum(0)
        return line[None], nothing
    return None


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
