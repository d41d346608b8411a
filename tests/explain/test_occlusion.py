"""Occlusion: exact for what one segment does alone, blind to redundancy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import make_fill
from curator.explain.methods.occlusion import Occlusion
from curator.explain.methods.shapley import ExactShapley
from store.records import SegmentMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Constant, Linear, TinyDetector, blocks, picture

H, W = 16, 24


class EitherSide(nn.Module):
    """1 while anything is left on the left or on the right."""

    def forward(self, u: Tensor) -> Tensor:
        moved = (u - u.new_tensor([0.4, 0.5, 0.6]).view(3, 1, 1)).abs().amax((1, 2)) > 0.01  # (B, W)
        return torch.maximum(moved[:, : W // 2].any(1), moved[:, W // 2 :].any(1)).float()[:, None, None]


def run(module, segments, method=Occlusion, fill="mean") -> SegmentMap:
    detector = TinyDetector(module, size=(H, W), mean=(0.4, 0.5, 0.6))
    return method(AttributionOptions()).explain(
        detector,
        picture(H, W),
        detector.pin(),
        segments,
        make_fill(fill, detector, method="occlusion", takes=Occlusion.takes),
        [Target(candidate=0, label=0, kind="log_odds")],
        seed=0,
        image_key="image",
    )[0]


def test_a_linear_score_is_attributed_as_by_shapley_and_a_constant_one_gives_nothing() -> None:
    segments = blocks(H, W, 3, 4)
    found, exact = run(Linear((H, W)), segments), run(Linear((H, W)), segments, ExactShapley)
    np.testing.assert_allclose(found.phi, exact.phi, atol=1e-4)
    assert abs(found.gap) < 1e-3
    assert found.passes == 14
    assert not run(Constant(connected=True), segments).phi.any()


def test_redundant_segments_get_nothing_and_the_gap_says_so() -> None:
    found = run(EitherSide(), blocks(H, W, 1, 2))
    assert not found.phi.any()
    assert found.gap == found.full - found.empty == 1.0
    assert not found.evidence


def test_a_hole_fill_takes_part() -> None:
    segments = blocks(H, W, 3, 4)
    assert (run(Linear((H, W)), segments, fill="biharmonic").phi != run(Linear((H, W)), segments).phi).any()


def test_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="patch"):
        Occlusion(AttributionOptions(settings={"patch": "3"}))
