"""Sliding patch: where its windows are, what they measure, and SP-G by composition."""

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
from curator.explain.fills.fill import BlurHole, MeanFill, MeanHole
from curator.explain.methods.patches import SlidingPatch, drops
from curator.explain.pixel_masks import covering_grid, inner_grid, painter
from curator.explain.target import TargetScores
from curator.registry import ATTRIBUTIONS
from store.records import GridMap, Pin

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Convolutional, IgnoresLeft, Linear, TinyDetector, blocks, picture

H, W = 20, 26
MEAN = (0.2, 0.3, 0.4)
TARGETS = [Target(candidate=7, label=1), Target(candidate=3, label=0, kind="log_odds")]


def explain(
    detector, targets=TARGETS, *, image=None, fill=None, pin=None, seed=0, patch=5, stride=3, **options
):
    method = SlidingPatch(
        AttributionOptions(settings={"patch": str(patch), "stride": str(stride)}, **options)
    )
    return method.explain(
        detector,
        picture(H, W) if image is None else image,
        pin or detector.pin(),
        blocks(H, W, 2, 2),
        fill or MeanFill(),
        targets,
        seed=seed,
        image_key="i",
    )


@pytest.fixture
def detector():
    return TinyDetector(Convolutional(), size=(H, W), classes=2, mean=MEAN)


class CountedFill(MeanHole):
    """Paints many holes at once, as an inpainter does, and counts how often it was asked."""

    def __init__(self, color) -> None:
        super().__init__(color)
        self.asked: list[int] = []

    def fill_many(self, image, holes, seeds):
        self.asked.append(len(holes))
        return torch.stack([self.fill(image, hole, seed) for hole, seed in zip(holes, seeds, strict=True)])


