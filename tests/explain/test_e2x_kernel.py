"""E2X as the prior of KernelSHAP: exact where it must be, and closer to Shapley than E2X at equal cost."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.e2x import E2X
from curator.explain.methods.e2x_kernel import E2XKernel, stratified_coalitions
from curator.explain.methods.shapley import ExactShapley
from curator.explain.posterior import posterior_mean
from store.records import SegmentMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import (
    Constant,
    Convolutional,
    IgnoresLeft,
    Linear,
    TinyDetector,
    blocks,
    picture,
)

H, W = 16, 24


class Steep(nn.Module):
    """Log-odds that need most of the picture: far from linear, like a detector's score."""

    def forward(self, u: Tensor) -> Tensor:
        weights = torch.linspace(0.2, 1.8, u.shape[-1])
        shown = ((u - 0.5).abs() * weights).mean((1, 2, 3)) / 0.1
        return 4 * torch.sigmoid(6 * (shown - 1))[:, None, None]


def run(module, segments, method=E2XKernel, *, targets=None, **options) -> list[SegmentMap]:
    detector = TinyDetector(module, size=(H, W), mean=(0.4, 0.5, 0.6))
    return method(AttributionOptions(**options)).explain(
        detector,
        picture(H, W),
        detector.pin(),
        segments,
        MeanFill(),
        targets or [Target(candidate=0, label=0, kind="log_odds")],
        seed=0,
        image_key="image",
    )


def test_a_linear_score_is_attributed_exactly() -> None:
    segments = blocks(H, W, 3, 4)
    exact = run(Linear((H, W)), segments, ExactShapley)[0]
    found = run(Linear((H, W)), segments, samples=16)[0]
    np.testing.assert_allclose(found.phi, exact.phi, atol=1e-4 * np.abs(exact.phi).max())
    assert abs(found.gap) < 1e-4 * abs(found.full - found.empty)


def test_a_constant_score_and_a_dummy_segment_get_exactly_nothing() -> None:
    found = run(Constant(connected=True), blocks(H, W, 3, 4), samples=8)[0]
    assert not found.phi.any()
    assert not found.evidence
    segments = blocks(H, W, 2, 4)
    found = run(IgnoresLeft(), segments, samples=16)[0]
    left = np.unique(segments[:, : W // 2])
    assert not found.phi[left].any()
    assert found.phi.any()


def test_it_is_complete_and_closer_to_shapley_than_e2x_at_equal_cost() -> None:
    segments = blocks(H, W, 3, 4)
    exact = run(Steep(), segments, ExactShapley)[0]
    plain = run(Steep(), segments, E2X, samples=32)[0]
    found = run(Steep(), segments, samples=32)[0]
    assert found.passes <= plain.passes + 2
    assert abs(found.gap) <= 1e-2 * abs(exact.full - exact.empty)
    error, before = (np.linalg.norm(m.phi - exact.phi) for m in (found, plain))
    assert error < 0.5 * before


def test_targets_together_and_batches_change_nothing() -> None:
    segments = blocks(H, W, 3, 4)
    both = [Target(candidate=0, label=0, kind="log_odds"), Target(candidate=0, label=0)]
    together = run(Convolutional(), segments, targets=both, samples=16, batch_size=16)
    for target, found in zip(both, together, strict=True):
        alone = run(Convolutional(), segments, targets=[target], samples=16, batch_size=3)[0]
        np.testing.assert_allclose(found.phi, alone.phi, atol=1e-4 * np.abs(alone.phi).max())


def test_coalitions_sizes_are_spread_and_keyed_by_pixels() -> None:
    z = stratified_coalitions(blocks(H, W, 4, 6), 24, seed=1, image_key="a")
    assert z.shape == (24, 24)
    sizes = z.sum(1)
    assert sizes.min() >= 1
    assert sizes.max() <= 23
    assert (np.diff(sizes) >= 0).all()
    assert np.diff(sizes).max() <= 2
    relabelled = stratified_coalitions(23 - blocks(H, W, 4, 6), 24, seed=1, image_key="a")
    assert (relabelled[:, ::-1] == z).all()


def test_many_coalitions_outweigh_wrong_gradients() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=10)
    z = random.random((400, 10)) < 0.5
    z = z[(z.sum(1) > 0) & (z.sum(1) < 10)]
    wrong = random.normal(size=(2, 10))
    places = random.random((10, 2)) * 100
    noisy = z @ truth + 1.0 + 0.1 * random.normal(size=len(z))
    found = posterior_mean(wrong, np.ones(10), places, 20.0, z, noisy, float(truth.sum() + 1), 1.0)
    np.testing.assert_allclose(found, truth, atol=0.1)


def test_a_score_that_falls_at_once_blames_no_segment_for_it() -> None:
    """Whatever is hidden, the score drops alike: only segment 0 makes a difference of its own."""
    random = np.random.default_rng(1)
    z = random.permuted(np.arange(12)[None].repeat(60, 0), axis=1) < (1 + np.arange(60) % 11)[:, None]
    shown = z.mean(1)
    values = z[:, 0] * 2.0 + shown * 4 - 3 * (4 * shown * (1 - shown))
    even = np.ones((1, 12))
    places = np.stack([np.arange(12) * 20.0, np.zeros(12)], axis=1)
    found = posterior_mean(even, np.ones(12), places, 20.0, z, values, 6.0, 0.0)
    np.testing.assert_allclose(found[0] - found[1:].mean(), 2.0, atol=0.2)
    np.testing.assert_allclose(found.sum(), 6.0, atol=1e-2)


def test_a_score_that_ignores_the_network_below_gives_zeros() -> None:
    z = np.array([[True, False], [False, True]])
    nothing = posterior_mean(np.zeros((3, 2)), np.zeros(2), np.eye(2), 1.0, z, np.ones(2), 1.0, 1.0)
    assert not nothing.any()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 8 samples, got 4"):
        E2XKernel(AttributionOptions(samples=4))
