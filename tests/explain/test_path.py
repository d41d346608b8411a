"""E2X-path: complete, IG_s at beta = 1, Shapley as beta falls, and the invariants of METHODS.md."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import BlurFill, BlurHole, MeanFill
from curator.explain.methods.e2x import SegmentIntegratedGradients
from curator.explain.methods.path import E2XPath, path_ranks, staircase
from curator.explain.methods.shapley import ExactShapley
from curator.registry import ATTRIBUTIONS
from store.records import SegmentMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import (
    Constant,
    Convolutional,
    IgnoresLeft,
    Linear,
    Product,
    Scaled,
    SymmetricQuarters,
    TinyDetector,
    blocks,
    picture,
)

H, W = 16, 24
MEAN = (0.4, 0.5, 0.6)
LOG_ODDS = (Target(candidate=0, label=0, kind="log_odds"),)


def run(
    detector, image, segments, targets=LOG_ODDS, *, method=E2XPath, seed=0, **options
) -> list[SegmentMap]:
    own = {name: str(options.pop(name)) for name in ("beta", "paths") if name in options}
    return method(AttributionOptions(**options, settings=own)).explain(
        detector, image, detector.pin(), segments, MeanFill(), targets, seed=seed, image_key="image"
    )


@settings(max_examples=20, deadline=None)
@given(
    samples=st.integers(1, 9),
    paths=st.integers(1, 4),
    beta=st.floats(0.01, 1),
    seed=st.integers(0, 2**40),
    rows=st.integers(1, 4),
    columns=st.integers(1, 5),
)
def test_a_linear_score_is_attributed_exactly(samples, paths, beta, seed, rows, columns):
    module = Linear((H, W))
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    image, segments = picture(H, W), blocks(H, W, rows, columns)
    paths = min(paths, samples)
    options = {"samples": samples, "paths": paths, "beta": beta, "batch_size": 4}
    target = [Target(candidate=1, label=0, kind="log_odds")]
    found = run(detector, image, segments, target, seed=seed, **options)[0]
    products = (module.weight[1] * (image - torch.tensor(MEAN).view(3, 1, 1))).sum(0).numpy()
    expected = [products[segments == i].sum() for i in range(rows * columns)]
    np.testing.assert_allclose(found.phi, expected, atol=3e-5)
    assert abs(found.gap) < 1e-4
    assert found.passes == 2 * samples + 2


@pytest.mark.parametrize("connected", [True, False])
def test_a_constant_score_gives_zeros_and_no_evidence(connected):
    detector = TinyDetector(Constant(connected=connected), size=(H, W))
    found = run(detector, picture(H, W), blocks(H, W, 2, 3))[0]
    assert not found.phi.any()
    assert found.gap == 0
    assert found.evidence is False


def test_dummy_segments_get_exactly_zero():
    detector = TinyDetector(IgnoresLeft(), size=(H, W), mean=MEAN)
    image, segments = picture(H, W).clone(), blocks(H, W, 2, 4)
    image[:, : H // 2, 3 * W // 4 :] = torch.tensor(MEAN).view(3, 1, 1)  # segment 3 shows the baseline
    found = run(detector, image, segments)[0].phi
    assert not found[[0, 1, 4, 5, 3]].any()
    assert found[[2, 6, 7]].all()


def test_symmetric_segments_are_equal_within_the_sampling_error():
    detector = TinyDetector(SymmetricQuarters(), size=(H, W))
    image, segments = torch.full((3, H, W), 0.5), blocks(H, W, 2, 2)
    runs = np.stack([run(detector, image, segments, seed=seed, samples=8)[0].phi for seed in range(40)])
    difference = runs[:, 0] - runs[:, 3]
    assert difference.any()
    assert abs(difference.mean()) <= 4 * difference.std(ddof=1) / np.sqrt(len(runs))


def test_beta_one_is_ig_over_segments():
    detector = TinyDetector(Convolutional(seed=2), size=(H, W), classes=2, mean=MEAN)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    straight = run(detector, image, segments, method=SegmentIntegratedGradients, samples=10)[0]
    for paths in (1, 2):
        found = run(detector, image, segments, beta=1, paths=paths, samples=10 * paths)[0]
        np.testing.assert_allclose(found.phi, straight.phi, rtol=1e-4, atol=1e-6)


def test_a_small_beta_gives_shapley_values_where_the_straight_line_does_not():
    detector = TinyDetector(Product(), size=(6, 9), values="probability")
    image, segments = torch.ones(3, 6, 9), blocks(6, 9, 1, 3)
    image[:, :, :3] = 0.2  # F = 0.2 w1 w2 w3: by symmetry a third each
    target = [Target(candidate=0, label=0)]
    found = run(detector, image, segments, target, beta=0.02, paths=60, samples=6000, batch_size=500)[0]
    np.testing.assert_allclose(found.phi, 0.2 / 3, atol=0.02)
    smooth = TinyDetector(Scaled(Convolutional(seed=5), 4.0), size=(H, W), classes=2, mean=MEAN)
    image, segments, target = picture(H, W, seed=3), blocks(H, W, 2, 3), [Target(candidate=8, label=1)]
    exact = run(smooth, image, segments, target, method=ExactShapley, batch_size=64)[0].phi

    def error(beta: float) -> float:
        many = {"paths": 100, "samples": 8000, "batch_size": 1000}
        found = run(smooth, image, segments, target, beta=beta, **many)[0].phi
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    assert error(0.05) < 0.08
    assert error(0.05) < error(1.0)


def test_the_gap_shrinks_with_the_steps():
    detector = TinyDetector(Scaled(Convolutional(seed=1), 3.0), size=(H, W), classes=2, mean=MEAN)
    image, segments = picture(H, W), blocks(H, W, 3, 3)
    target = [Target(candidate=3, label=0)]
    gaps = [abs(run(detector, image, segments, target, paths=2, samples=k)[0].gap) for k in (8, 64)]
    assert gaps[1] < gaps[0] / 4


def test_phi_scales_with_the_score_and_follows_the_segments_not_their_labels():
    inner, image, segments = Convolutional(seed=1), picture(H, W), blocks(H, W, 3, 3)
    one = run(TinyDetector(inner, size=(H, W), classes=2), image, segments)[0].phi
    scaled = run(TinyDetector(Scaled(inner, -3.0), size=(H, W), classes=2), image, segments)[0].phi
    np.testing.assert_allclose(scaled, -3 * one, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(9)
    relabelled = run(TinyDetector(inner, size=(H, W), classes=2), image, order.astype(np.uint16)[segments])
    np.testing.assert_allclose(relabelled[0].phi[order], one, rtol=1e-4, atol=1e-6)


def test_batch_size_and_company_change_nothing():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    targets = [Target(candidate=7, label=1), Target(candidate=3, label=0), Target(candidate=7, label=0)]
    together = run(detector, image, segments, targets, samples=10, batch_size=4)
    assert detector.forwards == [4, 4, 2, 2]
    for target, found in zip(targets, together, strict=True):
        alone = run(detector, image, segments, [target], samples=10, batch_size=10)[0]
        np.testing.assert_allclose(found.phi, alone.phi, rtol=1e-4, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 12), steps=st.integers(1, 20), beta=st.floats(0.001, 1), seed=st.integers(0, 99))
def test_staircases_rise_from_nothing_to_all(count, steps, beta, seed):
    rank = np.random.default_rng(seed).permutation(count)
    w, gain = staircase(rank, steps, beta)
    assert w.shape == gain.shape == (steps, count)
    np.testing.assert_allclose(gain.sum(0), 1, atol=1e-5)
    assert (gain >= 0).all()
    assert (np.diff(w, axis=0) >= 0).all()
    assert (np.diff(w[:, np.argsort(rank)], axis=1) <= 1e-6).all()  # earlier segments are never behind


def test_orders_come_in_reversed_pairs_keyed_by_seed_and_image():
    segments = blocks(H, W, 3, 4)
    ranks = path_ranks(segments, 5, seed=0, image_key="a")
    assert ranks.shape == (5, 12)
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile(np.arange(12), (5, 1)))
    np.testing.assert_array_equal(ranks[0] + ranks[1], 11)
    assert (ranks != path_ranks(segments, 5, seed=0, image_key="b")).any()
    np.testing.assert_array_equal(ranks[:2], path_ranks(segments, 2, seed=0, image_key="a"))


def test_settings_and_fills_are_checked():
    assert ATTRIBUTIONS.load("e2x_path") is E2XPath
    with pytest.raises(ConfigError, match="at least one sample per path"):
        E2XPath(AttributionOptions(samples=2, settings={"paths": "3"}))
    with pytest.raises(ConfigError, match="beta: expected a number"):
        E2XPath(AttributionOptions(settings={"beta": "0"}))
    with pytest.raises(ConfigError, match="knows the settings beta, paths"):
        E2XPath(AttributionOptions(settings={"gamma": "1"}))
    assert E2XPath(AttributionOptions(samples=1)).paths == 1
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    arguments = (detector, picture(H, W), detector.pin(), blocks(H, W, 2, 2))
    with pytest.raises(ConfigError, match="continuous fill"):
        E2XPath().explain(*arguments, BlurHole(), LOG_ODDS, seed=0, image_key="")
    blurred = E2XPath().explain(*arguments, BlurFill(2.0), LOG_ODDS, seed=0, image_key="")[0]
    assert abs(blurred.gap) < 0.05
