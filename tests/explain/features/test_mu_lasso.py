"""mu-Lasso: feasible, optimal, finds what was planted, and is least squares where mu does not bind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import InputError
from curator.explain.features.mu_lasso import duality_gap, mu_lasso


def problem(seed: int, samples: int = 120, features: int = 30, classes: int = 3):
    numbers = np.random.default_rng(seed)
    x = numbers.dirichlet(np.full(features, 0.5), size=samples)
    return x, np.eye(classes)[numbers.integers(0, classes, samples)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), mu=st.floats(0.05, 30.0))
def test_the_solution_is_feasible_and_minimal(seed: int, mu: float) -> None:
    x, labels = problem(seed)
    w = mu_lasso(x, labels, mu)
    assert (np.abs(w).sum(0) <= mu * (1 + 1e-12)).all()
    for j in range(labels.shape[1]):
        assert duality_gap(x, labels[:, j], w[:, j], mu) < 1e-4


def test_planted_features_are_recovered_and_the_others_get_nothing() -> None:
    numbers = np.random.default_rng(0)
    x = np.abs(numbers.normal(size=(300, 40)))
    planted = np.zeros((40, 3))
    planted[[3, 10], 0] = 1.5, 0.5
    planted[20, 1] = 1.0
    planted[7, 2] = -0.8
    noisy = x @ planted + 0.01 * numbers.normal(size=(300, 3))
    for j in range(3):
        w = mu_lasso(x, noisy[:, j : j + 1], float(np.abs(planted[:, j]).sum()))[:, 0]
        np.testing.assert_allclose(w, planted[:, j], atol=0.02)
        assert set(np.argsort(-np.abs(w))[: (planted[:, j] != 0).sum()]) == set(np.flatnonzero(planted[:, j]))


def test_smaller_mu_keeps_fewer_features() -> None:
    x, labels = problem(1)
    kept = [int((mu_lasso(x, labels, mu) != 0).sum()) for mu in (0.5, 3.0, 1e6)]
    assert kept[0] < kept[1] < kept[2] == 90


def test_a_bound_that_does_not_bind_gives_least_squares() -> None:
    numbers = np.random.default_rng(2)
    x, labels = numbers.normal(size=(80, 12)), numbers.normal(size=(80, 2))
    expected = np.linalg.lstsq(x, labels, rcond=None)[0]
    np.testing.assert_allclose(mu_lasso(x, labels, 1e6), expected, atol=1e-5)


def test_columns_do_not_depend_on_each_other_and_scaling_the_features_scales_the_bound() -> None:
    x, labels = problem(3)
    w = mu_lasso(x, labels, 4.0)
    np.testing.assert_array_equal(w[:, 1:2], mu_lasso(x, labels[:, 1:2], 4.0))
    np.testing.assert_allclose(mu_lasso(x / 100, labels, 400.0) / 100, w, atol=1e-9)


def test_what_says_nothing_gets_no_weight(capfd: pytest.CaptureFixture[str]) -> None:
    x, labels = problem(4)
    x[:, 5] = 0
    labels[:, 2] = 0
    w = mu_lasso(x, labels, 10.0)
    assert not w[5].any()
    assert not w[:, 2].any()
    assert not mu_lasso(np.zeros((4, 3)), np.ones((4, 1)), 1.0).any()
    exact = np.zeros(30)
    exact[4] = 1.0
    mu_lasso(x, (x @ exact)[:, None], 2.0)  # a residual of 0, at which the solver's line search complains
    assert capfd.readouterr() == ("", "")


def test_wrong_input_is_refused() -> None:
    x, labels = problem(5)
    with pytest.raises(InputError, match=r"got \(120, 30\) and \(7, 3\)"):
        mu_lasso(x, labels[:7], 1.0)
    with pytest.raises(InputError, match="above 0, got 0"):
        mu_lasso(x, labels, 0.0)
    x[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        mu_lasso(x, labels, 1.0)
