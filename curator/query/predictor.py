"""The failure predictor: how many failures of the asked kind does an image hold?

In: mined boxes with their failures (`Mined`), and what is asked. Out: a probability per box; an image's score
is their sum, the expected number of such failures.

The model is a ridge logistic regression over three blocks of features (../shared/QUERY.md, recipe 1 to 5),
added to the log-odds of class-wise uncertainty: what ranks where little can be learned (decision 0011):

    block          penalty   what it holds
    E evidence         10    what the detector says about the box, relative to the asked class
    S likeness         30    cosines to failures, negatives and successes, own image left out
    V vectors         100    the components of every view

Units: for a false positive the candidates that the detector takes for the class; for a miss every other box.
A box that overlaps a failure (IoU >= .5) stands for 1/n of it, n being the number of such boxes, so that
the expectations add up to the number of failures; one that overlaps none (IoU < .3) stands for nothing; those
between are left out. A missed object that no box covers enters by its own box. `curator.query.out_of_fold`
calibrates the probabilities by a logistic curve on predictions for images not seen (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from curator.query.asked import Asked, Mined, joined, main_view, overlaps
from curator.query.evidence import class_scores, evidence
from curator.query.likeness import Likeness
from curator.query.methods.plain import ClassUncertainty
from store.keys import content_key
from store.records import BoxRows, Floats, Ints

Array = NDArray[np.float64]

PENALTIES = {"E": 10.0, "S": 30.0, "V": 100.0}
CLIP = 6.0  # standardised features lie within +- this
POSITIVE, NEGATIVE = 0.5, 0.3  # IoU with a failure
MOST = 8_000  # rows that say "nothing here"; of more, a keyed sample with weights
STEPS, TOLERANCE = 200, 1e-7  # of the solver: gradient at the end over that at the start
PRIOR_FLOOR = 1e-3  # class-wise uncertainty below counts as this


class NotFittedError(Exception):
    """Why no model could be fitted: too few failures, or a solver that did not converge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecipe:
    """Which features a predictor reads.

    Attributes:
        blocks: of "E", "S", "V". views: box and image views for S and V; None: all.
        culprits: compare with the regions that explanations blame too.
        penalties: by block. prior: start from class-wise uncertainty.
    """

    blocks: tuple[str, ...] = ("E", "S", "V")
    views: tuple[str, ...] | None = None
    culprits: bool = False
    penalties: dict[str, float] = field(default_factory=lambda: dict(PENALTIES))
    prior: bool = True


