"""Shapley values: by hand, by enumeration and by permutations."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.shapley import ExactShapley, PermutationShapley, exact_values, permutation_values

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Convolutional, TinyDetector, blocks, picture

H, W = 16, 24


def random_game(count: int, seed: int):
    values = np.random.default_rng(seed).normal(size=(2**count, 2))
    return lambda members: values[members @ (1 << np.arange(count))]


def test_enumeration_equals_the_average_over_all_orders():
    game, count = random_game(4, 0), 4
    phi = np.zeros((2, count))
    orders = list(itertools.permutations(range(count)))
    for order in orders:
        shown = np.zeros(count, dtype=bool)
        before = game(shown[None])[0]
        for i in order:
            shown[i] = True
            after = game(shown[None])[0]
            phi[:, i] += (after - before) / len(orders)
            before = after
    np.testing.assert_allclose(exact_values(game, count), phi, atol=1e-12)


def test_all_permutations_give_the_exact_values():
    game = random_game(4, 1)
    orders = np.array(list(itertools.permutations(range(4))))
    np.testing.assert_allclose(permutation_values(game, orders)[0], exact_values(game, 4), atol=1e-12)


def test_permutations_are_unbiased_within_their_standard_error():
    game = random_game(6, 2)
    orders = np.stack([np.random.default_rng(k).permutation(6) for k in range(400)])
    phi, error = permutation_values(game, orders)
    assert (np.abs(phi - exact_values(game, 6)) <= 4.5 * error).all()
    assert error.max() < 0.2


def test_one_player_takes_it_all():
    game = random_game(1, 3)
    phi, error = permutation_values(game, np.zeros((2, 1), dtype=np.int64))
    np.testing.assert_allclose(phi, exact_values(game, 1))
    assert not error.any()


def test_methods_agree_on_a_detector_and_sum_to_the_difference():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments = picture(H, W), blocks(H, W, 2, 4)
    targets = [Target(candidate=7, label=1), Target(candidate=3, label=0)]
    arguments = (detector, image, detector.pin(), segments, MeanFill(), targets)
    exact = ExactShapley(AttributionOptions(batch_size=64)).explain(*arguments, seed=0, image_key="i")
    permutations = PermutationShapley(AttributionOptions(samples=60, batch_size=64))
    sampled = permutations.explain(*arguments, seed=0, image_key="i")
    for a, b in zip(exact, sampled, strict=True):
        assert abs(a.gap) < 1e-5
        assert abs(b.gap) < 1e-5
        np.testing.assert_allclose(b.phi, a.phi, atol=8 * b.extra["standard_error"] + 1e-6)
        assert np.corrcoef(a.phi, b.phi)[0, 1] > 0.98
    assert exact[0].passes == 2**8
    assert sampled[0].passes == 2 * 60 * 7 + 2


def test_a_hole_of_the_mean_colour_equals_the_continuous_mean():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2, mean=(0.2, 0.3, 0.4))
    image, segments = picture(H, W), blocks(H, W, 2, 3)
    targets = [Target(candidate=7, label=1)]
    method = ExactShapley(AttributionOptions(batch_size=16))
    faded, holed = (
        method.explain(detector, image, detector.pin(), segments, fill, targets, seed=0, image_key="")[0]
        for fill in (MeanFill(), MeanHole(detector.mean_color))
    )
    np.testing.assert_allclose(holed.phi, faded.phi, atol=1e-6)


def test_permutation_values_follow_segments_when_labels_change():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    image, segments, order = picture(H, W), blocks(H, W, 2, 3), np.array([4, 2, 0, 5, 1, 3], dtype=np.uint16)
    method = PermutationShapley(AttributionOptions(samples=3))
    before, after = (
        method.explain(
            detector,
            image,
            detector.pin(),
            labels,
            MeanFill(),
            [Target(candidate=1, label=0)],
            seed=5,
            image_key="i",
        )[0].phi
        for labels in (segments, order[segments])
    )
    np.testing.assert_allclose(after[order], before, atol=1e-7)


def test_too_many_segments_for_enumeration_are_refused():
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    with pytest.raises(ConfigError, match="at most 14 segments, got 15"):
        ExactShapley().explain(
            detector,
            torch.zeros(3, H, W),
            detector.pin(),
            blocks(H, W, 3, 5),
            MeanFill(),
            [Target(candidate=0, label=0)],
            seed=0,
            image_key="",
        )
