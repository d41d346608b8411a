"""Judging a failure predictor on mined images that it has not seen, and calibrating it there.

In: `Mined` and what is asked. Out: cross-fitted logits, the curve that calibrates them, a fitted model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from curator.query.asked import Asked, Mined
from curator.query.predictor import FailurePredictor, FeatureRecipe, NotFittedError, Prepared
from curator.query.threads import each
from store.keys import content_key
from store.records import BoxRows, Ints

Array = NDArray[np.float64]
FOLDS = 5
FEW = 10  # failures below which the calibration moves the level alone


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """Predictions for mined images by models that have not seen them.

    Attributes:
        rows: the mined rows. logits: (N,) nan where a row is no unit, or lies on an image that is known in
            part (people name the ones that a query chose: no fair sample). part: (N,) of a failure.
        fold: (N,) of the row's image.
        slope, shift: the calibration fitted to them. factor: failures in all over those that a box covers.
    """

    rows: BoxRows
    logits: Array
    part: Array
    fold: Ints
    slope: float
    shift: float
    factor: float

    def expected(self) -> Array:
        """Calibrated expectation (N,) at each row that a pool image would offer too."""
        known = np.isfinite(self.logits) & (self.rows.outcome_ids == -1)
        calm = np.where(known, self.logits, 0)
        return np.where(known, self.factor * expit(self.slope * calm + self.shift), 0)

    def by_image(self, image_ids: Ints) -> Array:
        """Expected failures (M,) of some mined images, ascending ids."""
        return self._sums(self.expected(), image_ids)

    def calibrated_apart(self, image_ids: Ints) -> Array:
        """The same (M,), each fold calibrated on the other folds: comparing it with the truth is a test."""
        result = np.zeros(len(self.rows))
        for number in np.unique(self.fold):
            others = np.where(self.fold != number, self.logits, np.nan)
            slope, shift = _calibration(others, self.rows, self.part)
            factor = _factor(self.rows, np.where(self.fold != number, self.part, 0))
            known = np.isfinite(self.logits) & (self.rows.outcome_ids == -1) & (self.fold == number)
            result[known] = factor * expit(slope * self.logits[known] + shift)
        return self._sums(result, image_ids)

    def _sums(self, values: Array, image_ids: Ints) -> Array:
        own = np.isin(self.rows.image_ids, image_ids)
        places = np.searchsorted(image_ids, self.rows.image_ids[own])
        return np.asarray(np.bincount(places, weights=values[own], minlength=len(image_ids)), np.float64)


def folds(mined: Mined, failing: Ints, seed: int) -> Ints:
    """A fold (M,) for each mined image: units stay together, failing ones are spread evenly."""
    names = mined.unit_names
    bad = {name for name, wrong in zip(names, np.isin(mined.image_ids, failing), strict=True) if wrong}
    distinct = sorted(set(names), key=lambda n: content_key("fold", n, seed))
    distinct.sort(key=lambda n: n not in bad)
    fold = {name: i % FOLDS for i, name in enumerate(distinct)}
    return np.array([fold[name] for name in names], np.int64)


def out_of_fold(
    mined: Mined,
    asked: Asked,
    recipe: FeatureRecipe | None = None,
    *,
    seed: int = 0,
    prepared: Prepared | None = None,
) -> OutOfFold:
    """Cross-fitted predictions and the calibration that they give.

    Args:
        prepared: of the mined images, where it is known already.

    Raises:
        NotFittedError: fewer than two failing images.
    """
    split = _Split.of(mined, asked, recipe, seed, prepared)
    return split.judged(each(split.predicted, range(FOLDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """Mined images in folds, each to be judged by a model of the others.

    Attributes:
        whole: of all of them. fold: (M,) of each. partly: images known in part.
    """

    mined: Mined
    asked: Asked
    recipe: FeatureRecipe | None
    seed: int
    whole: Prepared
    fold: Ints
    partly: Ints

    @classmethod
    def of(
        cls, mined: Mined, asked: Asked, recipe: FeatureRecipe | None, seed: int, prepared: Prepared | None
    ) -> _Split:
        """Draw the folds.

        Raises:
            NotFittedError: fewer than two failing images.
        """
        failing = np.unique([o.image_id for o in mined.known.values() if asked.matches(o)])
        partly = np.array([*mined.partly, *mined.unlisted(asked)], np.int64)
        failing = failing[~np.isin(failing, partly)]
        if len(failing) < 2:
            raise NotFittedError(f"{len(failing)} failing image: nothing to judge by")
        return cls(
            mined=mined,
            asked=asked,
            recipe=recipe,
            seed=seed,
            whole=prepared or Prepared.of(mined, asked, recipe or FeatureRecipe()),
            fold=folds(mined, failing, seed),
            partly=partly,
        )

    def predicted(self, number: int) -> tuple[Ints, Array]:
        """Places of rows of a fold that are units, and their logits by a model of the others."""
        images = self.mined.image_ids
        inside, others = images[self.fold == number], images[self.fold != number]
        held = self.whole.of_images(inside)
        if not len(held.data.rows):
            return np.zeros(0, np.int64), np.zeros(0)
        known = self.whole.of_images(others)
        own = self.mined.only(others)
        model = FailurePredictor.fit(own, self.asked, self.recipe, seed=self.seed, prepared=known)
        values, places = model.logits(held.data.rows, prepared=held)
        return np.flatnonzero(np.isin(self.whole.data.rows.image_ids, inside))[places], values

    def judged(self, predictions: Sequence[tuple[Ints, Array]]) -> OutOfFold:
        """What `predicted` says of every fold, calibrated."""
        data = self.whole.data
        logits = np.full(len(data.rows), np.nan)
        for places, values in predictions:
            logits[places] = values
        known = ~np.isin(data.rows.image_ids, self.partly)
        logits, part = np.where(known, logits, np.nan), np.where(known, data.part, 0)
        slope, shift = _calibration(logits, data.rows, part)
        return OutOfFold(
            rows=data.rows,
            logits=logits,
            part=part,
            fold=self.fold[np.searchsorted(self.mined.image_ids, data.rows.image_ids)],
            slope=slope,
            shift=shift,
            factor=_factor(data.rows, part),
        )


def _factor(rows: BoxRows, part: Array) -> float:
    """Failures in all over those that an offered box covers."""
    covered = float(part[rows.outcome_ids == -1].sum())
    return float(part.sum()) / covered if covered else 1.0


def _calibration(logits: Array, rows: BoxRows, part: Array) -> tuple[float, float]:
    """Slope and shift of a logistic curve (fewer than ten failures: the shift alone), lightly penalised
    towards 1 and 0, over the boxes that a pool image would offer too."""
    from scipy.optimize import minimize

    known = np.isfinite(logits) & (rows.outcome_ids == -1)
    x, y = logits[known], part[known]
    few = y.sum() < FEW

    def loss(theta: Array) -> float:
        slope, shift = (1.0, theta[0]) if few else (theta[0], theta[1])
        z = slope * x + shift
        return float(np.sum(np.logaddexp(0, z) - y * z) + 0.5 * (slope - 1) ** 2 + 0.005 * shift**2)

    found = minimize(loss, [0.0] if few else [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3})
    return (1.0, float(found.x[0])) if few else (float(found.x[0]), float(found.x[1]))


def fitted(
    mined: Mined, asked: Asked, recipe: FeatureRecipe | None = None, *, seed: int = 0
) -> tuple[FailurePredictor, OutOfFold | None]:
    """A calibrated model of all mined images, and what judges it (None with one failing image).

    Raises:
        NotFittedError: see `FailurePredictor.fit`.
    """
    prepared = Prepared.of(mined, asked, recipe or FeatureRecipe())
    try:
        split = _Split.of(mined, asked, recipe, seed, prepared)
    except NotFittedError:
        return FailurePredictor.fit(mined, asked, recipe, seed=seed, prepared=prepared), None

    def one(number: int) -> FailurePredictor | tuple[Ints, Array] | NotFittedError:
        """The model of all, or what a fold's says; the cores share them."""
        try:
            if number < 0:
                return FailurePredictor.fit(mined, asked, recipe, seed=seed, prepared=prepared)
            return split.predicted(number)
        except NotFittedError as error:
            return error

    model, *predictions = each(one, range(-1, FOLDS))
    if isinstance(model, NotFittedError):
        raise model
    assert isinstance(model, FailurePredictor)
    sound = [found for found in predictions if isinstance(found, tuple)]
    if len(sound) < FOLDS:
        return model, None
    judged = split.judged(sound)
    return replace(model, slope=judged.slope, shift=judged.shift, factor=judged.factor), judged
