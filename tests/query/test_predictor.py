"""The failure predictor: what it learns, what it adds up to, and when it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from curator.query.asked import Images, overlaps
from curator.query.evidence import NAMES, evidence
from curator.query.likeness import Likeness
from curator.query.methods.plain import ClassUncertainty
from curator.query.out_of_fold import fitted, folds, out_of_fold
from curator.query.predictor import (
    FailurePredictor,
    FeatureRecipe,
    NotFittedError,
    _solved,
    training,
    units,
)
from curator.represent.whiten import unit
from tests.query.tables import ASKED, outcome, planted


def test_it_ranks_images_with_planted_failures_first_and_counts_them() -> None:
    mined, pool, truth = planted(150, 150, share=0.3)
    model, judged = fitted(mined, ASKED)
    assert judged is not None
    images = Images.of(pool.image_ids)
    ids, expected = images.ids, images.sums(model.probabilities(pool))
    assert ids.tolist() == list(range(10_000, 10_150))
    first = np.argsort(-expected)[:30]
    assert (truth[first] > 0).mean() > 0.85
    assert (truth > 0).mean() < 0.4
    assert 1 / 1.5 < expected.sum() / truth.sum() < 1.5
    assert judged.expected().sum() == pytest.approx(len(training(mined, ASKED).part.nonzero()[0]), rel=0.15)


def test_an_unseen_image_is_scored_alike_alone_and_among_others() -> None:
    mined, pool, _ = planted(60, 20, share=0.4)
    model = FailurePredictor.fit(mined, ASKED)
    together = model.probabilities(pool)
    one = pool.take(pool.image_ids == 10_007)
    np.testing.assert_allclose(model.probabilities(one), together[pool.image_ids == 10_007], rtol=1e-5)


def test_each_failure_counts_once_however_many_boxes_show_it() -> None:
    mined, _, _ = planted(40, 1, share=0.5)
    data = training(mined, ASKED)
    failures = [o for o in mined.known.values() if ASKED.matches(o)]
    assert data.part.sum() == pytest.approx(len(failures))
    assert set(data.failure[data.part > 0].tolist()) == {o.id for o in failures}


def test_a_missed_object_that_no_box_covers_enters_by_its_own_box() -> None:
    mined, _, _ = planted(40, 1, share=0.5)
    bare = mined.known[int(mined.asking(ASKED).outcome_ids[0])]
    far = mined.outcomes.boxes.copy()
    far[mined.outcomes.outcome_ids == bare.id] = (390, 390, 399, 399)
    moved = replace(mined, outcomes=replace(mined.outcomes, boxes=far))
    data = training(moved, ASKED)
    own = data.rows.outcome_ids >= 0
    assert data.rows.outcome_ids[own].tolist() == [bare.id]
    assert data.part[own] == pytest.approx(1)
    judged = out_of_fold(moved, ASKED)
    assert judged.factor == pytest.approx(len(moved.asking(ASKED)) / (len(moved.asking(ASKED)) - 1))


def test_each_fold_is_calibrated_on_the_others() -> None:
    mined, _, _ = planted(150, 1, share=0.3)
    judged = out_of_fold(mined, ASKED)
    apart, together = judged.calibrated_apart(mined.image_ids), judged.by_image(mined.image_ids)
    assert apart.shape == together.shape
    assert not np.allclose(apart, together)
    assert apart.sum() == pytest.approx(together.sum(), rel=0.2)
    # What one fold holds does not move its own expectations.
    first = np.unique(judged.rows.image_ids[judged.fold == 0])
    part = np.where(judged.fold == 0, 0, judged.part)
    moved = replace(judged, part=part).calibrated_apart(mined.image_ids)
    inside = np.isin(mined.image_ids, first)
    np.testing.assert_allclose(moved[inside], apart[inside])


def test_units_of_misses_and_false_positives_are_apart() -> None:
    mined, _, _ = planted(20, 1, share=0.5)
    rows = mined.offered
    wrong = units(rows, replace(ASKED, kind="FP"))
    assert (rows.labels[wrong, 0] >= 0).all()
    best = (rows.labels[:, 0] == 0) & (rows.scores[:, 0] >= ASKED.threshold)
    assert not (units(rows, ASKED) & best).any()
    assert wrong[best].all()


def test_the_solver_finds_the_penalised_minimum() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 3))
    part = np.where(rng.random(80) < 0.4, rng.choice([0.5, 1.0], 80), 0.0)
    weight = rng.uniform(0.5, 2, 80)
    penalties = np.array([1.0, 10.0, 30.0])
    prior = rng.normal(size=80) * 2
    found = _solved(x, penalties, part, weight, prior)
    z = np.clip((x - found.mean) / found.deviation, -6, 6)

    def loss(theta: np.ndarray) -> float:
        logit = z @ theta[:3] + theta[3] + prior
        terms = weight * (np.logaddexp(0, logit) - part * logit)
        return float(terms.sum() + 0.5 * (penalties * theta[:3] ** 2).sum())

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    # A row's weight as a failure is `part` of it, the rest says "none".
    np.testing.assert_allclose([*found.weights, found.intercept], best.x, atol=2e-3)


def test_without_a_prior_it_is_scikit_learns_model() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 5))
    failing = rng.random(300) < 1 / (1 + np.exp(1.5 - x[:, 0]))
    weight = rng.uniform(0.5, 2, 300)
    found = _solved(x, np.full(5, 3.0), failing.astype(float), weight, np.zeros(300))
    z = np.clip((x - found.mean) / found.deviation, -6, 6)
    theirs = LogisticRegression(C=1 / 3, tol=1e-10).fit(z, failing, sample_weight=weight)
    np.testing.assert_allclose(found.weights, theirs.coef_[0], atol=1e-4)
    assert found.intercept == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_where_nothing_is_learned_class_wise_uncertainty_is_left() -> None:
    """With penalties that forbid all learning, images rank as class-wise uncertainty ranks them."""
    mined, pool, _ = planted(60, 80, share=0.5)
    nothing = FeatureRecipe(penalties=dict.fromkeys("ESV", 1e9))
    model = FailurePredictor.fit(mined, ASKED, nothing)
    images = Images.of(pool.image_ids)
    ours = images.sums(model.probabilities(pool))
    plain = ClassUncertainty(asked=ASKED)
    theirs = images.sums(plain.values(pool))
    assert spearmanr(ours, theirs).statistic > 0.9


def test_likeness_leaves_the_own_image_out_and_finds_the_nearest() -> None:
    mined, pool, _ = planted(30, 5, share=0.5)
    rows = mined.offered
    likeness = Likeness.of(mined.asking(ASKED), rows.take(np.arange(0, 300, 3)), rows, ("object",))
    own, other = likeness(replace(rows, image_ids=rows.image_ids + 5000)), likeness(rows)
    covered = overlaps(rows, mined.asking(ASKED).image_ids, mined.asking(ASKED).boxes)[0] > 0.99
    assert own[covered, 0] == pytest.approx(1, abs=1e-5)
    assert (other[covered, 0] < 0.999).all()
    assert (np.abs(likeness(pool)) <= 1 + 1e-5).all()


def test_evidence_knows_no_other_image() -> None:
    mined, _, _ = planted(12, 1, share=0.5)
    rows = mined.offered
    table = evidence(rows, ASKED)
    assert table.shape == (len(rows), len(NAMES))
    assert np.isfinite(table).all()
    for place in (0, 7, 11):
        images = Images.of(rows.image_ids)
        part = np.arange(images.starts[place], images.starts[place] + images.counts[place])
        np.testing.assert_allclose(evidence(rows.take(part), ASKED), table[part], rtol=1e-5)


def test_folds_keep_units_together_and_spread_failing_images() -> None:
    mined, _, _ = planted(50, 1, share=0.4)
    mined = replace(mined, units={i: f"video {i // 5}" for i in range(50)})
    failing = np.unique([o.image_id for o in mined.known.values() if ASKED.matches(o)])
    fold = folds(mined, failing, seed=0)
    assert all(len(set(fold[i : i + 5].tolist())) == 1 for i in range(0, 50, 5))
    assert len(set(fold.tolist())) == 5


@pytest.mark.parametrize("blocks", [("E",), ("S",), ("V",), ("E", "V")])
def test_blocks_can_be_left_out(blocks: tuple[str, ...]) -> None:
    mined, pool, _ = planted(40, 5, share=0.5)
    model = FailurePredictor.fit(mined, ASKED, FeatureRecipe(blocks=blocks))
    assert np.isfinite(model.probabilities(pool)).all()


def test_it_says_why_it_cannot_be_fitted() -> None:
    mined, _, _ = planted(20, 1, share=0.0)
    with pytest.raises(NotFittedError, match="no box"):
        FailurePredictor.fit(mined, ASKED)
    one = int(mined.offered.image_ids[0])
    known = {**mined.known, 999: outcome(999, one, mined.offered.boxes[3])}
    box = mined.offered.boxes[3:4]
    extra = replace(mined.outcomes.take(np.arange(1)), outcome_ids=np.array([999]), boxes=box)
    few = replace(mined, known=known, outcomes=extra)
    model, judged = fitted(few, ASKED)
    assert judged is None
    assert model.failures == (999,)


def test_folds_that_share_what_is_prepared_predict_as_models_of_the_other_images() -> None:
    mined, _, _ = planted(40, 1, share=0.4, seed=5)
    judged = out_of_fold(mined, ASKED, seed=0)
    failing = np.unique([o.image_id for o in mined.known.values() if ASKED.matches(o)])
    fold = folds(mined, failing, 0)
    for number in range(5):
        model = FailurePredictor.fit(mined.only(mined.image_ids[fold != number]), ASKED, seed=0)
        held = judged.rows.take(np.isin(judged.rows.image_ids, mined.image_ids[fold == number]))
        values, places = model.logits(held)
        own = judged.logits[np.isin(judged.rows.image_ids, mined.image_ids[fold == number])]
        np.testing.assert_allclose(own[places], values, atol=1e-5)


def test_likeness_equals_a_plain_computation() -> None:
    rng = np.random.default_rng(3)
    mined, _, _ = planted(12, 1, share=0.5, seed=4)
    rows = mined.offered
    parts = [rows.take(np.sort(rng.choice(len(rows), n, replace=False))) for n in (7, 30, 2)]
    found = Likeness.of(*parts, ("object",))(rows)
    own = unit(rows.components("object"))
    for column, (part, k) in enumerate(((parts[0], 1), (parts[0], 3), (parts[1], 5), (parts[2], 1))):
        cosines = own @ unit(part.components("object")).T
        cosines[rows.image_ids[:, None] == part.image_ids[None, :]] = np.nan
        best = -np.sort(-np.where(np.isnan(cosines), -np.inf, cosines), axis=1)[:, :k]
        counted = np.maximum(np.isfinite(best).sum(1), 1)
        wanted = np.where(np.isfinite(best), best, 0).sum(1) / counted
        np.testing.assert_allclose(found[:, column], wanted, atol=1e-5)