@dataclass(frozen=True, slots=True)
class Training:
    """Rows to learn from, complete by image.

    Attributes:
        use: places of those that are units. part: (N,) of a failure that each stands for. failure: (N,) the
            outcome id concerned, -1.
    """

    rows: BoxRows
    use: Ints
    part: Array
    failure: Ints

    def of_images(self, image_ids: Ints) -> tuple[Training, Ints]:
        """The rows of some images, and their places: what is left out does not change what is learned of
        them."""
        inside = np.flatnonzero(np.isin(self.rows.image_ids, image_ids))
        place = np.full(len(self.rows), -1, np.int64)
        place[inside] = np.arange(len(inside))
        use = place[self.use]
        part = Training(self.rows.take(inside), use[use >= 0], self.part[inside], self.failure[inside])
        return part, inside


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a model of a question learns from, with what does not depend on which other images it learns
    from: computed once for all folds.

    Attributes:
        evidence: (N, 22). prior: (N,) log-odds.
    """

    data: Training
    evidence: Floats
    prior: Array

    @classmethod
    def of(cls, mined: Mined, asked: Asked, recipe: FeatureRecipe) -> Prepared:
        """Of mined images.

        Raises:
            NotFittedError: see `training`.
        """
        data = training(mined, asked)
        return cls(data, evidence(data.rows, asked), _prior(data.rows, asked, recipe))

    def of_images(self, image_ids: Ints) -> Prepared:
        """Of some of them."""
        data, inside = self.data.of_images(image_ids)
        return Prepared(data, self.evidence[inside], self.prior[inside])


def units(rows: BoxRows, asked: Asked) -> NDArray[np.bool_]:
    """(N,) bool: boxes that such a failure can lie at."""
    score, _ = class_scores(rows, asked.labels)
    detected = (rows.labels[:, 0] >= 0) & (score >= asked.threshold)
    if asked.kind == "FP":
        return np.asarray(detected)
    own = np.isin(rows.labels[:, 0], np.array(asked.labels, np.int64))
    return np.asarray(~(detected & own))


def training(mined: Mined, asked: Asked) -> Training:
    """Rows of mined images as the model learns them.

    Raises:
        NotFittedError: they offer none.
    """
    rows, own = mined.offered, mined.asking(asked)
    if not len(rows):
        raise NotFittedError("no mined image offers boxes")
    best, which = overlaps(rows, own.image_ids, own.boxes)
    able = units(rows, asked)
    covered = np.unique(own.outcome_ids[which[able & (best >= POSITIVE)]])
    bare = own.take(~np.isin(own.outcome_ids, covered))
    rows = joined(rows, bare)
    best, which = overlaps(rows, own.image_ids, own.boxes)
    able = units(rows, asked) | (rows.outcome_ids != -1)
    positive = able & (best >= POSITIVE)
    failure = np.where(positive, own.outcome_ids[which] if len(own) else -1, -1)
    part = np.zeros(len(rows))
    if positive.any():
        _, inverse, count = np.unique(failure[positive], return_inverse=True, return_counts=True)
        part[positive] = 1 / count[inverse]
    nothing = able & (best < NEGATIVE) & ~mined.silent(asked, rows.image_ids)
    use = np.flatnonzero(positive | nothing)
    return Training(rows, use, part, np.asarray(failure))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePredictor:
    """A fitted model.

    Attributes:
        likeness: what S compares with. mean, deviation: of the features. weights, intercept: of them.
        slope, shift: calibration of the logit. factor: failures in all over those that a box covers.
        failures: outcome ids that it learned from.
    """

    asked: Asked
    recipe: FeatureRecipe
    views: tuple[str, ...]
    likeness: Likeness | None
    blamed: Likeness | None
    mean: Array
    deviation: Array
    weights: Array
    intercept: float
    failures: tuple[int, ...]
    slope: float = 1.0
    shift: float = 0.0
    factor: float = 1.0

    # ------------------------------------------------------------ fitting

    @classmethod
    def fit(
        cls,
        mined: Mined,
        asked: Asked,
        recipe: FeatureRecipe | None = None,
        *,
        seed: int = 0,
        prepared: Prepared | None = None,
    ) -> FailurePredictor:
        """Fit to mined images; not calibrated.

        Args:
            prepared: of these images, where it is known already.

        Raises:
            NotFittedError: no box shows such a failure, or the solver did not converge.
        """
        recipe = recipe or FeatureRecipe()
        prepared = prepared or Prepared.of(mined, asked, recipe)
        data = prepared.data
        views = _views(data.rows, recipe.views)
        positive = data.use[data.part[data.use] > 0]
        negative = data.use[data.part[data.use] == 0]
        if not len(positive) or not len(negative):
            raise NotFittedError("no box of a mined image shows such a failure, or all do")
        likeness = None
        if "S" in recipe.blocks:
            right = mined.outcomes.take(mined.outcome_kinds == "TP")
            same = np.array(
                [mined.known[int(i)].category in asked.categories for i in right.outcome_ids], bool
            )
            successes = right.take(same) if same.any() else right
            likeness = Likeness.of(data.rows.take(positive), data.rows.take(negative), successes, views)
        blamed = None
        if recipe.culprits and mined.culprits is not None:
            failing = np.array([i for i, o in mined.known.items() if asked.matches(o)], np.int64)
            own = mined.culprits.take(np.isin(mined.culprits.outcome_ids, failing))
            nothing = own.take(np.zeros(0, np.int64))
            first = main_view(own.views)  # the view in which regions have vectors
            blamed = Likeness.of(own, nothing, nothing, (first,)) if len(own) else None
        kept, weight = _sampled(data, positive, negative, asked, seed)
        model = cls(
            asked=asked,
            recipe=recipe,
            views=views,
            likeness=likeness,
            blamed=blamed,
            mean=np.zeros(0),
            deviation=np.zeros(0),
            weights=np.zeros(0),
            intercept=0.0,
            failures=tuple(int(i) for i in np.unique(data.failure[data.part > 0])),
        )
        features, penalties = model._features(data.rows, kept, prepared.evidence)
        solved = _solved(features, penalties, data.part[kept], weight, prepared.prior[kept])
        return replace(
            model,
            mean=solved.mean,
            deviation=solved.deviation,
            weights=solved.weights,
            intercept=solved.intercept,
        )

    def _features(self, rows: BoxRows, index: Ints, known: Floats) -> tuple[Array, Array]:
        """Features (n, F) of some rows of complete images, and the penalty of each.

        Args:
            known: evidence (N, 22) about the rows.
        """
        blocks: list[tuple[NDArray[Any], float]] = []
        penalties = self.recipe.penalties
        chosen = rows.take(index)
        if "E" in self.recipe.blocks:
            blocks.append((known[index], penalties["E"]))
        if self.likeness is not None:
            blocks.append((self.likeness(chosen), penalties["S"]))
        if self.blamed is not None:
            blocks.append((self.blamed(chosen)[:, :2], penalties["S"]))
        if "V" in self.recipe.blocks:
            blocks += [(chosen.components(view), penalties["V"]) for view in self.views]
        return (
            np.concatenate([values for values, _ in blocks], axis=1),
            np.concatenate([np.full(values.shape[1], penalty) for values, penalty in blocks]),
        )

    # ------------------------------------------------------------ answers

    def logits(self, rows: BoxRows, *, prepared: Prepared | None = None) -> tuple[Array, Ints]:
        """Logits of the boxes that are units, and their places among the rows; images complete.

        Args:
            prepared: of these rows, where it is known already.
        """
        index = np.flatnonzero(units(rows, self.asked))
        if not len(index):
            return np.zeros(0), index
        known = evidence(rows, self.asked) if prepared is None else prepared.evidence
        prior = _prior(rows, self.asked, self.recipe) if prepared is None else prepared.prior
        features, _ = self._features(rows, index, known)
        standard = np.clip((features - self.mean) / self.deviation, -CLIP, CLIP)
        found = standard @ self.weights + self.intercept + prior[index]
        return np.asarray(found, np.float64), index

    def probabilities(self, rows: BoxRows) -> Array:
        """Expected failures (N,) at each box, calibrated; 0 where such a failure cannot lie."""
        found, index = self.logits(rows)
        result = np.zeros(len(rows))
        result[index] = self.calibrated(found)
        return result

    def calibrated(self, logits: Array) -> Array:
        """Expected failures at boxes with these logits."""
        return np.asarray(self.factor * expit(self.slope * logits + self.shift))


def _prior(rows: BoxRows, asked: Asked, recipe: FeatureRecipe) -> Array:
    """Log-odds (N,) that class-wise uncertainty gives the boxes; 0 without a prior."""
    if not recipe.prior:
        return np.zeros(len(rows))
    p = np.clip(ClassUncertainty(asked=asked).values(rows), PRIOR_FLOOR, 1 - PRIOR_FLOOR)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def _views(rows: BoxRows, wanted: Sequence[str] | None) -> tuple[str, ...]:
    every = (*rows.views, *rows.image_views)
    return every if wanted is None else tuple(view for view in every if view in wanted)


def _sampled(data: Training, positive: Ints, negative: Ints, asked: Asked, seed: int) -> tuple[Ints, Array]:
    """Rows to fit, ascending, with weights that stand for those left out."""
    factor = 1.0
    if len(negative) > MOST:
        draw = np.random.default_rng(int(content_key("predictor", asked.name, seed)[:16], 16))
        factor = len(negative) / MOST
        negative = np.sort(draw.choice(negative, MOST, replace=False))
    kept = np.concatenate([positive, negative])
    weight = np.concatenate([np.ones(len(positive)), np.full(len(negative), factor)])
    order = np.argsort(kept, kind="stable")
    return kept[order], weight[order]


@dataclass(frozen=True, slots=True)
class _Solved:
    mean: Array
    deviation: Array
    weights: Array
    intercept: float


def _solved(features: Array, penalties: Array, part: Array, weight: Array, prior: Array) -> _Solved:
    """Mean, deviation, weights and intercept of the ridge logistic regression whose rows are a failure with
    weight `part` and none with weight 1 - `part`; `prior` (n,) is added to every row's log-odds."""
    from scipy.optimize import minimize

    data = features.astype(np.float64)
    mean = np.average(data, axis=0, weights=weight)
    deviation = np.sqrt(np.average((data - mean) ** 2, axis=0, weights=weight))
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    standard = np.clip((data - mean) / deviation, -CLIP, CLIP) / np.sqrt(penalties)
    x = np.concatenate([standard, np.ones((len(standard), 1))], axis=1)
    ridge = np.append(np.ones(standard.shape[1]), 0.0)
    share = np.where(part > 0, part, 0.0)

    def loss(theta: Array) -> tuple[float, Array]:
        z = x @ theta + prior
        value = np.sum(weight * (np.logaddexp(0, z) - share * z)) + 0.5 * np.sum(ridge * theta**2)
        return float(value), np.asarray(x.T @ (weight * (expit(z) - share)) + ridge * theta)

    def curvature(theta: Array) -> Array:
        p = expit(x @ theta + prior)
        return np.asarray((x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge))

    start = np.zeros(x.shape[1])
    steepest = float(np.abs(loss(start)[1]).max())
    found = minimize(
        loss, start, jac=True, hess=curvature, method="trust-exact",
        options={"gtol": TOLERANCE * max(steepest, 1.0), "maxiter": STEPS},
    )  # fmt: skip
    if not found.success:
        raise NotFittedError(f"the solver did not converge: {found.message}")
    return _Solved(mean, deviation, found.x[:-1] / np.sqrt(penalties), float(found.x[-1]))
