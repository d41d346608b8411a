"""How many of the asked failures the pool holds, with an interval; "absent" means: synthesise them.

In: fitted questions, what stage one named and its scores, the images that it left out. Out: per question a
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
from curator.query.run_answers import Answered, Question
from store.records import Ints

if TYPE_CHECKING:
    from store.store import Store

SAMPLE = 1000  # images of the rest that are scored


def covered(
    store: Store,
    space: str,
    questions: Sequence[Question],
    found: Answered,
    rest: Sequence[int],
    mined: Mined,
    seed: int,
) -> list[Coverage | None]:
    """Per question what the pool holds.

    Args:
        rest: images that may answer and were not scored.
    """
    result: list[Coverage | None] = []
    images = np.array(sorted(rest), np.int64)
    for number, question in enumerate(questions):
        scorer = question.scorer
        if not isinstance(scorer, PredictorScorer):
            result.append(None)
            continue
        exact = float(found.scores[:, [c for c, of in enumerate(found.of) if of == number]].sum())

        def evaluate(places: Ints, scorer: PredictorScorer = scorer) -> NDArray[np.floating[Any]]:
            rows = store.boxes(space, "offered", image_ids=images[places].tolist())
            own = Images.of(rows.image_ids)
            sums = dict(zip(own.ids.tolist(), own.sums(scorer.values(rows)), strict=True))
            return np.array([sums.get(int(i), 0.0) for i in images[places]])

        sampled = stratified(np.ones(len(images)), evaluate, size=SAMPLE, seed=seed) if len(images) else None
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
