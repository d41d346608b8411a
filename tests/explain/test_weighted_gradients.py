"""E2X and IG_s: the invariants of METHODS.md on networks whose answers are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import BlurHole, MeanFill
from curator.explain.methods.e2x import E2X, SegmentIntegratedGradients, grid_values, permuted_weights
from curator.explain.methods.shapley import ExactShapley
from curator.explain.target import TargetScores
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
METHODS = [E2X, SegmentIntegratedGradients]
MEAN = (0.4, 0.5, 0.6)


def run(
    method,
    detector,
    image,
    segments,
    targets=(Target(candidate=0, label=0, kind="log_odds"),),
    *,
    seed=0,
    image_key="image",
    **options,
) -> list[SegmentMap]:
    return method(AttributionOptions(**options)).explain(
        detector, image, detector.pin(), segments, MeanFill(), targets, seed=seed, image_key=image_key
    )


def phi(*args, **kwargs) -> np.ndarray:
    return run(*args, **kwargs)[0].phi


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    samples=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    batch=st.integers(1, 5),
    rows=st.integers(1, 4),
    columns=st.integers(1, 5),
)
def test_a_linear_score_is_attributed_exactly(method, samples, seed, batch, rows, columns):
    module = Linear((H, W))
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    image, segments = picture(H, W), blocks(H, W, rows, columns)
    found = run(
        method,
        detector,
        image,
        segments,
        [Target(candidate=1, label=0, kind="log_odds")],
        seed=seed,
        samples=samples,
        batch_size=batch,
    )[0]
    difference = image - torch.tensor(MEAN).view(3, 1, 1)
    products = (module.weight[1] * difference).sum(0).numpy()
    expected = [products[segments == i].sum() for i in range(rows * columns)]
    np.testing.assert_allclose(found.phi, expected, atol=2e-5)
    assert abs(found.gap) < 1e-4
    assert found.passes == 2 * samples + 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("connected", [True, False])
def test_a_constant_score_gives_zeros_and_no_evidence(method, connected):
    detector = TinyDetector(Constant(connected=connected), size=(H, W))
    found = run(method, detector, picture(H, W), blocks(H, W, 2, 3), samples=4)[0]
    assert not found.phi.any()
    assert found.gap == 0
    assert found.full == found.empty == pytest.approx(0.3)
    assert found.evidence is False


@pytest.mark.parametrize("method", METHODS)
def test_dummy_segments_get_exactly_zero(method):
    detector = TinyDetector(IgnoresLeft(), size=(H, W), mean=MEAN)
    image, segments = picture(H, W).clone(), blocks(H, W, 2, 4)
    image[:, : H // 2, 3 * W // 4 :] = torch.tensor(MEAN).view(3, 1, 1)  # segment 3 shows the baseline: x = b
    found = phi(method, detector, image, segments, samples=5)
    assert not found[[0, 1, 4, 5, 3]].any()
    assert found[[2, 6, 7]].all()


def test_symmetric_segments_are_equal_for_ig_and_within_the_sampling_error_for_e2x():
    detector = TinyDetector(SymmetricQuarters(), size=(H, W))
    image, segments = torch.full((3, H, W), 0.5), blocks(H, W, 2, 2)
    exact = phi(SegmentIntegratedGradients, detector, image, segments)
    np.testing.assert_allclose(exact, exact[0], rtol=1e-5)
    runs = np.stack([phi(E2X, detector, image, segments, samples=8, seed=seed) for seed in range(40)])
    difference = runs[:, 0] - runs[:, 3]
    assert difference.any()
    assert abs(difference.mean()) <= 4 * difference.std(ddof=1) / np.sqrt(len(runs))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(alpha=st.floats(-8, 8).filter(lambda a: abs(a) > 1e-3))
def test_phi_scales_with_the_score(method, alpha):
    inner, image, segments = Convolutional(seed=1), picture(H, W), blocks(H, W, 3, 3)
    one = phi(method, TinyDetector(inner, size=(H, W), classes=2), image, segments)
    scaled = phi(method, TinyDetector(Scaled(inner, alpha), size=(H, W), classes=2), image, segments)
    np.testing.assert_allclose(scaled, alpha * one, rtol=1e-4, atol=1e-5 * abs(alpha))


@pytest.mark.parametrize("method", METHODS)
def test_batch_size_changes_nothing_even_where_it_does_not_divide_k(method):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    whole = phi(method, detector, image, segments, samples=10, batch_size=10)
    assert detector.forwards == [10, 2]
    detector.forwards.clear()
    parts = phi(method, detector, image, segments, samples=10, batch_size=4)
    assert detector.forwards == [4, 4, 2, 2]
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)))
def test_relabelling_segments_permutes_phi(method, order):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    before = phi(method, detector, image, segments)
    after = phi(method, detector, image, np.asarray(order, np.uint16)[segments])
    np.testing.assert_array_equal(after[list(order)], before)


@pytest.mark.parametrize("method", METHODS)
def test_a_target_alone_and_with_others_gets_the_same_numbers_from_shared_forwards(method):
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    targets = [
        Target(candidate=9, label=1),
        Target(candidate=2, label=0, kind="log_odds"),
        Target(candidate=9, label=0),
        Target(candidate=9, label=1),
    ]
    together = run(method, detector, image, segments, targets, samples=6, batch_size=4)
    assert detector.forwards == [4, 2, 2]  # K in batches of four, then the two ends, for all four targets
    for target, shared in zip(targets, together, strict=True):
        alone = run(method, detector, image, segments, [target], samples=6, batch_size=4)[0]
        np.testing.assert_allclose(shared.phi, alone.phi, rtol=1e-5, atol=1e-7)
        assert shared.full == pytest.approx(alone.full, abs=1e-6)
        assert shared.gap == pytest.approx(alone.gap, abs=1e-5)
        assert shared.passes == alone.passes
    np.testing.assert_array_equal(together[0].phi, together[3].phi)


def test_gap_of_ig_shrinks_as_k_doubles():
    detector = TinyDetector(Convolutional(seed=2), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 3, 3)
    gaps = [
        abs(run(SegmentIntegratedGradients, detector, image, segments, samples=k)[0].gap)
        for k in (4, 8, 16, 32, 64)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.01


def test_product_of_three_gives_a_quarter_each_and_reports_the_gap():
    detector = TinyDetector(Product(), size=(6, 9), values="probability")
    image, segments = torch.ones(3, 6, 9), blocks(6, 9, 1, 3)
    target = [Target(candidate=0, label=0)]
    runs = [
        run(E2X, detector, image, segments, target, samples=64, batch_size=64, seed=seed)[0]
        for seed in range(60)
    ]
    values = np.stack([found.phi for found in runs])
    error = values.std(0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(values.mean(0) - 0.25) <= 4 * error).all()
    assert error.max() < 0.01
    assert np.mean([found.gap for found in runs]) == pytest.approx(0.25, abs=0.02)
    shapley = ExactShapley().explain(
        detector, image, detector.pin(), segments, MeanFill(), target, seed=0, image_key=""
    )[0]
    np.testing.assert_allclose(shapley.phi, 1 / 3, atol=1e-6)
    assert shapley.gap == pytest.approx(0, abs=1e-6)


def test_ig_agrees_with_captum():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)
    image, segments = picture(H, W), blocks(H, W, 3, 4)
    target = Target(candidate=5, label=1)
    found = run(SegmentIntegratedGradients, detector, image, segments, [target], samples=20)[0]
    scores = TargetScores(detector, detector.pin(), [target])
    baseline = MeanFill().baseline(image, detector)
    theirs = IntegratedGradients(lambda u: scores(u)[:, 0]).attribute(
        image[None], baseline[None], n_steps=20, method="riemann_middle"
    )
    per_pixel = theirs[0].sum(0).detach().numpy()
    expected = np.bincount(segments.ravel(), weights=per_pixel.ravel())
    np.testing.assert_allclose(found.phi, expected, rtol=1e-4, atol=1e-6)


def test_e2x_comes_near_exact_shapley_on_a_smooth_network():
    detector = TinyDetector(Convolutional(seed=5), size=(H, W), classes=2, mean=MEAN)
    image, segments = picture(H, W, seed=3), blocks(H, W, 3, 4)
    target = [Target(candidate=8, label=1)]
    exact = run(ExactShapley, detector, image, segments, target, batch_size=512)[0]
    assert abs(exact.gap) < 1e-5
    found = run(E2X, detector, image, segments, target, samples=64, batch_size=64)[0]
    assert np.corrcoef(found.phi, exact.phi)[0, 1] > 0.95


def test_weights_are_permuted_grids_keyed_by_seed_image_and_segment():
    segments = blocks(H, W, 4, 4)
    w = permuted_weights(segments, 8, "midpoint", seed=1, image_key="a")
    assert w.shape == (8, 16)
    grid = grid_values(8, "midpoint")
    np.testing.assert_array_equal(np.sort(w, axis=0), np.repeat(grid[:, None], 16, axis=1))
    assert len({tuple(column) for column in w.T}) == 16
    np.testing.assert_array_equal(w, permuted_weights(segments, 8, "midpoint", seed=1, image_key="a"))
    for seed, key in ((2, "a"), (1, "b")):
        assert (w != permuted_weights(segments, 8, "midpoint", seed=seed, image_key=key)).any()
    merged = segments.copy()
    merged[merged == 1] = 0  # segment 2 keeps its weights although its neighbours changed
    again = permuted_weights(merged, 8, "midpoint", seed=1, image_key="a")
    np.testing.assert_array_equal(w[:, 2], again[:, 2])


def test_weights_of_two_segments_are_uncorrelated():
    segments = blocks(60, 60, 30, 30)
    w = permuted_weights(segments, 16, "midpoint", seed=0, image_key="x")
    correlation = np.corrcoef(w.T)[np.triu_indices(900, 1)]
    assert abs(correlation.mean()) < 0.005
    assert correlation.std() == pytest.approx(1 / np.sqrt(15), rel=0.05)  # of random permutations of 16
    assert abs(w[0].mean() - 0.5) < 0.05


def test_papers_grid_holds_both_ends():
    np.testing.assert_allclose(grid_values(5, "paper"), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(grid_values(4, "midpoint"), [0.125, 0.375, 0.625, 0.875])
    with pytest.raises(ConfigError, match="at least 2 samples"):
        AttributionOptions(samples=1, grid="paper")


def test_what_cannot_be_explained_is_refused_in_words():
    detector = TinyDetector(Product(), size=(6, 9), values="probability")
    image, segments = torch.ones(3, 6, 9), blocks(6, 9, 1, 3)
    with pytest.raises(ConfigError, match="continuous fill"):
        E2X().explain(
            detector,
            image,
            detector.pin(),
            segments,
            BlurHole(),
            [Target(candidate=0, label=0)],
            seed=0,
            image_key="",
        )
    with pytest.raises(ConfigError, match="use --target probability"):
        run(E2X, detector, image, segments)
    with pytest.raises(InputError, match="class of 0 to 0"):
        run(E2X, detector, image, segments, [Target(candidate=0, label=1)])
    with pytest.raises(InputError, match="at least one target"):
        run(E2X, detector, image, segments, [])
    with pytest.raises(InputError, match="one size"):
        run(E2X, detector, image, blocks(6, 8, 1, 2), [Target(candidate=0, label=0)])


def test_low_keeps_weights_near_the_picture_as_it_is() -> None:
    segments = np.arange(12, dtype=np.uint16).reshape(3, 4)
    usual = E2X(AttributionOptions(samples=8)).weights(segments, seed=1, image_key="i")
    near = E2X(AttributionOptions(samples=8, settings={"low": "0.5"})).weights(
        segments, seed=1, image_key="i"
    )
    np.testing.assert_allclose(near, 0.5 + 0.5 * usual, rtol=1e-6)
    with pytest.raises(ConfigError, match="low"):
        E2X(AttributionOptions(settings={"low": "1"}))
