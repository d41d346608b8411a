"""The default: expected failures by `curator.query.predictor`.

Where none can be fitted, class-wise uncertainty ranks, and a note says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curator.query.asked import Asked, Mined
from curator.query.methods.base import Array, Scorer
from curator.query.methods.plain import ClassUncertainty
from curator.query.out_of_fold import OutOfFold, fitted
from curator.query.predictor import FailurePredictor, FeatureRecipe, NotFittedError
from store.records import BoxRows


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorScorer:
    """A fitted predictor, and its predictions for mined images not seen (None with one failing image)."""

    model: FailurePredictor
    judged: OutOfFold | None
    pooling: Literal["sum", "max"] = "sum"
    expects: bool = True
    note: str = ""

    def values(self, rows: BoxRows) -> Array:
        """Expected failures."""
        return self.model.probabilities(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """See the module."""

    recipe: FeatureRecipe | None = None

    def fit(self, mined: Mined, asked: Asked, *, seed: int) -> Scorer:
        """Fit and calibrate."""
        try:
            model, judged = fitted(mined, asked, self.recipe, seed=seed)
        except NotFittedError as error:
            return ClassUncertainty(
                asked=asked, note=f"{asked.name}: ranked by class-wise uncertainty: {error}"
            )
        note = "" if judged else f"{asked.name}: one failing image: its figures are not checked"
        return PredictorScorer(model=model, judged=judged, note=note)
