"""Candidates from one look: against direct computation on boxes made by hand, and of a black box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curator.boxes import iou
from curator.detect.base import Candidates, Detector
from curator.detect.black_box import BlackBox
from curator.detect.one_pass import OnePass, candidate_boxes, one_pass
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.detect.ssd import SsdDetector
from curator.errors import InputError
from store.records import Pin


def looked(boxes: Tensor, scores: Tensor) -> OnePass:
    pin = Pin(image_size=(100, 100), input_size=(100, 100), scale=(1.0, 1.0))
    candidates = torch.arange(len(boxes))
    u = torch.zeros(3, 100, 100)
    return OnePass(pin=pin, u=u, boxes=boxes, scores=scores, candidates=candidates, features={})


def random_boxes(count: int, spread: float) -> Tensor:
    numbers = torch.Generator().manual_seed(count)
    low = 30 + spread * torch.rand(count, 2, generator=numbers)
    return torch.cat([low, low + 15 + 5 * torch.rand(count, 2, generator=numbers)], 1)


@pytest.mark.parametrize(("count", "spread"), [(300, 40.0), (5000, 30.0), (3000, 1.0)])
def test_candidates_are_the_best_that_repeat_no_better_one(count: int, spread: float) -> None:
    boxes = random_boxes(count, spread)
    scores = torch.rand(count, 7, generator=torch.Generator().manual_seed(1)) ** 4
    found, labels, top = candidate_boxes(looked(boxes, scores), most=12, overlap=0.5, floor=0.1)
    best = scores.amax(1).numpy()
    expected: list[int] = []
    for i in np.argsort(-best, kind="stable"):
        if len(expected) < 12 and best[i] >= 0.1:
            others = boxes[expected].numpy().reshape(-1, 4)
            if not (iou(boxes[i].numpy(), others) > 0.5).any():
                expected.append(int(i))
    np.testing.assert_array_equal(found, boxes[expected].numpy())
    order = np.argsort(-scores[expected].numpy(), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_allclose(top, np.take_along_axis(scores[expected].numpy(), order, 1))
    assert labels.dtype == np.int64
    assert found.dtype == top.dtype == np.float32


def test_fewer_classes_than_five_and_no_candidates() -> None:
    scores = torch.tensor([[0.2, 0.0], [0.00005, 0.00001], [0.3, 0.6]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 90, 90]])
    found, labels, top = candidate_boxes(looked(boxes, scores))
    assert found.tolist() == [[50, 50, 90, 90], [0, 0, 10, 10]]
    assert labels.tolist() == [[1, 0, -1, -1, -1], [0, -1, -1, -1, -1]]
    np.testing.assert_allclose(top, [[0.6, 0.3, 0, 0, 0], [0.2, 0, 0, 0, 0]], rtol=1e-6)
    for count in (0, 2):
        nothing = candidate_boxes(looked(torch.zeros(count, 4), torch.zeros(count, 3)))
        assert [part.shape for part in nothing] == [(0, 4), (0, 5), (0, 5)]


def test_a_black_box_gives_its_detections_alone() -> None:
    def find(images: list[Tensor]) -> list[Any]:
        return [([[10, 10, 60, 70], [0, 0, 30, 30], [5, 5, 5, 9]], [0.4, 0.9, 0.8], [2, 0, 1])] * len(images)

    box = BlackBox(find, ("a", "b", "c"), fingerprint="by hand", spec="mine:x")
    image = torch.rand(3, 80, 90, generator=torch.Generator().manual_seed(0))
    one = one_pass(box, image)
    assert torch.equal(one.u, image)
    assert one.boxes.tolist() == [[0, 0, 30, 30], [10, 10, 60, 70]]
    torch.testing.assert_close(one.scores, torch.tensor([[0.9, 0, 0], [0, 0, 0.4]]))
    assert one.candidates.tolist() == [0, 2]
    assert one.dropped == 1
    assert dict(one.features) == {}
    assert candidate_boxes(one)[1][:, :2].tolist() == [[0, -1], [2, -1]]
    with pytest.raises(InputError, match=r"mine:x's \(none: it is a black box\), got level0"):
        one_pass(box, image, ["level0"])


class Altered:
    """A real detector whose candidates are changed on their way out, as a broken network's would be."""

    def __init__(self, inner: SsdDetector, change: Any) -> None:
        self._inner, self._change = inner, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def candidates(self, u: Tensor, pin: Pin, **options: Any) -> Candidates:
        got = self._inner.candidates(u, pin, **options)
        scores, boxes = got.scores.clone(), got.boxes.clone()
        self._change(scores[0], boxes[0])
        return Candidates(scores, got.log_odds, boxes, got.features)


@pytest.fixture(scope="module")
def detector() -> SsdDetector:
    return make_detector(SsdOptions(classes=("a", "b"), size=96, channels=(8, 8, 16, 16, 16)))


def test_boxes_without_area_are_dropped_and_broken_ones_refused(detector: SsdDetector) -> None:
    image = torch.rand(3, 120, 160, generator=torch.Generator().manual_seed(0))
    whole = one_pass(detector, image)

    def flatten(scores: Tensor, boxes: Tensor) -> None:
        boxes[7] = torch.tensor([50.0, 50, 50.5, 90])
        boxes[9] = torch.tensor([-60.0, 10, 0.5, 90])

    one = one_pass(_detector(Altered(detector, flatten)), image, detector.levels[:1])
    assert one.dropped == whole.dropped + 2
    assert not {7, 9} & set(one.candidates.tolist())

    def scramble(scores: Tensor, boxes: Tensor) -> None:
        scores[3, 1] = float("nan")
        boxes[5, 0] = float("inf")
        scores[6, 0] = -0.5

    with pytest.raises(InputError, match=r"candidates: broken.*box 3 .*finite.*box 5 .*box 6 .*\[0, 1"):
        one_pass(_detector(Altered(detector, scramble)), image)


def test_levels_that_the_detector_has_not_are_refused(detector: SsdDetector) -> None:
    with pytest.raises(InputError, match=r"expected some of .*\(level0, level1, level2.*\), got nowhere"):
        one_pass(detector, torch.rand(3, 50, 50), ["nowhere"])


def _detector(altered: Any) -> Detector:
    found: Detector = altered
    return found
