"""ODAM: by hand on a tiny network with two levels, and the candidate's own level on real pyramids."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curator.detect.base import Candidates, FeatureMap
from curator.detect.load import load_detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.methods.odam import ODAM, own_level
from curator.registry import ATTRIBUTIONS
from curator.tensors import generator
from store.records import GridMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Convolutional, TinyDetector, blocks, picture

SIZE = (32, 48)


class TwoLevels(nn.Module):
    """A stride-4 level and a stride-8 level above it; a 3 x 3 head on each: (B, 96 + 24, 1) log-odds."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 5, 4, stride=4)
        self.coarse = nn.Conv2d(5, 5, 4, stride=2, padding=1)
        self.head = nn.Conv2d(5, 1, 3, padding=1)
        numbers = generator("two levels")
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=numbers) * 0.5

    def levels(self, u):
        fine = torch.relu(self.fine(u))
        return fine, torch.relu(self.coarse(fine))

    def forward(self, u):
        maps = self.levels(u)
        return torch.cat([self.head(values).flatten(1) for values in maps], 1)[..., None]


class Layered(TinyDetector):
    """TwoLevels with its feature levels shown."""

    levels = ("fine", "coarse")

    def __init__(self) -> None:
        super().__init__(TwoLevels(), size=SIZE)

    def candidates(self, u, pin, *, index=None, levels=()):
        maps = self.module.levels(u)
        values = torch.cat([self.module.head(m).flatten(1) for m in maps], 1)[..., None]
        values = values if index is None else values[:, index]
        boxes = u.new_zeros(*values.shape[:2], 4)
        affines = {"fine": ((4.0, 4.0), (2.0, 2.0)), "coarse": ((8.0, 8.0), (4.0, 4.0))}
        features = {name: FeatureMap(maps[self.levels.index(name)], *affines[name]) for name in levels}
        return Candidates(values.sigmoid(), values, boxes, features)


def run(detector, image, targets, **own) -> list[GridMap]:
    options = AttributionOptions(settings={name: str(value) for name, value in own.items()})
    return ODAM(options).explain(
        detector, image, detector.pin(), blocks(*SIZE, 2, 2), MeanFill(), targets, seed=0, image_key=""
    )


def test_the_map_is_the_products_of_gradient_and_activation_on_the_candidates_level():
    detector, image = Layered(), picture(*SIZE)
    fine, coarse = detector.module.levels(image[None])
    kernel = detector.module.head.weight[0]  # (5, 3, 3): ds/dA around the candidate's cell
    cases = [(5 * 12 + 7, fine, 5, 7, 4.0, 0), (96 + 2 * 6 + 3, coarse, 2, 3, 8.0, 1)]
    targets = [Target(candidate=case[0], label=0, kind="log_odds") for case in cases]
    for found, (candidate, values, i, j, stride, level) in zip(
        run(detector, image, targets), cases, strict=True
    ):
        expected = np.zeros(values.shape[2:], np.float32)
        window = (kernel * values[0, :, i - 1 : i + 2, j - 1 : j + 2]).sum(0).clamp(min=0)
        expected[i - 1 : i + 2, j - 1 : j + 2] = window.numpy()
        np.testing.assert_allclose(found.values, expected, atol=1e-5)
        assert found.scale == (stride, stride)
        assert found.offset == (stride / 2, stride / 2)
        assert found.extra == {"level": level}
        assert found.passes == 2
        assert math.isnan(found.gap)
        score = detector.module(image[None])[0, candidate, 0]
        assert found.full == pytest.approx(float(score), abs=1e-5)
        assert found.evidence == (found.values.max() > 1e-2)


def test_one_forward_for_all_targets_and_the_same_map_alone():
    detector, image = Layered(), picture(*SIZE, seed=2)
    targets = [Target(candidate=c, label=0) for c in (3, 60, 110, 60)]
    together = run(detector, image, targets)
    for target, found in zip(targets, together, strict=True):
        np.testing.assert_allclose(run(detector, image, [target])[0].values, found.values, atol=1e-7)
        assert (found.values >= 0).all()


def test_a_named_level_and_smoothing():
    detector, image = Layered(), picture(*SIZE)
    target = [Target(candidate=100, label=0, kind="log_odds")]
    assert run(detector, image, target, level="fine")[0].values.shape == (8, 12)
    plain, smooth = run(detector, image, target)[0], run(detector, image, target, smooth=1)[0]
    assert (smooth.values > 0).sum() > (plain.values > 0).sum()
    with pytest.raises(ConfigError, match=r"feature level of .* \(fine, coarse\), got middle"):
        run(detector, image, target, level="middle")
    with pytest.raises(ConfigError, match="it has none"):
        run(TinyDetector(Convolutional(), size=SIZE, classes=2), image, target)
    with pytest.raises(ConfigError, match="smooth"):
        run(detector, image, target, smooth=0.1)
    assert ATTRIBUTIONS.load("odam") is ODAM


@pytest.mark.parametrize("top_down", [0, 1])
def test_the_own_level_of_an_ssds_anchors(top_down):
    detector = load_detector(
        f"curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5&top_down={top_down}", "cpu"
    )
    stored = picture(96, 96)
    pin = detector.predict([stored], score_threshold=0.9)[0][1]
    image = detector.prepare(stored, pin)
    cells = [12 * 12, 6 * 6, 3 * 3]
    per_cell = detector.candidates(image[None], pin).scores.shape[1] // sum(cells)
    ends = np.cumsum(cells) * per_cell
    numbers = np.random.default_rng(0)
    picked = [0, int(ends[0]) - 1, int(ends[0]), int(ends[1]) - 1, int(ends[1]), int(ends[2]) - 1]
    picked += numbers.integers(0, ends[-1], 12).tolist()
    targets = [Target(candidate=c, label=0, kind="log_odds") for c in picked]
    found = ODAM().explain(
        detector, image, pin, blocks(96, 96, 2, 2), MeanFill(), targets, seed=0, image_key=""
    )
    expected = np.searchsorted(ends, picked, side="right").tolist()
    assert [int(one.extra["level"]) for one in found] == expected


def test_no_gradient_no_evidence():
    nothing = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
    assert own_level(nothing) == 0
    everything = [torch.ones(1, 2, 4, 4), torch.ones(1, 2, 2, 2)]
    assert own_level(everything) == 1
    detector = Layered()
    detector.module.head.weight.data.zero_()
    found = run(detector, picture(*SIZE), [Target(candidate=3, label=0)])[0]
    assert not found.values.any()
    assert found.evidence is False
