"""LIME: against the lime package and scikit-learn on the same neighbourhood, and its invariants."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from lime.lime_base import LimeBase

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.game import coalition_game
from curator.explain.methods.lime import LIME, kernel, neighbourhood, weighted_ridge
from curator.explain.target import TargetScores
from curator.registry import ATTRIBUTIONS

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Convolutional, Linear, Scaled, TinyDetector, blocks, picture

H, W = 16, 24
MEAN = (0.2, 0.3, 0.4)
TARGETS = [Target(candidate=7, label=1), Target(candidate=3, label=0, kind="log_odds")]


def explain(detector, segments, targets=TARGETS, *, fill=None, seed=0, image_key="i", **options):
    method = LIME(AttributionOptions(**options))
    image = picture(H, W)
    return method.explain(
        detector,
        image,
        detector.pin(),
        segments,
        fill or MeanFill(),
        targets,
        seed=seed,
        image_key=image_key,
    )


@pytest.fixture
def detector():
    return TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)


@pytest.mark.parametrize(("samples", "rows", "columns"), [(200, 3, 4), (30, 4, 6), (500, 8, 12)])
def test_it_agrees_with_the_lime_package_on_the_same_neighbourhood(detector, samples, rows, columns):
    segments = blocks(H, W, rows, columns)
    count = rows * columns
    found = explain(detector, segments, samples=samples)
    z = neighbourhood(segments, samples, seed=0, image_key="i").astype(float)
    options = AttributionOptions()
    game = coalition_game(
        TargetScores(detector, detector.pin(), TARGETS),
        detector,
        picture(H, W),
        segments,
        MeanFill(),
        seed=0,
        options=options,
    )
    labels = game(z.astype(bool))
    # As lime_image does: cosine distances to the first row, kernel sqrt(exp(-d^2 / 0.25^2)).
    distances = sklearn.metrics.pairwise_distances(z, z[:1], metric="cosine").ravel()
    package = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    for t, ours in enumerate(found):
        intercept, pairs, score, _ = package.explain_instance_with_data(
            z, labels, distances, t, num_features=count, feature_selection="none"
        )
        theirs = np.zeros(count)
        for segment, coefficient in pairs:
            theirs[segment] = coefficient
        np.testing.assert_allclose(ours.phi, theirs, atol=1e-6)
        assert ours.extra["intercept"] == pytest.approx(intercept, abs=1e-6)
        assert ours.extra["r_squared"] == pytest.approx(score, abs=1e-5)


def test_a_linear_game_is_recovered_as_the_penalty_vanishes():
    numbers = np.random.default_rng(0)
    truth, constant = numbers.normal(size=(2, 9)), np.array([0.3, -1.0])
    z = numbers.random((60, 9)) < 0.5
    phi, intercept = weighted_ridge(z, z @ truth.T + constant, kernel(z, 0.25), 1e-12)
    np.testing.assert_allclose(phi, truth, atol=1e-8)
    np.testing.assert_allclose(intercept, constant, atol=1e-8)


def test_a_linear_score_is_found_up_to_the_ridge():
    module, image, segments = Linear((H, W)), picture(H, W), blocks(H, W, 3, 4)
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    target = [Target(candidate=1, label=0, kind="log_odds")]
    found = explain(detector, segments, target, samples=400, settings={"ridge": "1e-6"})[0]
    products = module.weight[1] * (image - image.new_tensor(MEAN).view(3, 1, 1))
    expected = np.bincount(segments.ravel(), products.sum(0).double().numpy().ravel())
    np.testing.assert_allclose(found.phi, expected, atol=1e-4)
    assert abs(found.gap) < 1e-3
    shrunk = explain(detector, segments, target, samples=400)[0]
    assert np.abs(shrunk.phi).sum() < np.abs(found.phi).sum()  # Ridge(1), as the package
    assert found.gap == pytest.approx(found.full - found.empty - found.phi.sum(), abs=1e-5)


def test_a_constant_score_gives_exactly_nothing():
    detector = TinyDetector(Constant(connected=True), size=(H, W))
    found = explain(detector, blocks(H, W, 2, 4), [Target(candidate=0, label=0)], samples=33, batch_size=8)
    assert not found[0].phi.any()
    assert not found[0].evidence
    assert found[0].gap == 0
    assert np.isnan(found[0].extra["r_squared"])


def test_the_neighbourhood_is_keyed_by_content():
    segments, order = blocks(H, W, 2, 3), np.array([4, 2, 0, 5, 1, 3], dtype=np.uint16)
    z = neighbourhood(segments, 50, seed=1, image_key="i")
    assert z[0].all()
    assert 0.4 < z[1:].mean() < 0.6
    np.testing.assert_array_equal(neighbourhood(order[segments], 50, seed=1, image_key="i")[:, order], z)
    np.testing.assert_array_equal(neighbourhood(segments, 20, seed=1, image_key="i"), z[:20])
    assert (neighbourhood(segments, 50, seed=2, image_key="i") != z).any()
    assert (neighbourhood(segments, 50, seed=1, image_key="j") != z).any()


def test_relabelling_permutes_and_batches_do_not_matter(detector):
    segments, order = blocks(H, W, 2, 3), np.array([4, 2, 0, 5, 1, 3], dtype=np.uint16)
    plain = explain(detector, segments, samples=21, batch_size=16)
    relabelled = explain(detector, order[segments], samples=21, batch_size=5)
    for a, b in zip(plain, relabelled, strict=True):
        np.testing.assert_allclose(b.phi[order], a.phi, atol=1e-6)


def test_targets_share_the_passes_and_each_gets_what_it_gets_alone(detector):
    segments = blocks(H, W, 2, 3)
    together = explain(detector, segments, samples=40, batch_size=10)
    assert sum(detector.forwards) == 41
    assert together[0].passes == 41
    for t, target in enumerate(TARGETS):
        alone = explain(detector, segments, [target], samples=40, batch_size=10)[0]
        np.testing.assert_allclose(alone.phi, together[t].phi, atol=1e-6)


def test_it_scales_with_the_score(detector):
    segments = blocks(H, W, 2, 3)
    target = [Target(candidate=3, label=0, kind="log_odds")]
    doubled = TinyDetector(Scaled(Convolutional(), 2.0), size=(H, W), classes=2, mean=MEAN)
    one, two = (explain(d, segments, target, samples=40)[0].phi for d in (detector, doubled))
    np.testing.assert_allclose(two, 2 * one, atol=1e-5)


def test_a_mean_hole_equals_the_mean_and_samples_fewer_than_segments_work(detector):
    segments = blocks(H, W, 4, 6)
    faded = explain(detector, segments, samples=10)[0]
    holed = explain(detector, segments, samples=10, fill=MeanHole(MEAN))[0]
    np.testing.assert_allclose(holed.phi, faded.phi, atol=1e-6)
    assert np.isfinite(faded.phi).all()


def test_unknown_settings_are_refused_and_the_registry_finds_it():
    with pytest.raises(ConfigError, match="knows the settings width, ridge, got patch"):
        LIME(AttributionOptions(settings={"patch": "3"}))
    assert ATTRIBUTIONS.load("lime") is LIME
