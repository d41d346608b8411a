"""What every query tells before it answers: how well methods rank the mined images that they have not seen.

In: `Mined` and what is asked. Out: a table with a row per method: average precision, share of failing images
among the first, expected and true failures. Folds and images are the same for all, so that rows compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Asked, Mined
from curator.query.methods.base import Array, Ranker, Scorer, image_scores
from curator.query.methods.predictor import PredictorScorer
from curator.query.out_of_fold import FOLDS, folds
from store.records import Ints

SHARE = 0.1  # of the mined images that "the first" are, at least 5
FEWEST = 2  # failing images


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One row of the table.

    Attributes:
        average_precision, hit, found: over mined images; `found` is failures per image among the first.
        expected, true: number of failures in all; expected by images not seen, each fold calibrated on the
            others, is None where a method does not say.
    """

    method: str
    average_precision: float
    hit: float
    found: float
    expected: float | None
    true: int

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "method": self.method,
            "average_precision": round(self.average_precision, 4),
            "hit": round(self.hit, 4),
            "failures_per_image": round(self.found, 4),
            "expected": None if self.expected is None else round(self.expected, 2),
            "true": self.true,
        }


def judge(
    methods: Mapping[str, Ranker],
    mined: Mined,
    asked: Asked,
    *,
    seed: int,
    known: Mapping[str, Scorer] | None = None,
) -> list[Judged]:
    """Judge methods out of fold; none where fewer than two mined images fail.

    Args:
        known: scorers fitted to all mined images, whose own out-of-fold predictions are used where they have
            some.
    """
    unknown = mined.unlisted(asked)
    if unknown:
        mined = mined.only(np.setdiff1d(mined.image_ids, unknown))
    truth = failures_per_image(mined, asked)
    if (truth > 0).sum() < FEWEST:
        return []
    fold = folds(mined, mined.image_ids[truth > 0], seed)
    rows = []
    for name, ranker in methods.items():
        fitted = (known or {}).get(name)
        if isinstance(fitted, PredictorScorer) and fitted.judged is not None:
            scores = fitted.judged.by_image(mined.image_ids)
            expected: float | None = float(fitted.judged.calibrated_apart(mined.image_ids).sum())
        else:
            scores, expected = _held_out(ranker, mined, asked, fold, seed), None
        rows.append(_judged(name, scores, truth, expected))
    return rows


def failures_per_image(mined: Mined, asked: Asked) -> Ints:
    """Asked failures (M,) of each mined image."""
    images = [outcome.image_id for outcome in mined.known.values() if asked.matches(outcome)]
    place = {int(image): i for i, image in enumerate(mined.image_ids)}
    found = np.zeros(len(mined.image_ids), np.int64)
    for image in images:
        found[place[image]] += 1
    return found


def _held_out(ranker: Ranker, mined: Mined, asked: Asked, fold: Ints, seed: int) -> Array:
    scores = np.full(len(mined.image_ids), -np.inf)
    for number in range(FOLDS):
        held = mined.image_ids[fold == number]
        rows = mined.offered.take(np.isin(mined.offered.image_ids, held))
        if not len(rows):
            continue
        scorer = ranker.fit(mined.only(mined.image_ids[fold != number]), asked, seed=seed)
        ids, found, _ = image_scores(scorer, rows)
        scores[np.searchsorted(mined.image_ids, ids)] = found
    return scores


def _judged(name: str, scores: Array, truth: Ints, expected: float | None) -> Judged:
    from sklearn.metrics import average_precision_score

    finite: NDArray[np.float64] = np.where(np.isfinite(scores), scores, -1e30)
    first = np.argsort(-finite, kind="stable")[: max(5, round(SHARE * len(truth)))]
    return Judged(
        method=name,
        average_precision=float(average_precision_score(truth > 0, finite)),
        hit=float((truth[first] > 0).mean()),
        found=float(truth[first].mean()),
        expected=expected,
        true=int(truth.sum()),
    )
