"""Asking by a picture or by words instead of failures.

In: `--like PICTURE[:x1,y1,x2,y2]` or `--text WORDS`, a vector space. Out: a `Question` whose boxes are
compared with the picture's box, or with what the words describe.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.current import Current
from curator.errors import InputError
from curator.query.asked import Asked, main_view
from curator.query.index_work import EmbedWork, IndexedOutcome, IndexItem, RawVectors
from curator.query.kinds import Kinds
from curator.query.methods.similarity import SimilarityScorer
from curator.query.run_answers import Question
from curator.query.run_indexed import IndexState
from curator.query.settings import QueryConfig
from curator.represent.projection import Projection
from curator.represent.whiten import unit
from store.errors import ImageError
from store.images import probe
from store.records import VIEW_SCALE, BoxRows, Floats

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsScorer:
    """What words describe, as a linear function of a view's components."""

    view: str
    weights: Floats
    pooling: Literal["sum", "max"] = "max"
    expects: bool = False
    note: str = ""

    def values(self, rows: BoxRows) -> Array:
        """Inner products with the words, up to a constant."""
        return np.asarray(rows.components(self.view) @ self.weights, np.float64)


def example_question(config: QueryConfig, current: Current, index: IndexState) -> Question:
    """The question that a picture or words ask.

    Raises:
        InputError: no such picture, a box that is none, or an embedder that reads no text.
    """
    scorer = _like(config, current, index) if config.like else _text(config, current, index)
    name = f"like {Path(config.like).name}" if config.like else f"text {config.text!r}"
    asked = Asked(kind="FN", categories=(name,), labels=(), threshold=current.criteria.score)
    kinds = Kinds(
        names=(name,),
        views=(main_view(index.shape.views),),
        examples=np.zeros((0, 1), np.float32),
        outcome_ids=np.zeros(0, np.int64),
        labels=np.zeros(0, np.int64),
    )
    return Question(asked=asked, told=name, scorer=scorer, kinds=kinds)


def _work(current: Current, index: IndexState) -> EmbedWork:
    facts = index.shape.facts
    return EmbedWork(
        detector=current.model.spec,
        fingerprint=current.model.fingerprint,
        embedder=str(facts["embedder"]),
        candidates=int(facts["candidates"]),
        windows=int(facts["windows"]),
        batch_size=1,
        weights=str(facts["weights"]),
    )


def _like(config: QueryConfig, current: Current, index: IndexState) -> SimilarityScorer:
    path, box = parse_like(config.like)
    if not path.is_file():
        raise InputError(f"--like: expected a picture, PATH or PATH:x1,y1,x2,y2; there is no file {path}")
    if box is not None:
        _require_inside(path, box)
    item = IndexItem(
        image_id=0,
        uri=str(path.absolute()),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        outcomes=() if box is None else (IndexedOutcome(id=0, key="", box=box),),
    )
    work = _work(current, index)
    (found,) = work.process(work.setup("cpu"), [item])
    if not isinstance(found, RawVectors):
        raise InputError(f"--like: expected a picture that can be read, got {path}: {found}")
    views = index.shape.views if box is not None else index.shape.image_views
    view = config.view if config.view != "auto" else main_view(views)
    if view not in found.views:
        raise InputError(f"--view: expected one of {', '.join(found.views)}, got {view!r}")
    compact = Projection.stored(index.shape.arrays, view)(found.views[view][:1]).astype(np.float32)
    return SimilarityScorer(view=view, examples=unit(compact / VIEW_SCALE).astype(np.float32))


def _require_inside(path: Path, box: tuple[float, float, float, float]) -> None:
    try:
        seen = probe(path)
    except ImageError as error:
        raise InputError(f"--like: expected a picture that can be read, got {path}: {error}") from error
    x1, y1, x2, y2 = box
    if x2 > seen.width or y2 > seen.height or min(x2 - x1, y2 - y1) < 1:
        raise InputError(
            f"--like: expected a box of a pixel or more inside the picture ({seen.width} x {seen.height}), "
            f"got {x1:g},{y1:g},{x2:g},{y2:g}"
        )


def parse_like(text: str) -> tuple[Path, tuple[float, float, float, float] | None]:
    """PATH, or PATH:x1,y1,x2,y2.

    Raises:
        InputError: four numbers that are no box.
    """
    path, colon, corners = text.rpartition(":")
    parts = corners.split(",")
    if not colon or len(parts) != 4:
        return Path(text), None
    try:
        x1, y1, x2, y2 = (float(part) for part in parts)
    except ValueError:
        return Path(text), None
    if not (0 <= x1 < x2 and 0 <= y1 < y2 and np.isfinite([x2, y2]).all()):
        raise InputError(
            f"--like: expected a box x1,y1,x2,y2 with 0 <= x1 < x2 and 0 <= y1 < y2, got {corners}"
        )
    return Path(path), (x1, y1, x2, y2)


def _text(config: QueryConfig, current: Current, index: IndexState) -> WordsScorer:
    from curator.represent.embedders.load import text_embedder

    embedder = text_embedder(_work(current, index).setup("cpu")[1])
    if embedder is None:
        raise InputError(
            f"--text: expected an index made with an embedder that reads text, got {config.embedder!r}; run "
            "curator index --embedder transformers:FOLDER (a CLIP or SigLIP model), and query with the same"
        )
    view = embedder.text_view
    found = Projection.stored(index.shape.arrays, view)
    # <text, raw> is linear in the components: raw = mean + scale * (matrix @ (deviation * component)).
    (words,) = embedder.embed_text([config.text])
    return WordsScorer(view=view, weights=found.deviation * (found.matrix.T @ (found.scale * words)))
