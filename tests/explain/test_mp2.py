"""MP2: which cells go, in which order, and why it stops."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.mp2 import MP2
from store.records import GridMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Linear, TinyDetector, blocks

SIZE = (16, 16)


def run(detector, fill=None, *, image=None, kind="log_odds", **own) -> GridMap:
    settings = {name: str(value) for name, value in {"cells": 16, **own}.items()}
    return MP2(AttributionOptions(settings=settings)).explain(
        detector,
        torch.ones(3, *SIZE) if image is None else image,
        detector.pin(),
        blocks(*SIZE, 2, 2),
        fill or MeanFill(),
        [Target(candidate=0, label=0, kind=kind)],
        seed=0,
        image_key="i",
    )[0]


def linear() -> tuple[TinyDetector, np.ndarray]:
    """s = <a, u>, baseline 0, image of ones: removing pixel p costs sum_c a_p."""
    module = Linear(SIZE, candidates=1)
    module.weight.data.abs_()
    return TinyDetector(module, size=SIZE), module.weight[0].sum(0).numpy()


def test_two_cells_a_step_in_the_order_of_what_they_cost():
    detector, worth = linear()
    found = run(detector, cap=20 / 256, values="order", chance=1e-9)
    assert found.extra["stopped_by_cap"] == 1.0
    assert found.extra["area"] == pytest.approx(20 / 256)
    best = np.argsort(-worth.ravel())[:20]
    np.testing.assert_array_equal(np.sort(np.flatnonzero(found.values)), np.sort(best))
    np.testing.assert_allclose(found.values.ravel()[best], np.repeat(np.linspace(1, 0.1, 10), 2), atol=1e-6)
    assert found.full == pytest.approx(worth.sum(), abs=1e-3)
    assert found.extra["masked"] == pytest.approx(worth.sum() - worth.ravel()[best].sum(), abs=1e-3)
    assert found.passes == 2 * 11 + 3
    plain = run(detector, cap=20 / 256, chance=1e-9)
    np.testing.assert_array_equal(plain.values, found.values > 0)


class Plateau(nn.Module):
    """1 as long as half of the picture is bright, less below: no gradient at the clean image."""

    def forward(self, u):
        return 1 - torch.relu(0.5 - u.mean((1, 2, 3)))[:, None, None]


def test_it_stops_where_nothing_is_left_to_lower():
    detector, _ = linear()
    weight = detector.module.weight.data
    weight.zero_()
    weight[:, :, 4:6, 4:8] = 0.2
    found = run(detector, cap=1, chance=1e-9)
    assert found.extra["stopped_by_score"] == 1.0
    assert found.extra["masked"] == found.empty == 0
    assert found.values.sum() == found.values[4:6, 4:8].sum() == 8
    weight *= -1  # the clean image already scores below the baseline
    already = run(detector, cap=1, chance=1e-9)
    assert already.extra["stopped_by_score"] == 1.0
    assert not already.values.any()
    assert already.evidence is False
    flat = run(TinyDetector(Plateau(), size=SIZE, values="probability"), kind="probability")
    assert flat.extra["stopped_by_gradient"] == 1.0
    assert flat.passes == 2 + 3
    assert not flat.values.any()
    assert flat.evidence is False


def test_no_cell_that_raises_the_score_is_removed():
    module = Linear(SIZE, candidates=1)
    module.weight.data[:, :, :8] = 0.01
    module.weight.data[:, :, 8:] = -0.03
    fill = MeanHole((2.0, 2.0, 2.0))  # twice as bright: hiding raises what is above, lowers what is below
    found = run(TinyDetector(module, size=SIZE), fill, cap=1, chance=1e-9)
    assert not found.values[:8].any()
    assert found.values[8:].any()
    assert found.extra["stopped_by_score"] == 1.0


def test_a_probability_stops_at_chance():
    module = Linear(SIZE, candidates=1)
    module.weight.data[:] = 0
    module.weight.data[:, :, 4:8, 4:8] = 0.2  # 48 values: log-odds 9.6 on, 0 off
    detector = TinyDetector(module, size=SIZE)
    found = run(detector, kind="probability", chance=0.45)
    assert found.empty == pytest.approx(0.5)
    assert found.extra["stopped_by_score"] == 1.0
    assert found.extra["masked"] == pytest.approx(0.5, abs=0.02)
    assert found.values[4:8, 4:8].all()
    assert found.values.sum() == 16
    assert found.evidence is True


def test_holes_are_painted_every_step_or_every_few():
    detector, _ = linear()
    every = run(detector, MeanHole((0.0, 0.0, 0.0)), cap=20 / 256, chance=1e-9)
    seldom = run(detector, MeanHole((0.0, 0.0, 0.0)), cap=20 / 256, chance=1e-9, refresh=5)
    continuous = run(detector, cap=20 / 256, chance=1e-9)
    np.testing.assert_array_equal(every.values, continuous.values)
    np.testing.assert_array_equal(every.values, seldom.values)
    tiles = 49 + 1  # and the image painted all over
    assert every.extra["painted"] == tiles + 10 + 1
    assert seldom.extra["painted"] == tiles + 2 + 1
