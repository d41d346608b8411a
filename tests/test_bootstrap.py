"""The clustered paired bootstrap against scipy's, by hand, and by how often it covers the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from curator import bootstrap
from curator.bootstrap import Interval, bootstrap_interval, paired_difference
from curator.errors import InputError

Floats = NDArray[np.float64]


def grid(values: Floats) -> dict[str, list[int]]:
    """Cluster and seed of values (C, S) in row order."""
    C, S = values.shape
    return {"clusters": np.repeat(np.arange(C), S).tolist(), "seeds": list(range(S)) * C}


def near(found: Interval, low: float, high: float, tolerance: float) -> None:
    """Both bounds lie within a share of the interval's width of what is expected."""
    assert abs(found.low - low) < tolerance * (high - low)
    assert abs(found.high - high) < tolerance * (high - low)


@pytest.mark.parametrize("count", [6, 40])
def test_unclustered_intervals_are_those_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)  # skewed: bounds are not symmetric
    found = bootstrap_interval(values, draws=40_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    near(found, theirs.low, theirs.high, 0.02)


def test_paired_intervals_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(0, 5, 30)
    b = a + rng.exponential(size=30)
    found = paired_difference(a, b, draws=40_000, level=0.9)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis),
        paired=True,
        n_resamples=40_000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    near(found, theirs.low, theirs.high, 0.02)


def test_clusters_of_equal_size_count_as_one_value_each() -> None:
    values = np.random.default_rng(3).normal(size=(12, 5))
    clustered = bootstrap_interval(values, clusters=grid(values)["clusters"])
    means = bootstrap_interval(values.mean(1))
    assert (clustered.low, clustered.high) == pytest.approx((means.low, means.high))
    assert clustered.count == 60


def test_the_luck_of_a_seed_is_common_to_all_clusters() -> None:
    luck = np.array([0.0, 1.0, 4.0, 6.0])
    values = np.tile(luck, (50, 1))  # images do not differ, trained networks do
    blind = bootstrap_interval(values, clusters=grid(values)["clusters"])
    assert blind.high - blind.low < 1e-9
    seen = bootstrap_interval(values, **grid(values), draws=20_000)
    over_seeds = bootstrap_interval(luck, draws=20_000, seed=5)
    near(seen, over_seeds.low, over_seeds.high, 0.03)


def test_seeds_that_agree_leave_the_interval_as_it_is() -> None:
    values = np.tile(np.random.default_rng(4).normal(size=(15, 1)), (1, 3))
    found, alone = bootstrap_interval(values, **grid(values)), bootstrap_interval(values[:, 0])
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_unbalanced_values_count_as_often_as_both_are_drawn() -> None:
    rng = np.random.default_rng(8)
    values = {(0, 0): [1.0], (0, 1): [5.0, 6.0], (0, 2): [8.0], (1, 0): [2.0], (2, 1): [3.0], (2, 2): [9.0]}
    means = []
    for _ in range(20_000):
        cs, ss = rng.integers(0, 3, 3).tolist(), rng.integers(0, 3, 3).tolist()
        picked = [v for c in cs for s in ss for v in values.get((c, s), [])]
        if picked:
            means.append(np.mean(picked))
    flat = [(c, s, v) for (c, s), found in values.items() for v in found]
    clusters, seeds, numbers = zip(*flat, strict=True)
    found = bootstrap_interval(numbers, clusters=clusters, seeds=seeds, draws=40_000)
    near(found, *np.quantile(means, [0.025, 0.975]), 0.03)


def test_crossed_data_are_covered_only_with_their_seeds() -> None:
    rng = np.random.default_rng(6)
    covered = {"with": 0, "without": 0}
    for trial in range(150):
        values = 0.3 * rng.normal(size=(40, 1)) + rng.normal(size=(1, 8)) + 0.3 * rng.normal(size=(40, 8))
        names = grid(values)
        for key, seeds in (("with", names["seeds"]), ("without", None)):
            found = bootstrap_interval(
                values, clusters=names["clusters"], seeds=seeds, draws=300, seed=trial
            )
            covered[key] += found.low <= 0 <= found.high
    assert covered["with"] / 150 > 0.8  # eight seeds: below the nominal 95%
    assert covered["without"] / 150 < 0.4


def test_seeds_missing_in_some_clusters_are_bearable() -> None:
    found = bootstrap_interval([1.0, 2.0, 4.0], clusters=[0, 1, 2], seeds=[0, 1, 2])
    assert 1 <= found.low < found.high <= 4


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).normal(size=(30, 4))
    whole = bootstrap_interval(values, **grid(values))
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    assert bootstrap_interval(values, **grid(values)) == whole


def test_plain_figures_hold_no_nan() -> None:
    assert bootstrap_interval([0.4]).plain() == {"mean": 0.4, "low": None, "high": None}
    assert bootstrap_interval([math.nan]).plain() == {"mean": None, "low": None, "high": None}


def test_a_seed_is_needed_for_every_value() -> None:
    with pytest.raises(InputError, match="1 seeds of 2 values"):
        bootstrap_interval([1.0, 2.0], seeds=[1])
