"""Targets followed by their boxes: where an index means nothing, and where both ways exist."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from curator.detect.base import Candidates
from curator.detect.detr import DetrDetector
from curator.detect.load import load_detector
from curator.errors import InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.segments import slic_segments
from curator.explain.target import LEAST, TargetScores, similarity
from curator.registry import ATTRIBUTIONS
from store.records import SegmentMap

sys.path.append(str(Path(__file__).parents[1] / "detect"))
from tiny_models import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for kind in ("detr", "rt_detr"):
        save_tiny(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (80, 110), mode="bilinear")[0]


def test_the_formula() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.2, 0.9], [0.6, 0.1], [1.0, 1.0]]])
    found = similarity(Candidates(scores, None, boxes), torch.tensor([[0.0, 0, 10, 20]] * 2).double(), [0, 1])
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.45]]))


def test_it_needs_a_box(folder: Path, image: torch.Tensor) -> None:
    detector = load_detector(f"hf:{folder / 'rt_detr'}", "cpu")
    with pytest.raises(InputError, match="expected the targets' boxes"):
        TargetScores(detector, cast(DetrDetector, detector).pin(image), [Target(candidate=0, label=0)])


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_gradients_pass_through_the_best(folder: Path, image: torch.Tensor, kind: str) -> None:
    """Against finite differences along random directions, box and score both moving."""
    detector = cast(DetrDetector, load_detector(f"hf:{folder / kind}", "cpu"))
    ((found, pin),) = detector.predict([image], score_threshold=0.0)
    box = tuple(float(v) for v in found.boxes[1] + [2, 1, -3, 2])
    targets = [
        Target(candidate=int(found.candidates[1]), label=int(found.labels[1]), kind=k, box=box)  # type: ignore[arg-type]
        for k in ("probability", "log_odds")
    ]
    scores = TargetScores(detector, pin, targets, similar=True)
    u = detector.prepare(image, pin)[None].requires_grad_(True)
    both = scores(u)
    assert both.shape == (1, 2)
    torch.testing.assert_close(both[0, 1], torch.logit(both[0, 0], eps=LEAST))
    (gradient,) = torch.autograd.grad(both[0, 0], u)
    assert gradient.abs().max() > 0
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        step = torch.randn(u.shape, generator=draw)
        step = 2e-3 * (step / step.norm() + gradient / gradient.norm())
        with torch.no_grad():
            moved = float((scores(u + step) - scores(u - step))[0, 0])
        assert moved == pytest.approx(float((gradient * step).sum()) * 2, rel=0.15, abs=2e-6)


def test_where_queries_are_drawn_the_box_is_followed(folder: Path, image: torch.Tensor) -> None:
    detector = cast(DetrDetector, load_detector(f"hf:{folder / 'rt_detr'}", "cpu"))
    ((found, pin),) = detector.predict([image], score_threshold=0.0)
    label, box = int(found.labels[0]), tuple(float(v) for v in found.boxes[0])
    target = Target(candidate=int(found.candidates[0]), label=label, box=box)  # type: ignore[arg-type]
    u = detector.prepare(image, pin)
    batch = torch.stack([u, u * 0.5, u.flip(2)])
    scores = TargetScores(detector, pin, [target])(batch)[:, 0]
    assert scores[0] == pytest.approx(float(found.scores[0]), abs=1e-4)
    for row in range(3):
        alone = detector.candidates(batch[row : row + 1], pin)
        own = similarity(alone, torch.tensor([box]).double(), [label])
        assert scores[row] == pytest.approx(float(own[0, 0]), abs=1e-5)


@pytest.mark.parametrize("method", ["e2x", "e2x_kernel", "ig", "odam", "drise"])
def test_every_kind_of_method_explains_it(folder: Path, image: torch.Tensor, method: str) -> None:
    detector = cast(DetrDetector, load_detector(f"hf:{folder / 'rt_detr'}", "cpu"))
    ((found, pin),) = detector.predict([image], score_threshold=0.0)
    box = tuple(float(v) for v in found.boxes[0])
    kind = "probability" if method == "drise" else "log_odds"
    target = Target(
        candidate=int(found.candidates[0]), label=int(found.labels[0]), kind=kind, box=box  # type: ignore[arg-type]
    )
    u = detector.prepare(image, pin)
    made = ATTRIBUTIONS.load(method)(AttributionOptions(samples=8))
    (explained,) = made.explain(
        detector, u, pin, slic_segments(u, pin, 20), MeanFill(), [target], seed=0, image_key="a"
    )
    values = explained.phi if isinstance(explained, SegmentMap) else explained.values
    assert np.isfinite(values).all()
    assert np.abs(values).max() > 0
