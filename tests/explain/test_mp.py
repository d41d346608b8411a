"""Meaningful perturbation, and the frame that MP, MP2 and FIDO share: planted truth, company, evidence."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import BlurFill, LocalMeanHole, MeanFill, MeanHole
from curator.explain.learned_mask import TILES, Infill, composite, upsample
from curator.explain.methods.fido import FIDO
from curator.explain.methods.mp import MeaningfulPerturbation, shift, total_variation
from curator.explain.methods.mp2 import MP2
from curator.registry import ATTRIBUTIONS
from store.records import GridMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, TinyDetector, blocks

SIZE = (32, 48)
QUICK = {
    MeaningfulPerturbation: {"cells": 8, "steps": 60, "jitter": 1, "l1": 1e-2, "tv": 1e-3},
    MP2: {"cells": 8},
    FIDO: {"cells": 8, "steps": 120, "draws": 2, "objective": "deletion"},
}
METHODS = list(QUICK)


class Spot(nn.Module):
    """Two candidates, each the log-odds of the brightness of a square of its own: (B, 2, 1)."""

    def forward(self, u):
        left, right = u[..., 8:16, 6:18].mean((1, 2, 3)), u[..., 16:24, 30:42].mean((1, 2, 3))
        return 12 * torch.stack([left, right], 1)[..., None] - 6


def spots() -> torch.Tensor:
    image = torch.full((3, *SIZE), 0.5)
    image[:, 8:16, 6:18] = 1.0
    image[:, 16:24, 30:42] = 1.0
    return image


def planted(candidate: int) -> np.ndarray:
    truth = np.zeros((8, 8), bool)  # cells of 4 x 6 px
    if candidate == 0:
        truth[2:4, 1:3] = True
    else:
        truth[4:6, 5:7] = True
    return truth


def run(method, detector, targets, fill=None, *, image=None, seed=0, image_key="i", batch_size=16, **own):
    settings = {name: str(value) for name, value in {**QUICK[method], **own}.items()}
    options = AttributionOptions(settings=settings, batch_size=batch_size)
    found: list[GridMap] = method(options).explain(
        detector,
        spots() if image is None else image,
        detector.pin(),
        blocks(*SIZE, 2, 2),
        fill or MeanFill(),
        targets,
        seed=seed,
        image_key=image_key,
    )
    return found


TARGETS = [Target(candidate=0, label=0), Target(candidate=1, label=0)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fill", [MeanFill(), MeanHole((0.0, 0.0, 0.0))])
def test_the_planted_square_is_found(method, fill):
    detector = TinyDetector(Spot(), size=SIZE)
    for target, found in zip(TARGETS, run(method, detector, TARGETS, fill), strict=True):
        truth = planted(target.candidate)
        assert found.values.shape == (8, 8)
        assert found.values.min() >= 0
        assert found.values.max() <= 1
        inside, outside = found.values[truth].mean(), found.values[~truth].mean()
        assert inside > 0.45
        assert inside > 3 * outside
        assert found.full == pytest.approx(1 / (1 + math.exp(-6)), abs=1e-4)
        assert found.empty == pytest.approx(1 / (1 + math.exp(6)), abs=1e-4)
        assert found.extra["masked"] < 0.6
        assert math.isnan(found.gap)
        assert found.evidence is True
        assert found.scale == (6.0, 4.0)
        assert found.offset == (3.0, 2.0)
        assert ("painted" in found.extra) == (not fill.continuous)


@pytest.mark.parametrize("method", METHODS)
def test_company_and_batch_size_change_nothing(method):
    detector = TinyDetector(Spot(), size=SIZE)
    together = run(method, detector, [*TARGETS, TARGETS[0]])
    one_by_one = run(method, detector, [*TARGETS, TARGETS[0]], batch_size=1)
    alone = run(method, detector, TARGETS[:1])[0]
    np.testing.assert_array_equal(together[0].values, together[2].values)
    np.testing.assert_allclose(together[0].values, alone.values, atol=1e-4)
    assert together[0].passes == alone.passes
    for a, b in zip(together, one_by_one, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("connected", [True, False])
def test_a_constant_score_is_no_evidence(method, connected):
    detector = TinyDetector(Constant(connected=connected), size=SIZE, values="probability")
    found = run(method, detector, TARGETS[:1])[0]
    assert found.evidence is False
    assert found.values.max() < 0.5
    assert found.extra["masked"] == pytest.approx(0.3)


def test_mp_counts_its_passes_and_keeps_nothing_where_nothing_matters():
    detector = TinyDetector(Constant(connected=True), size=SIZE, values="probability")
    found = run(MeaningfulPerturbation, detector, TARGETS[:1], steps=40)[0]
    assert not found.values.any()
    assert found.passes == 2 * 40 + 3
    assert sum(detector.forwards) == 40 + 3
    assert found.extra["area"] == 0


def test_mp_is_keyed_by_seed_and_image():
    detector = TinyDetector(Spot(), size=SIZE)
    quick = {"steps": 3, "start": "noise"}
    first = run(MeaningfulPerturbation, detector, TARGETS[:1], **quick)[0].values
    np.testing.assert_array_equal(
        first, run(MeaningfulPerturbation, detector, TARGETS[:1], **quick)[0].values
    )
    for change in ({"seed": 1}, {"image_key": "j"}):
        other = run(MeaningfulPerturbation, detector, TARGETS[:1], **quick, **change)[0].values
        assert (first != other).any()


def test_the_parts_by_hand():
    m = torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])
    assert float(total_variation(m)) == pytest.approx(0.5**3 + 0 + 1 + 0.5**3)
    image = torch.arange(12.0).view(1, 1, 3, 4)
    moved = shift(image, 1, 2)
    np.testing.assert_array_equal(moved[0, 0], [[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]])
    assert torch.equal(shift(image, 0, 0), image)
    x, f = torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    up = upsample(mask, (4, 4))
    assert up[0, 0, 0, 0] == 1
    assert up[0, 0, 3, 3] == 0
    torch.testing.assert_close(composite(x, up, f)[0, :, 0, 0], f[:, 0, 0])
    assert torch.equal(composite(x, up, f)[0, :, 3, 3], x[:, 3, 3])


def test_the_infill_of_hole_fills():
    detector = TinyDetector(Spot(), size=SIZE)
    infill = Infill(MeanHole((0.1, 0.2, 0.3)), spots(), detector, 0)
    assert infill.holes
    assert torch.equal(infill.everything[:, 5, 5], torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(infill.tiles(), infill.everything)
    assert infill.shared == 1 + TILES * TILES
    local = Infill(LocalMeanHole((0.0, 0.0, 0.0), radius=1), spots(), detector, 0)
    assert float(local.tiles()[:, 30, 2].mean()) == pytest.approx(0.5)  # far from both squares
    continuous = Infill(BlurFill(2.0), spots(), detector, 0)
    assert not continuous.holes
    assert continuous.tiles() is continuous.everything


def test_settings_are_checked():
    assert ATTRIBUTIONS.load("mp") is MeaningfulPerturbation
    assert ATTRIBUTIONS.load("mp2") is MP2
    assert ATTRIBUTIONS.load("fido") is FIDO
    for method in METHODS:
        with pytest.raises(ConfigError, match="knows the settings"):
            method(AttributionOptions(settings={"magic": "1"}))
    with pytest.raises(ConfigError, match="steps: expected"):
        MeaningfulPerturbation(AttributionOptions(settings={"steps": "0"}))
