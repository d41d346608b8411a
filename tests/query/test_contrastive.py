"""The contrastive query on vectors whose cause is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from curator.query.base import BoxTable, Examples
from curator.query.contrast import area_under_curve, fit_queries
from curator.represent.whiten import LEAST_SHARE, Whitening, shrunk_covariance, unit

NUISANCES, CAUSES, DIMENSION, BOXES = 6, 3, 48, 8
MIX = np.random.default_rng(99).normal(size=(NUISANCES, DIMENSION))


def table(
    rng: np.random.Generator,
    images: int,
    causes: dict[int, int],
    *,
    first: int = 0,
    views: tuple[str, ...] = ("object",),
) -> BoxTable:
    """`images` images of BOXES boxes; box 0 of image i shows cause `causes[i]`. A few nuisances move every
    dimension widely, a cause moves one a little."""
    n = images * BOXES
    ids = first + np.repeat(np.arange(images), BOXES)
    values = {}
    for view in views:
        vectors = rng.normal(size=(n, DIMENSION)) + 4 * rng.normal(size=(n, NUISANCES)) @ MIX
        if view == "object":
            for image, cause in causes.items():
                vectors[image * BOXES, cause] += 7
        values[view] = vectors.astype(np.float32)
    boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (n, 1))
    outcomes = np.full(n, -1, np.int64)
    for image in causes:
        outcomes[image * BOXES] = first + image + 1
    return BoxTable(
        image_ids=ids,
        boxes=boxes,
        ids=np.arange(n),
        outcome_ids=outcomes,
        views=values,
        evidence=np.zeros(n, np.float32),
    )


def split(mined: BoxTable) -> tuple[list[Examples], BoxTable, BoxTable]:
    """Failures (as examples without twins), negatives, and all boxes as a pool would offer them."""
    failing = mined.outcome_ids >= 0
    own, none = mined.take(failing), mined.take(np.zeros(len(mined), bool))
    return [Examples(source="box", table=own, twins=none)], mined.take(~failing), mined


def precision(scores: np.ndarray, pool: BoxTable, answers: int) -> float:
    best = np.array([scores[pool.image_ids == image].max() for image in np.unique(pool.image_ids)])
    right = np.unique(pool.image_ids[pool.outcome_ids >= 0])
    return float(np.isin(np.unique(pool.image_ids)[np.argsort(-best)[:answers]], right).mean())


def test_contrast_beats_similarity_where_a_nuisance_dominates() -> None:
    rng = np.random.default_rng(0)
    examples, negatives, mined = split(table(rng, 150, dict.fromkeys(range(20), 0)))
    pool = table(rng, 500, dict.fromkeys(range(0, 500, 20), 0), first=1000)
    query = fit_queries(examples, negatives, mined, kind="FN", views=("object",))[0]
    mean, deviation = negatives.views["object"].mean(0), negatives.views["object"].std(0)
    own, others = (unit((t.views["object"] - mean) / deviation) for t in (examples[0].table, pool))
    assert precision(query.score(pool), pool, 25) >= 0.9
    assert precision((others @ own.T).max(1), pool, 25) <= 0.6
    assert query.separation > 0.97
    assert query.covered >= 15


def test_every_cause_gets_a_query_of_its_own() -> None:
    rng = np.random.default_rng(1)
    examples, negatives, mined = split(table(rng, 260, {i: i % CAUSES for i in range(60)}))
    queries = fit_queries(examples, negatives, mined, kind="FN", views=("object",))
    for cause in range(CAUSES):
        pool = table(rng, 300, dict.fromkeys(range(0, 300, 20), cause), first=1000)
        best = max(queries, key=lambda q: precision(q.score(pool), pool, 15))
        found = pool.take(pool.outcome_ids >= 0)
        assert precision(best.score(pool), pool, 15) >= 0.8
        assert {(int(i) - 1) % CAUSES for i in best.nearest(found)} == {cause}
    assert len(queries) < 10


def test_a_view_that_only_adds_noise_is_left_out() -> None:
    rng = np.random.default_rng(2)
    views = ("object", *(f"noise{n}" for n in range(6)))
    examples, negatives, mined = split(table(rng, 150, dict.fromkeys(range(25), 0), views=views))
    assert fit_queries(examples, negatives, mined, kind="FN", views=views)[0].views == ("object",)


def test_the_culprit_asks_where_the_object_tells_nothing() -> None:
    rng = np.random.default_rng(3)
    mined, pool = (
        table(rng, 150, dict.fromkeys(range(25), 0)),
        table(rng, 300, dict.fromkeys(range(0, 300, 20), 0), first=500),
    )
    for boxes in (
        mined,
        pool,
    ):  # the cause lies in the image's second box; the object's own box shows nothing
        shown = np.flatnonzero(boxes.outcome_ids >= 0)
        boxes.views["object"][shown + 1, 0] += 7
        boxes.views["object"][shown, 0] -= 7
    shown = np.flatnonzero(mined.outcome_ids >= 0)
    own = mined.take(shown)
    blamed = replace(mined.take(shown + 1), outcome_ids=own.outcome_ids)
    none = mined.take(np.zeros(len(mined), bool))
    rest = np.setdiff1d(np.arange(len(mined)), [*shown, *(shown + 1)])
    box, culprit = (Examples(source=s, table=t, twins=none) for s, t in (("box", own), ("culprit", blamed)))
    alone = fit_queries([box], mined.take(rest), mined, kind="FN", views=("object",))[0]
    query = fit_queries([box, culprit], mined.take(rest), mined, kind="FN", views=("object",))[0]
    assert query.source == "culprit"
    assert precision(query.score(pool), pool, 12) >= 0.8 > precision(alone.score(pool), pool, 12)


def test_evidence_keeps_misses_and_false_positives_apart() -> None:
    rng = np.random.default_rng(4)
    mined = table(rng, 150, dict.fromkeys(range(25), 0))
    sure = np.where(mined.outcome_ids >= 0, -4, rng.choice((-4, 4), len(mined))).astype(np.float32)
    mined = replace(mined, evidence=sure)
    examples, negatives, offered = split(mined)
    missed = fit_queries(examples, negatives, offered, kind="FN", views=("object",))[0].score(mined)
    assert np.isneginf(missed[sure > 0]).all()
    assert np.isfinite(missed[sure < 0]).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_failures_still_ask(count: int) -> None:
    rng = np.random.default_rng(3)
    mined = table(rng, 150, dict.fromkeys(range(count), 0))
    mined.views["object"][mined.outcome_ids >= 0, 0] += 8
    examples, negatives, offered = split(mined)
    pool = table(rng, 300, dict.fromkeys(range(0, 300, 20), 0), first=1000)
    pool.views["object"][pool.outcome_ids >= 0, 0] += 8
    query = fit_queries(examples, negatives, offered, kind="FN", views=("object",))[0]
    assert precision(query.score(pool), pool, 10) >= 0.8
    assert np.isnan(query.separation) == (count == 1)
    assert (query.describe()["separation"] is None) == (count == 1)


def test_equal_inputs_give_equal_scores() -> None:
    rng = np.random.default_rng(4)
    examples, negatives, mined = split(table(rng, 150, dict.fromkeys(range(20), 0)))
    pool = table(rng, 100, {}, first=1000)
    one, two = (fit_queries(examples, negatives, mined, kind="FN", views=("object",))[0] for _ in range(2))
    assert np.array_equal(one.score(pool), two.score(pool))


def test_whitening_makes_negatives_white_and_survives_constant_columns() -> None:
    rng = np.random.default_rng(5)
    data = (rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
    data[:, 3] = 7
    white = Whitening.fit(data)(data)
    varying = np.linalg.eigvalsh(np.cov(white.T))[1:]
    assert np.isfinite(white).all()
    assert np.allclose(varying, 1, atol=0.1)


def test_shrinkage_is_strong_for_few_rows_and_weak_for_many() -> None:
    rng = np.random.default_rng(6)
    few, many = rng.normal(size=(5, 20)), rng.normal(size=(20000, 20)) * np.arange(1, 21)
    assert np.linalg.cond(shrunk_covariance(few)) < 10
    assert np.allclose(np.diag(shrunk_covariance(many)), np.arange(1, 21) ** 2, rtol=0.25)


def by_hand(centred: np.ndarray) -> tuple[np.ndarray, float]:
    """Ledoit and Wolf (2004), written out: the covariance and the share of the identity that it takes."""
    n, d = centred.shape
    covariance = centred.T @ centred / n
    target = np.trace(covariance) / d * np.eye(d)
    noise = sum(((np.outer(x, x) - covariance) ** 2).sum() for x in centred) / n**2
    share = min(1.0, noise / ((covariance - target) ** 2).sum())
    return (1 - share) * covariance + share * target, share


@pytest.mark.parametrize(("n", "d"), [(3, 20), (40, 12), (400, 12)])
def test_shrinkage_is_that_of_ledoit_and_wolf(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    data = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    data -= data.mean(0)
    expected, share = by_hand(data)
    assert 0.01 < share < 1
    np.testing.assert_allclose(shrunk_covariance(data), expected, rtol=1e-9, atol=1e-12)


def test_what_never_varies_is_stretched_to_a_bound() -> None:
    rng = np.random.default_rng(7)
    data = rng.normal(size=(200_000, 2)) * (1, 0)
    assert ledoit_wolf_shrinkage(data, assume_centered=True) < LEAST_SHARE / 3
    assert np.diag(shrunk_covariance(data))[1] == pytest.approx(LEAST_SHARE * data.var(0).mean(), rel=1e-3)


def test_one_row_is_whitened_without_a_warning() -> None:
    row = np.arange(5.0)[None]
    np.testing.assert_array_equal(Whitening.fit(row)(row), np.zeros((1, 5)))


def test_area_under_curve_against_counting() -> None:
    good, bad = np.array([3.0, 1.0, 2.0]), np.array([0.0, 2.0, 2.5])
    assert area_under_curve(good, bad) == pytest.approx(np.mean([g > b for g in good for b in bad]) + 0.5 / 9)
