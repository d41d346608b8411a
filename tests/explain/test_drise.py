"""D-RISE: its masks, its map on planted truths, black boxes and white ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curator.detect.base import Candidates
from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.drise import DRISE, pooling, random_mask
from curator.registry import ATTRIBUTIONS
from curator.tensors import generator
from store.records import Pin

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, TinyDetector, blocks, picture

H, W = 32, 48
BOX = (0.0, 0.0, float(W), float(H))


class Spot(torch.nn.Module):
    """Class 0: brightness of a spot; class 1: of another, less a distractor's."""

    def forward(self, u):
        spot = u[:, :, 6:12, 6:12].mean((1, 2, 3))
        other = u[:, :, 20:26, 34:40].mean((1, 2, 3)) * (1 - u[:, :, 20:26, 6:12].mean((1, 2, 3)))
        return torch.stack([spot, other], 1)[:, None]


class Boxed(TinyDetector):
    """Two candidates: one left, one right; the right one's box moves away as the image darkens."""

    def candidates(self, u, pin, *, index=None, levels=()):
        found = super().candidates(u, pin, levels=levels)
        scores = found.scores.expand(-1, 2, -1)
        left, right = u.new_tensor([0, 0, W / 2, H]), u.new_tensor([W / 2, 0, W, H])
        boxes = torch.stack([left.expand(len(u), 4), right.expand(len(u), 4)], 1)
        if index is not None:
            scores, boxes = scores[:, index], boxes[:, index]
        return Candidates(scores, None, boxes)


class BlackBox(TinyDetector):
    def modules(self):
        return None


def spot_detector():
    return TinyDetector(Spot(), size=(H, W), classes=2, values="probability")


def target(label=0, box=BOX):
    return Target(candidate=0, label=label, box=box)


def explain(detector, targets, *, image=None, pin=None, fill=None, seed=0, **options):
    return DRISE(AttributionOptions(**options)).explain(
        detector,
        torch.ones(3, H, W) if image is None else image,
        pin or detector.pin(),
        blocks(H, W, 2, 2),
        fill or MeanFill(),
        targets,
        seed=seed,
        image_key="i",
    )


def test_masks_have_their_probability_everywhere():
    masks = torch.stack([random_mask(30, 45, 4, 0.3, generator("m", k)) for k in range(3000)])
    assert masks.shape == (3000, 30, 45)
    assert masks.min() >= 0
    assert masks.max() <= 1
    np.testing.assert_allclose(masks.mean(0), 0.3, atol=0.045)  # 5 standard errors of a coin's mean
    assert (masks.var(0) > 0.02).all()


def test_masks_are_keyed_by_seed_image_and_number():
    def masks(samples, seed=0, image_key="i"):
        method = DRISE(AttributionOptions(samples=samples))
        return torch.stack(list(method.masks((0, 0, W, H), seed=seed, image_key=image_key)))

    assert torch.equal(masks(6)[:3], masks(3))
    assert not torch.equal(masks(3), masks(3, seed=1))
    assert not torch.equal(masks(3), masks(3, image_key="j"))


@pytest.mark.parametrize("side", [5, 64, 100, 416])
def test_pooling_takes_exact_means(side):
    matrix = pooling(side)
    assert matrix.shape == (min(64, side), side)
    np.testing.assert_allclose(matrix.sum(1), 1)
    centres = (np.arange(len(matrix)) + 0.5) * side / len(matrix)
    np.testing.assert_allclose(matrix @ (np.arange(side) + 0.5), centres, atol=0.13)  # pixels have width


