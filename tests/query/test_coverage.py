"""Coverage: do its intervals hold what they should?"""

from __future__ import annotations

import numpy as np
import pytest

from curator.query.coverage import Sampled, calibrated, coverage, stratified


def skewed(rng: np.random.Generator, count: int) -> np.ndarray:
    """Expected failures of units: most near 0, few high, as box probabilities are."""
    return np.asarray(rng.gamma(0.15, 0.4, count).clip(0, 3))


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_sampling_interval_holds_the_full_sum(noise: float) -> None:
    held, widths = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        values = skewed(rng, 4000)
        proxy = values * rng.lognormal(0, noise, len(values))
        found = stratified(proxy, lambda places, v=values: v[places], size=400, seed=seed)
        low, high = found.interval(0.95)
        held.append(low <= values.sum() <= high)
        widths.append((high - low) / values.sum())
        assert (found.units, found.of) == (pytest.approx(400, abs=10), 4000)
    assert np.mean(held) >= 0.9
    assert np.mean(widths) < 0.25


def test_strata_make_it_narrower_than_a_simple_sample() -> None:
    rng = np.random.default_rng(0)
    values = skewed(rng, 4000)
    good = stratified(values * rng.lognormal(0, 0.3, 4000), lambda p: values[p], size=300)
    plain = stratified(np.ones(4000), lambda p: values[p], size=300, strata=1)
    assert good.variance < plain.variance / 4


def test_a_full_sample_is_exact_and_nothing_is_zero() -> None:
    values = np.array([0.5, 0.25, 0.0])
    found = stratified(values, lambda p: values[p], size=5)
    assert (found.total, found.variance, found.interval()) == (0.75, 0.0, (0.75, 0.75))
    assert stratified(np.zeros(0), lambda p: p, size=5).total == 0
    small = stratified(np.array([1.0, 1, 1, 9]), lambda p: np.ones(len(p)), size=3)
    assert small.total == pytest.approx(4)


def world(
    rng: np.random.Generator, *, factor: float, images: int = 400, pool: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(expected, observed) of mined images, expected of the pool, and the pool's true number: truth is
    Poisson with `factor` times what is expected."""
    mined, there = skewed(rng, images), skewed(rng, pool)
    return mined, rng.poisson(factor * mined), there, int(rng.poisson(factor * there).sum())


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        mined, observed, there, truth = world(rng, factor=(0.7, 1.0, 1.5)[seed % 3])
        best = np.argsort(-there)[:500]
        others = np.setdiff1d(np.arange(len(there)), best)
        rest = stratified(
            there[others] * rng.lognormal(0, 0.5, len(others)),
            lambda places, o=others, t=there: t[o[places]],
            size=300,
            seed=seed,
        )
        found = coverage(float(there[best].sum()), rest, calibrated(mined, observed, seed=seed), seed=seed)
        held.append(found.low <= truth <= found.high)
    assert 0.85 <= np.mean(held) <= 0.95


def test_clusters_of_images_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    video = np.repeat(np.arange(60), 10)
    mined = skewed(rng, 600)
    observed = rng.poisson(mined * rng.gamma(1, 1, 60)[video])
    alone, together = calibrated(mined, observed), calibrated(mined, observed, video)
    assert together.ratios.std() > alone.ratios.std()
    assert together.dispersion > alone.dispersion
    assert coverage(50, None, together).high > coverage(50, None, alone).high


def test_absent_is_told_and_present_is_not() -> None:
    rng = np.random.default_rng(2)
    mined = skewed(rng, 800)
    told = calibrated(mined, rng.poisson(mined))
    nothing = coverage(0.01, Sampled(total=0.02, variance=1e-4, freedom=50, units=100, of=3000), told)
    assert nothing.absent
    assert nothing.sentence("missed Car") == "the pool holds about 0.0 [0.0, 0.2] missed Car: synthesise them"
    some = coverage(20, Sampled(total=10, variance=9, freedom=50, units=100, of=3000), told)
    assert not some.absent
    assert some.low < 30 * told.ratio < some.high
    assert some.plain()["absent"] is False
    assert not coverage(2.0, None, None).absent


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    mined = skewed(rng, 300)
    told = calibrated(mined, rng.poisson(mined), seed=5)
    assert coverage(4, None, told, seed=5) == coverage(4, None, told, seed=5)


def test_no_expectation_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        calibrated(np.zeros(3), np.ones(3))
