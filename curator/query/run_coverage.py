"""How many of the asked failures the pool holds, with an interval; "absent" means: synthesise them.

In: fitted questions, what stage one named, and its scores. Out: per question a
`Coverage`; None where a method says no expectations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Images, Mined
from curator.query.coverage import Calibration, Coverage, calibrated, coverage, stratified
from curator.query.judging import failures_per_image
from curator.query.methods.predictor import PredictorScorer
from curator.query.run_answers import Answered, Question, scored
from curator.query.run_retrieval import Named
from store.records import Ints

if TYPE_CHECKING:
    from store.store import Store

SAMPLE = 400  # images of the rest that are scored, for each question


def covered(
    store: Store,
    space: str,
    questions: Sequence[Question],
    found: Answered,
    named: Named,
    mined: Mined,
    seed: int,
) -> list[Coverage | None]:
    """Per question what the pool holds."""
    result: list[Coverage | None] = []
    left = ~np.isin(named.allowed, named.image_ids)
    images = np.array(named.allowed, np.int64)[left]
    for number, question in enumerate(questions):
        scorer = question.scorer
        if not isinstance(scorer, PredictorScorer):
            result.append(None)
            continue
        exact = float(found.scores[:, [c for c, of in enumerate(found.of) if of == number]].sum())

        def evaluate(places: Ints, question: Question = question) -> NDArray[np.floating[Any]]:
            rows = store.boxes(space, "offered", image_ids=images[places].tolist())
            own = Images.of(rows.image_ids)
            totals = scored([question], rows, own).sum(1)
            sums = dict(zip(own.ids.tolist(), totals, strict=True))
            return np.array([sums.get(int(i), 0.0) for i in images[places]])

        sampled = None
        if len(images):
            sampled = stratified(named.evidence[left, number], evaluate, size=SAMPLE, seed=seed)
        result.append(coverage(exact, sampled, calibration_of(question, mined, seed), seed=seed))
    return result


def calibration_of(question: Question, mined: Mined, seed: int) -> Calibration | None:
    """How the question's expectations compare with the mined images; None where they cannot be judged."""
    scorer = question.scorer
    if not isinstance(scorer, PredictorScorer) or scorer.judged is None:
        return None
    own = scorer.judged.by_image(mined.image_ids)
    if not own.sum() > 0:
        return None
    truth = failures_per_image(mined, question.asked).astype(np.float64)
    return calibrated(own, truth, np.array(mined.unit_names), seed=seed)
