"""FIDO: both objectives, the Concrete mask, log-odds with and without a detector's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.fido import FIDO, concrete
from curator.tensors import generator
from store.records import GridMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Linear, TinyDetector, blocks

SIZE = (16, 24)


def detector(values: str = "log_odds") -> TinyDetector:
    """Log-odds 8 (probability .2 to 1 otherwise) where the planted 4 x 6 px are white, -4 where black."""
    module = Linear(SIZE, candidates=1)
    module.weight.data[:] = 0
    module.weight.data[:, :, 4:8, 6:12] = (12 if values == "log_odds" else 0.9) / (3 * 4 * 6)
    found = TinyDetector(module, size=SIZE, values=values)
    forward = module.forward
    module.forward = lambda u: forward(u) + (-4 if values == "log_odds" else 0.05)
    return found


def run(found, fill=None, *, seed=0, **own) -> GridMap:
    settings = {"cells": 8, "steps": 150, "draws": 2, "sparsity": 3e-4, **own}
    options = AttributionOptions(settings={name: str(value) for name, value in settings.items()})
    kind = "log_odds" if found.values == "log_odds" else "probability"
    return FIDO(options).explain(
        found,
        torch.ones(3, *SIZE),
        found.pin(),
        blocks(*SIZE, 2, 2),
        fill or MeanFill(),
        [Target(candidate=0, label=0, kind=kind)],
        seed=seed,
        image_key="i",
    )[0]


TRUTH = np.zeros((8, 8), bool)
TRUTH[2:4, 2:4] = True  # cells of 2 x 3 px


@pytest.mark.parametrize("objective", ["preservation", "deletion"])
@pytest.mark.parametrize("values", ["log_odds", "probability"])
def test_both_objectives_find_the_planted_cells(objective, values):
    found = run(detector(values), objective=objective)
    inside, outside = found.values[TRUTH].mean(), found.values[~TRUTH].mean()
    assert inside > 2 * outside
    assert found.evidence is True
    better, worse = (found.full, found.empty) if objective == "preservation" else (found.empty, found.full)
    assert abs(found.extra["masked"] - better) < abs(found.extra["masked"] - worse)
    assert found.passes == 2 * 2 * 150 + 3


def test_holes_are_painted_for_every_draw_of_a_step():
    found = run(detector(), MeanHole((0.0, 0.0, 0.0)), steps=20)
    assert found.extra["painted"] == 1 + 2 * 20 + 1
    seldom = run(detector(), MeanHole((0.0, 0.0, 0.0)), steps=20, refresh=7)
    assert seldom.extra["painted"] == 1 + 2 * 3 + 1
    # a constant fill paints the same everywhere, so neither holes nor their age matter
    np.testing.assert_allclose(found.values, run(detector(), steps=20).values, atol=1e-5)
    np.testing.assert_allclose(found.values, seldom.values, atol=1e-5)


def test_seeds_draw_other_masks():
    first = run(detector(), steps=5).values
    np.testing.assert_array_equal(first, run(detector(), steps=5).values)
    assert (first != run(detector(), steps=5, seed=1).values).any()


def test_concrete_draws_are_nearly_binary_and_keep_with_probability_p():
    noise = torch.rand((4000, 1, 3), generator=generator("noise")).clamp(1e-6, 1 - 1e-6)
    p = torch.tensor([0.2, 0.5, 0.9])
    z = concrete(torch.logit(p).view(1, 1, 3), noise)  # (1, 4000, 1, 3)
    assert z.shape == (1, 4000, 1, 3)
    np.testing.assert_allclose((z > 0.5).float().mean((0, 1, 2)), p, atol=0.03)
    assert float(((z < 0.05) | (z > 0.95)).float().mean()) > 0.8
