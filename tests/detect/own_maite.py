"""Models that follow maite's protocol, as `maite:own_maite:...` finds them; maite's own types say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import maite.protocols.object_detection as od
import numpy as np
import torch
from maite.protocols import ModelMetadata
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from curator.detect.small_ssd import SsdOptions, make_detector

NAMES = {1: "cup", 2: "plate", 7: "spoon"}  # with gaps, as COCO has them


@dataclass
class Target:
    boxes: Any
    labels: Any
    scores: Any


class Wrapped:
    """torchvision's Faster R-CNN with random weights; pictures in [0, 1]."""

    def __init__(self, seed: str = "0", each: str = "no") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            self.network = fasterrcnn_mobilenet_v3_large_320_fpn(
                weights=None, weights_backbone=None, num_classes=8, min_size=96, max_size=128
            ).eval()
        names = dict.fromkeys(range(1, 8), "n") | NAMES
        self.metadata: ModelMetadata = {"id": "wrapped", "index2label": names}
        self.each = each == "yes"

    def __call__(self, batch: Sequence[od.InputType]) -> Sequence[od.TargetType]:
        found = self.network([torch.as_tensor(np.asarray(image)) for image in batch])
        return [self.target(**answer) for answer in found]

    def target(self, boxes: Any, labels: Any, scores: Any) -> Target:
        if self.each:  # a score per class, of which the label's counts
            rows = np.zeros((len(labels), 7), np.float32)
            rows[np.arange(len(labels)), labels.numpy() - 1] = scores.numpy()
            scores = rows
        return Target(boxes, labels, scores)


wrapped = Wrapped()


class Plain:
    """No torch inside; says what it was given."""

    def __init__(self, bias: str = "0") -> None:
        self.metadata: Any = {"id": "plain"}
        self.bias = float(bias)
        self.seen: list[np.ndarray] = []

    def __call__(self, batch: Sequence[od.InputType]) -> Sequence[od.TargetType]:
        self.seen = [np.asarray(image) for image in batch]
        score = [min(0.99, 0.3 + self.bias + float(image[0].mean()) / 1000) for image in self.seen]
        return [Target([[1, 2, 30, 40]], [1], [value]) for value in score]


plain = Plain()


class Answers:
    """Answers with whatever it is told."""

    def __init__(self) -> None:
        self.metadata: ModelMetadata = {"id": "answers", "index2label": NAMES}
        self.network = make_detector(SsdOptions(classes=("a",), size=96, anchors=(12, 24, 48, 72))).modules()
        self.answer: Any = []

    def __call__(self, batch: Sequence[od.InputType]) -> Any:
        return self.answer


answers = Answers()
number = 3


class Nameless(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = None


class Worded(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"id": "worded", "index2label": {"cup": 0}}