def test_a_fill_that_paints_many_holes_at_once_is_asked_once_per_batch(detector):
    fill = CountedFill(MEAN)
    found = explain(detector, fill=fill, batch_size=16, precision="fp32")
    alone = explain(detector, fill=MeanHole(MEAN), batch_size=16, precision="fp32")
    windows = found[0].values.size
    assert sum(fill.asked) == windows + 1  # and the whole picture
    assert len(fill.asked) == -(-windows // 16) + 1
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


@given(st.integers(0, 9), st.integers(1, 60), st.integers(1, 60), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_grids_are_regular_and_reach_the_edges(start, width, height, size, stride):
    region = (start, 2 * start, start + width, 2 * start + height)
    grid = covering_grid(region, size, stride)
    assert grid.offset == (grid.columns[0] + size / 2, grid.rows[0] + size / 2)
    for starts, low, side in ((grid.columns, start, width), (grid.rows, 2 * start, height)):
        assert (np.diff(starts) == stride).all()
        overhang = starts[-1] + size - starts[0] - side
        assert starts[0] <= low
        assert starts[-1] + size >= low + side
        assert overhang < max(stride, size)
        if len(starts) > 1:  # one window less would not reach
            assert overhang < stride
    if min(width, height) >= size:
        inner = inner_grid(region, size, stride)
        for starts, low, side in ((inner.columns, start, width), (inner.rows, 2 * start, height)):
            assert low <= starts[0]
            assert starts[-1] + size <= low + side
            assert side - (starts[-1] + size - starts[0]) < stride


def test_every_pixel_of_the_picture_is_hidden_by_some_window():
    grid = covering_grid((2, 1, 25, 19), 5, 3)
    covered = sum(
        grid.hole(i, j, torch.zeros(3, H, W)).int()
        for i in range(len(grid.rows))
        for j in range(len(grid.columns))
    )
    assert (covered[1:19, 2:25] > 0).all()
    assert covered.sum() == covered[1:19, 2:25].sum()  # and nothing of the padding


def test_the_defaults_are_the_papers():
    assert (SlidingPatch().patch, SlidingPatch().stride) == (29, 3)
    grid = covering_grid((0, 0, 224, 224), 29, 3)
    assert (len(grid.rows), len(grid.columns), grid.offset) == (66, 66, (14.5, 14.5))


@pytest.mark.parametrize(("patch", "stride"), [(5, 3), (4, 4), (3, 5), (1, 7), (40, 3)])
def test_a_linear_score_drops_by_what_each_window_holds(patch, stride):
    module, image = Linear((H, W)), picture(H, W)
    detector = TinyDetector(module, size=(H, W), mean=MEAN)
    target = [Target(candidate=1, label=0, kind="log_odds")]
    found = explain(detector, target, patch=patch, stride=stride)[0]
    products = (module.weight[1] * (image - image.new_tensor(MEAN).view(3, 1, 1))).sum(0).double().numpy()
    rows, columns = found.values.shape
    for i in range(rows):
        for j in range(columns):
            x, y = (found.scale[k] * (j, i)[k] + found.offset[k] - patch / 2 for k in (0, 1))
            window = products[max(0, int(y)) : int(y) + patch, max(0, int(x)) : int(x) + patch]
            assert found.values[i, j] == pytest.approx(window.sum(), abs=2e-5)
    assert np.isnan(found.gap)
    assert found.full - found.empty == pytest.approx(products.sum(), abs=1e-4)


def test_sp_with_the_mean_equals_sp_g_with_the_hole_fill_mean_bit_for_bit(detector):
    plain, filled = (explain(detector, fill=fill) for fill in (MeanFill(), MeanHole(MEAN)))
    for a, b in zip(plain, filled, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        assert (a.full, a.empty, a.passes) == (b.full, b.empty, b.passes)
        assert a.values.any()


def test_an_empty_hole_and_a_window_that_changes_nothing_give_exactly_zero(detector):
    image = picture(H, W)
    scores = TargetScores(detector, detector.pin(), TARGETS)
    full = scores(image[None]).double().numpy()[0]
    empty = torch.zeros(H, W, dtype=torch.bool)
    hole = empty.clone()
    hole[3:9, 4:11] = True
    paint = painter(BlurHole(2.0), image, detector, 0)
    found, run = drops(scores, image, paint, [empty, hole, empty], full, batch_size=2, precision="fp32")
    assert not found[[0, 2]].any()
    assert found[1].all()
    assert run == 1

    image[:, :, : W // 2] = image.new_tensor(MEAN).view(3, 1, 1)
    right = [Target(candidate=12, label=0)]  # its cell is at x 20..24
    values = explain(detector, right, image=image, patch=4, stride=4)[0]
    inside = values.offset[0] + values.scale[0] * np.arange(values.values.shape[1]) + 2 <= W // 2
    assert not values.values[:, inside].any()
    assert values.values[:, ~inside].any()
    assert values.passes < values.values.size + 2


def test_constant_and_unseen_windows_give_nothing():
    constant = TinyDetector(Constant(connected=False), size=(H, W), mean=MEAN)
    found = explain(constant, [Target(candidate=0, label=0)])[0]
    assert not found.values.any()
    assert not found.evidence
    blind = TinyDetector(IgnoresLeft(), size=(H, W), classes=2, mean=MEAN)
    found = explain(blind, [Target(candidate=0, label=0, kind="log_odds")], patch=4, stride=4)[0]
    unseen = found.offset[0] + found.scale[0] * np.arange(found.values.shape[1]) + 2 <= W // 2
    np.testing.assert_allclose(found.values[:, unseen], 0, atol=1e-6)
    assert np.abs(found.values[:, ~unseen]).max() > 1e-3


class Spot(torch.nn.Module):
    """Log-odds: how bright a spot is, less how bright a distractor is."""

    def forward(self, u):
        value = 8 * u[:, :, 6:10, 3:7].mean((1, 2, 3)) - 4 * u[:, :, 14:18, 18:22].mean((1, 2, 3))
        return value[:, None, None]


def test_a_planted_spot_and_a_planted_culprit_are_found_where_they_are():
    detector = TinyDetector(Spot(), size=(H, W))
    found = explain(detector, [Target(candidate=0, label=0)], image=torch.ones(3, H, W), stride=1)[0]
    for index, (x, y) in ((found.values.argmax(), (5, 8)), (found.values.argmin(), (20, 16))):
        row, column = np.unravel_index(index, found.values.shape)
        assert abs(found.offset[0] + found.scale[0] * column - x) <= 0.5
        assert abs(found.offset[1] + found.scale[1] * row - y) <= 0.5
    assert found.evidence


def test_letterbox_padding_is_left_alone(detector):
    pin = Pin(image_size=(10, 26), input_size=(H, W), scale=(1.0, 1.0), offset=(0.0, 5.0))
    found = explain(detector, pin=pin, patch=4, stride=2)[0]
    assert found.values.shape == (4, 12)
    assert found.offset == (2.0, 7.0)


def test_batches_do_not_matter_and_targets_share_the_passes(detector):
    together = explain(detector, batch_size=7)
    assert isinstance(together[0], GridMap)
    assert sum(detector.forwards) == together[0].passes == together[0].values.size + 2
    for t, target in enumerate(TARGETS):
        alone = explain(detector, [target], batch_size=16)[0]
        np.testing.assert_allclose(alone.values, together[t].values, atol=1e-6)


class NoiseHole:
    """A fill that draws: holes of noise by seed."""

    continuous = False

    def fill(self, image, hole, seed):
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
        return torch.where(hole, noise, image)


def test_a_fill_that_draws_gets_the_seed(detector):
    first, again, other = (explain(detector, fill=NoiseHole(), seed=seed)[0].values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_bad_settings_are_refused_and_the_registry_finds_it():
    with pytest.raises(ConfigError, match="stride: expected a number from 1"):
        SlidingPatch(AttributionOptions(settings={"stride": "0"}))
    assert ATTRIBUTIONS.load("sp") is SlidingPatch
