"""DVE: the formula, its invariants, the filter, and what ties a map to a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curator.detect.load import load_detector
from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.dve import Dve, band_products, keep_above_mean, low_pass
from curator.tensors import generator


def maps(seed: int, shape: tuple[int, ...] = (3, 7, 10)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_low_pass_is_a_gaussian_with_frequency_0_first() -> None:
    g = low_pass((6, 8), 0.2)
    assert g[0, 0] == 1.0
    assert g[0, 1] == pytest.approx(np.exp(-((1 / 8) ** 2) / (2 * 0.04)))
    assert g[1, 0] == pytest.approx(np.exp(-((1 / 6) ** 2) / (2 * 0.04)))
    assert g.argmin() == 3 * 8 + 4  # the highest frequency of both axes


def test_band_products_are_the_formula_by_direct_sums() -> None:
    x = maps(0, (4, 6))
    h, w = x.shape
    dft_h = np.exp(-2j * np.pi * np.outer(np.arange(h), np.arange(h)) / h)
    dft_w = np.exp(-2j * np.pi * np.outer(np.arange(w), np.arange(w)) / w)
    spectrum = dft_h @ x @ dft_w

    def back(values: np.ndarray) -> np.ndarray:
        return (dft_h.conj() @ values @ dft_w.conj()).real / (h * w)

    expected = back(spectrum * low_pass((h, w), 0.15)) * back(spectrum * (1 - low_pass((h, w), 0.3)))
    np.testing.assert_allclose(band_products(x, 0.15, 0.3), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), c=st.floats(-5, 5), level=st.floats(-10, 10), sigma=st.floats(0.01, 2))
def test_a_constant_gives_nothing_and_scaling_is_squared(
    seed: int, c: float, level: float, sigma: float
) -> None:
    x = maps(seed)
    np.testing.assert_allclose(band_products(np.full((2, 5, 9), level), sigma, sigma), 0, atol=1e-12)
    np.testing.assert_allclose(
        band_products(c * x, sigma, 0.1), c**2 * band_products(x, sigma, 0.1), atol=1e-10
    )


def test_the_filter_keeps_what_exceeds_the_mean() -> None:
    s = np.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(keep_above_mean(s, np.ones((2, 2), bool)), [[0, 0], [0, 6.0]])
    inside = np.array([[True, True], [False, False]])
    np.testing.assert_array_equal(keep_above_mean(s, inside), [[0, 2.0], [0, 0]])


@pytest.fixture(scope="module")
def builtin():
    return load_detector("builtin:", "cpu")


def image() -> Tensor:
    pixels = torch.full((3, 192, 192), 0.6)
    pixels[:, 40:90, 30:80] = torch.rand(3, 50, 50, generator=generator("dve"))
    return pixels


def explain(detector, targets: list[Target], x: Tensor | None = None, **options: str):
    x = image() if x is None else x
    segments = np.zeros((192, 192), np.uint16)
    method = Dve(AttributionOptions(settings=options))
    return method.explain(detector, x, detector.pin(x), segments, MeanFill(), targets, seed=0, image_key="")


A = Target(candidate=900, label=0, box=(30.0, 40.0, 80.0, 90.0))
B = Target(candidate=400, label=3, box=(120.0, 120.0, 160.0, 180.0))


def test_all_targets_of_an_image_get_one_map_on_the_levels_grid(builtin) -> None:
    first, second = explain(builtin, [A, B], level="level0")
    empty = torch.zeros(0, dtype=torch.int64)
    pin = builtin.pin(image())
    feature = builtin.candidates(image()[None], pin, index=empty, levels=("level0",)).features["level0"]
    x = feature.values[0].double().numpy()
    expected = band_products(x, 0.1, 0.1).sum(0)
    np.testing.assert_allclose(
        first.values, np.where(expected > expected.mean(), expected, 0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(first.values, second.values)
    assert (first.scale, first.offset) == (feature.scale, feature.offset)
    assert first.evidence
    assert first.passes == 3
    assert np.isnan(first.gap)
    score = builtin.candidates(image()[None], pin, index=torch.tensor([900])).scores[0, 0, 0]
    assert first.full == pytest.approx(float(score), abs=1e-5)
    assert explain(builtin, [A])[0].values.shape == (6, 6)  # the coarsest level by default


def test_targeted_applies_the_product_to_its_own_result(builtin) -> None:
    plain = explain(builtin, [A], level="level0")[0].values.astype(np.float64)
    targeted = explain(builtin, [A], level="level0", targeted="1")[0].values
    expected = band_products(plain, 0.1, 0.1)
    expected = np.where(expected > expected.mean(), expected, 0)
    np.testing.assert_allclose(targeted, expected, rtol=1e-3, atol=1e-5 * expected.max())
    assert (targeted > 0).sum() < (plain > 0).sum()


def test_cropping_and_weighting_tie_the_map_to_the_target(builtin) -> None:
    first, second = explain(builtin, [A, B], level="level0", crop="1")
    centres = first.scale[0] * np.arange(24) + first.offset[0]
    outside = ~((centres >= 30) & (centres <= 80))
    assert not first.values[:, outside].any()
    assert first.values.any()
    assert not np.array_equal(first.values, second.values)
    weighted = explain(builtin, [A, B], level="level0", weighted="1")
    assert not np.allclose(weighted[0].values, weighted[1].values)
    assert weighted[0].passes == 4
    alone = explain(builtin, [B], level="level0", weighted="1")[0]
    np.testing.assert_allclose(alone.values, weighted[1].values, rtol=1e-4, atol=1e-9)
    tiny_box = Target(candidate=1, label=0, box=(50.0, 50.0, 51.0, 51.0))
    assert np.isfinite(explain(builtin, [tiny_box], level="level0", crop="1")[0].values).all()


def test_wrong_requests_are_refused(builtin) -> None:
    with pytest.raises(ConfigError, match="level: expected one of level0"):
        explain(builtin, [A], level="level9")
    with pytest.raises(ConfigError, match="sigma1: expected a number"):
        explain(builtin, [A], sigma1="0")
    with pytest.raises(ConfigError, match="knows the settings level"):
        explain(builtin, [A], sigma="1")
    with pytest.raises(InputError, match="use crop=0"):
        explain(builtin, [Target(candidate=1, label=0)], crop="1")