def test_planted_spots_are_found_with_their_signs():
    spot, other = explain(
        spot_detector(), [target(0), target(1)], samples=600, settings={"cells": "8"}, batch_size=64
    )
    for found, value, (x, y) in (
        (spot, spot.values.argmax(), (9, 9)),
        (other, other.values.argmax(), (37, 23)),
        (other, other.values.argmin(), (9, 23)),
    ):
        row, column = np.unravel_index(value, found.values.shape)
        assert abs(found.offset[0] + found.scale[0] * column - x) <= 5
        assert abs(found.offset[1] + found.scale[1] * row - y) <= 5
        assert found.evidence
        assert np.isnan(found.gap)
        assert found.passes == 602
    assert (spot.full, spot.empty) == (1, 0)


def test_a_black_box_gets_the_map_that_its_candidates_would_give():
    class Only(Spot):
        def forward(self, u):
            return super().forward(u)[..., 1:]

    detectors = [kind(Only(), size=(H, W), values="probability") for kind in (TinyDetector, BlackBox)]
    image = picture(H, W)
    white, black = (explain(d, [target()], image=image, samples=40)[0] for d in detectors)
    np.testing.assert_allclose(black.values, white.values, atol=1e-6)
    assert black.values.any()


def test_the_map_is_the_score_shown_less_the_score_on_average():
    # One cell is the whole picture: S = E[s | shown] - E[s] = 1 - 1/2 for s = the mask itself.
    found = explain(spot_detector(), [target()], samples=800, settings={"cells": "1"}, batch_size=64)[0]
    np.testing.assert_allclose(found.values, 0.5, atol=0.03)
    flat = explain(spot_detector(), [target()], samples=800, batch_size=64)[0]
    far = flat.values[20:, 24:]
    assert np.abs(far).mean() < 2 * flat.extra["standard_error"]


def test_a_constant_score_gives_exactly_nothing():
    detector = TinyDetector(Constant(connected=False), size=(H, W), values="probability")
    found = explain(detector, [target()], image=picture(H, W), samples=33, batch_size=8)[0]
    assert not found.values.any()
    assert not found.evidence
    assert found.extra["standard_error"] == 0


def test_similarity_counts_the_place():
    detector = Boxed(Spot(), size=(H, W), classes=2, values="probability")
    left, apart, half = explain(
        detector,
        [target(0, (0.0, 0.0, W / 2, H)), target(0, (100.0, 100.0, 120.0, 120.0)), target(0, BOX)],
        samples=50,
    )
    assert (left.full, apart.full) == (1, 0)
    assert half.full == pytest.approx(0.5)
    np.testing.assert_allclose(half.values, left.values / 2, atol=1e-6)
    assert not apart.values.any()


def test_batches_do_not_matter_and_targets_share_the_passes():
    detector = spot_detector()
    together = explain(detector, [target(0), target(1)], image=picture(H, W), samples=30, batch_size=7)
    assert sum(detector.forwards) == 33  # the 30 masks, the two ends, and one to count the candidates
    for t in (0, 1):
        alone = explain(spot_detector(), [target(t)], image=picture(H, W), samples=30, batch_size=16)[0]
        np.testing.assert_allclose(alone.values, together[t].values, atol=1e-6)


def test_the_grid_spans_the_picture_alone():
    pin = Pin(image_size=(16, 48), input_size=(H, W), scale=(1.0, 1.0), offset=(0.0, 8.0))
    found = explain(spot_detector(), [target()], pin=pin, samples=5)[0]
    assert found.values.shape == (16, 48)
    assert (found.scale, found.offset) == ((1.0, 1.0), (0.5, 8.5))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="continuous fill"):
        explain(spot_detector(), [target()], fill=MeanHole((0, 0, 0)))
    with pytest.raises(InputError, match="boxes"):
        explain(spot_detector(), [Target(candidate=0, label=0)])
    with pytest.raises(ConfigError, match="probability"):
        explain(spot_detector(), [Target(candidate=0, label=0, kind="log_odds", box=BOX)])
    with pytest.raises(ConfigError, match="cells: expected a number from 1"):
        DRISE(AttributionOptions(settings={"cells": "0"}))
    assert ATTRIBUTIONS.load("drise") is DRISE
