"""Integrated gradients per pixel: captum's numbers, pooled by sum."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.integrated import SIDE, IntegratedGradients, cell_labels
from curator.explain.target import TargetScores
from curator.registry import ATTRIBUTIONS
from store.records import GridMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Convolutional, IgnoresLeft, Linear, TinyDetector, blocks, picture

MEAN = (0.4, 0.5, 0.6)
LOG_ODDS = (Target(candidate=0, label=0, kind="log_odds"),)


def run(detector, image, targets=LOG_ODDS, **options) -> list[GridMap]:
    segments = blocks(*image.shape[1:], 2, 2)
    return IntegratedGradients(AttributionOptions(**options)).explain(
        detector, image, detector.pin(), segments, MeanFill(), targets, seed=0, image_key="image"
    )


@pytest.mark.parametrize("size", [(16, 24), (40, 300)])
def test_captum_gives_the_same_sums(size):
    detector = TinyDetector(Convolutional(seed=3), size=size, classes=2, mean=MEAN)
    image, targets = picture(*size), [Target(candidate=5, label=1), Target(candidate=9, label=0)]
    found = run(detector, image, targets, samples=12, batch_size=5)
    scores = TargetScores(detector, detector.pin(), targets)
    labels, side = cell_labels(*size)
    assert side == math.ceil(size[1] / SIDE)
    for t, ours in enumerate(found):
        theirs = CaptumIntegratedGradients(lambda u, t=t: scores(u)[:, t]).attribute(
            image[None], MeanFill().baseline(image, detector)[None], n_steps=12, method="riemann_middle"
        )
        pixels = theirs[0].sum(0).detach().numpy()
        expected = np.bincount(labels.ravel(), weights=pixels.ravel()).reshape(ours.values.shape)
        np.testing.assert_allclose(ours.values, expected, rtol=1e-3, atol=1e-7)
        assert ours.scale == (side, side)
        assert ours.offset == (side / 2, side / 2)
        assert max(ours.values.shape) <= SIDE
        assert ours.passes == 2 * 12 + 2


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_cells_cover_every_pixel_in_at_most_128_a_side(height, width):
    labels, side = cell_labels(height, width)
    rows, columns = math.ceil(height / side), math.ceil(width / side)
    assert max(rows, columns) <= SIDE
    assert labels.shape == (height, width)
    np.testing.assert_array_equal(np.unique(labels), np.arange(rows * columns))
    assert labels[-1, -1] == rows * columns - 1


def test_a_linear_score_is_attributed_exactly_and_completely():
    size = (30, 260)
    module = Linear(size)
    detector = TinyDetector(module, size=size, mean=MEAN)
    image = picture(*size)
    found = run(detector, image, samples=1)[0]
    products = (module.weight[0] * (image - torch.tensor(MEAN).view(3, 1, 1))).sum(0).numpy()
    padded = np.pad(products, ((0, 0), (0, 1)))  # 260 = 86 cells of 3 px and 2 px
    np.testing.assert_allclose(found.values, padded.reshape(10, 3, 87, 3).sum((1, 3)), atol=1e-5)
    assert abs(found.gap) < 1e-3


def test_completeness_dummies_and_constants():
    detector = TinyDetector(Convolutional(seed=1), size=(16, 24), classes=2, mean=MEAN)
    image = picture(16, 24)
    found = run(detector, image, samples=32)[0]
    assert found.full - found.empty - found.values.sum() == pytest.approx(found.gap, abs=1e-5)
    assert abs(found.gap) < 0.01 * abs(found.full - found.empty)
    assert found.evidence is True
    blind = run(TinyDetector(IgnoresLeft(), size=(16, 24), mean=MEAN), image)[0]
    assert not blind.values[:, :12].any()
    assert blind.values[:, 12:].all()
    for connected in (True, False):
        constant = run(TinyDetector(Constant(connected=connected), size=(16, 24)), image)[0]
        assert not constant.values.any()
        assert constant.evidence is False


def test_evidence_speaks_of_areas_as_large_as_segments():
    """Thousands of cells below the floor, of one sign, are evidence together."""
    size = (120, 120)
    module = Linear(size, candidates=1)
    module.weight.data[:] = 1e-4
    detector = TinyDetector(module, size=size)
    found = run(detector, torch.ones(3, *size))[0]
    assert found.values.max() < 1e-2
    assert found.evidence is True


def test_company_batches_and_refusals():
    assert ATTRIBUTIONS.load("ig") is IntegratedGradients
    detector = TinyDetector(Convolutional(), size=(16, 24), classes=2)
    image, targets = picture(16, 24), [Target(candidate=7, label=1), Target(candidate=3, label=0)]
    together = run(detector, image, targets, samples=10, batch_size=4)
    for target, found in zip(targets, together, strict=True):
        alone = run(detector, image, [target], samples=10, batch_size=10)[0]
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-4, atol=1e-8)
    with pytest.raises(ConfigError, match="continuous fill"):
        IntegratedGradients().explain(
            detector,
            image,
            detector.pin(),
            blocks(16, 24, 2, 2),
            MeanHole(MEAN),
            targets,
            seed=0,
            image_key="",
        )
