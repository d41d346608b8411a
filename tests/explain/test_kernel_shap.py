"""KernelSHAP: exact Shapley where it enumerates, shap and captum as oracles, and its invariants."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import shap
import torch

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.game import coalition_game
from curator.explain.methods.kernel_shap import (
    KernelSHAP,
    constrained_least_squares,
    every_coalition,
    paired_coalitions,
    size_probabilities,
)
from curator.explain.methods.shapley import ExactShapley, exact_values
from curator.explain.target import TargetScores
from curator.registry import ATTRIBUTIONS

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Convolutional, IgnoresLeft, Linear, TinyDetector, blocks, picture

H, W = 16, 24
MEAN = (0.2, 0.3, 0.4)
TARGETS = [Target(candidate=7, label=1), Target(candidate=3, label=0, kind="log_odds")]


def explain(detector, segments, targets=TARGETS, *, method=KernelSHAP, fill=None, seed=0, **options):
    return method(AttributionOptions(**options)).explain(
        detector,
        picture(H, W),
        detector.pin(),
        segments,
        fill or MeanFill(),
        targets,
        seed=seed,
        image_key="i",
    )


@pytest.fixture
def detector():
    return TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (1, 3), (2, 4)])
def test_enumerated_it_is_exact_shapley(detector, rows, columns):
    segments = blocks(H, W, rows, columns)
    exact = explain(detector, segments, method=ExactShapley, batch_size=64)
    ours = explain(detector, segments, samples=2 ** (rows * columns), batch_size=64)
    for a, b in zip(exact, ours, strict=True):
        np.testing.assert_allclose(b.phi, a.phi, atol=1e-6)
        assert abs(b.gap) < 1e-12
    assert ours[0].passes == 2 ** (rows * columns)


def test_random_games_are_solved_exactly_when_enumerated():
    count = 6
    table = np.random.default_rng(0).normal(size=(2**count, 3))
    members, weights = every_coalition(count)
    phi = constrained_least_squares(
        members, table[members @ (1 << np.arange(count))], weights, table[-1], table[0], ridge=1e-2
    )
    expected = exact_values(lambda z: table[z @ (1 << np.arange(count))], count)
    np.testing.assert_allclose(phi, expected, atol=1e-10)


def test_it_agrees_with_shap_and_captum(detector):
    segments, count = blocks(H, W, 2, 4), 8
    image, baseline = picture(H, W), torch.tensor(MEAN).view(3, 1, 1).expand(3, H, W)
    scores = TargetScores(detector, detector.pin(), TARGETS)
    game = coalition_game(
        scores, detector, image, segments, MeanFill(), seed=0, options=AttributionOptions(batch_size=64)
    )
    ours = explain(detector, segments, samples=300, batch_size=64)
    explainer = shap.KernelExplainer(lambda z: game(z.astype(bool)), np.zeros((1, count)))
    theirs = explainer.shap_values(np.ones((1, count)), nsamples=2**count, silent=True)[0]  # (M, T)
    np.testing.assert_allclose([m.phi for m in ours], theirs.T, atol=1e-6)

    for t, ours_of_target in enumerate(ours):  # captum samples coalitions also where it could enumerate
        torch.manual_seed(0)
        found = captum.attr.KernelShap(lambda u, t=t: scores(u)[:, t]).attribute(
            image[None],
            baselines=baseline[None],
            feature_mask=torch.from_numpy(segments.astype(np.int64))[None, None].expand(1, 3, H, W),
            n_samples=1500,
            perturbations_per_eval=250,
            return_input_shape=False,
        )[0]
        scale = np.abs(ours_of_target.phi).max()
        np.testing.assert_allclose(found.numpy(), ours_of_target.phi, atol=0.05 * scale)


@pytest.mark.parametrize("samples", [200, 61])
def test_a_linear_score_is_exact_once_all_directions_are_seen(samples):
    module, image, segments = Linear((H, W)), picture(H, W), blocks(H, W, 3, 4)
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    target = [Target(candidate=1, label=0, kind="log_odds")]
    found = explain(detector, segments, target, samples=samples)[0]
    products = module.weight[1] * (image - image.new_tensor(MEAN).view(3, 1, 1))
    expected = np.bincount(segments.ravel(), products.sum(0).double().numpy().ravel())
    np.testing.assert_allclose(found.phi, expected, atol=1e-5)
    assert abs(found.gap) < 1e-12


@pytest.mark.parametrize("samples", [2, 7, 16, 64])
def test_the_sum_is_exact_also_where_the_system_is_singular(detector, samples):
    for found in explain(detector, blocks(H, W, 4, 6), samples=samples):
        assert abs(found.gap) < 1e-12
        assert np.isfinite(found.phi).all()


def test_near_the_singular_system_the_ridge_bounds_the_noise():
    numbers = np.random.default_rng(1)
    count, ratios = 40, []
    truth = numbers.normal(size=count)
    for _ in range(20):  # as many pairs as unknowns: the interpolation threshold
        drawn = numbers.random((count - 1, count)) < 0.5
        z = np.concatenate([drawn, ~drawn])
        noisy = (z @ truth + 0.5 * numbers.normal(size=len(z)))[:, None]
        full, empty, weights = truth.sum(keepdims=True), np.zeros(1), np.ones(len(z))
        plain, ridged = (
            constrained_least_squares(z, noisy, weights, full, empty, ridge=r) for r in (1e-12, 1e-2)
        )
        ratios.append(np.linalg.norm(ridged - truth) / np.linalg.norm(plain - truth))
    assert np.median(ratios) < 0.5


def test_constant_and_unseen_segments_get_nothing():
    constant = TinyDetector(Constant(connected=True), size=(H, W))
    found = explain(constant, blocks(H, W, 4, 6), [Target(candidate=0, label=0)], samples=20, batch_size=8)[0]
    assert not found.phi.any()
    assert not found.evidence
    blind = TinyDetector(IgnoresLeft(), size=(H, W), classes=2)
    target = [Target(candidate=0, label=0, kind="log_odds")]
    enumerated = explain(blind, blocks(H, W, 2, 4), target, samples=300)[0]
    np.testing.assert_allclose(enumerated.phi[[0, 1, 4, 5]], 0, atol=1e-6)
    assert np.abs(enumerated.phi).max() > 0.01


def test_pairs_follow_the_kernel_and_merge():
    segments = blocks(H, W, 2, 4)
    members, counts = paired_coalitions(segments, 20_001, seed=0, image_key="i")
    assert counts.sum() == 20_000
    assert len(np.unique(members, axis=0)) == len(members) <= 2**8 - 2
    complement = {row.tobytes(): c for row, c in zip(~members, counts, strict=True)}
    assert all(complement[row.tobytes()] == c for row, c in zip(members, counts, strict=True))
    by_size = np.bincount(members.sum(1), weights=counts, minlength=9)[1:8] / counts.sum()
    np.testing.assert_allclose(by_size, size_probabilities(8), atol=0.015)
    singles = counts[members.sum(1) == 1]
    assert (np.abs(singles / singles.mean() - 1) < 5 / math.sqrt(singles.mean())).all()
    assert size_probabilities(4) == pytest.approx(np.array([1, 3 / 4, 1]) / 2.75)


def test_relabelling_permutes_and_batches_do_not_matter(detector):
    segments = blocks(H, W, 4, 4)
    order = np.random.default_rng(0).permutation(16).astype(np.uint16)
    plain = explain(detector, segments, samples=100, batch_size=16)
    relabelled = explain(detector, order[segments], samples=100, batch_size=7)
    for a, b in zip(plain, relabelled, strict=True):
        np.testing.assert_allclose(b.phi[order], a.phi, atol=2e-5)


def test_targets_share_the_passes_and_each_gets_what_it_gets_alone(detector):
    segments = blocks(H, W, 4, 4)
    together = explain(detector, segments, samples=60, batch_size=10)
    assert sum(detector.forwards) == together[0].passes <= 62
    for t, target in enumerate(TARGETS):
        alone = explain(detector, segments, [target], samples=60, batch_size=10)[0]
        np.testing.assert_allclose(alone.phi, together[t].phi, atol=1e-6)
    other = explain(detector, segments, samples=60, batch_size=10, seed=1)
    assert (other[0].phi != together[0].phi).any()


def test_a_mean_hole_equals_the_mean(detector):
    segments = blocks(H, W, 2, 3)
    faded, holed = (explain(detector, segments, samples=62, fill=f)[0] for f in (MeanFill(), MeanHole(MEAN)))
    np.testing.assert_allclose(holed.phi, faded.phi, atol=1e-6)


def test_one_sample_is_refused_and_the_registry_finds_it():
    with pytest.raises(ConfigError, match="at least 2 samples"):
        KernelSHAP(AttributionOptions(samples=1))
    assert ATTRIBUTIONS.load("kernel_shap") is KernelSHAP
