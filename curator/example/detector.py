"""Train the detector that the built-in example ships, or its rivals: `curator example train-detector`.

In: rendered clean scenes (role train, renderer seed of their own). Out: weights of a small SSD, RetinaNet,
FCOS or Faster R-CNN, and its recall and precision on other clean scenes. No gap is ever shown.

The SSD starts from fresh weights; the others start from the shipped SSD's backbone, which spares most of
their time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from curator.detect import small_pyramid
from curator.detect.base import Detector, TrainableDetector
from curator.detect.checking import predict_all
from curator.detect.small_ssd import BUILTIN, SsdOptions, make_detector
from curator.example.dataset import GapRates, scenes
from curator.example.flowers import CLASSES
from curator.example.scene import RenderedScene
from curator.example.settings import SCHEDULES, ExampleDetectorConfig
from curator.prove.trainers.fine_tune import Example, FineTuneConfig, fine_tune
from curator.tensors import image_tensor

RENDERER_SEED = 740_003
"""Of the training scenes; benchmarks and the demo draw theirs elsewhere."""


class RenderedScenes:
    """A `fine_tune.TrainingSet` over rendered scenes, kept in memory (110 kB each at 192 px)."""

    def __init__(self, rendered: Sequence[RenderedScene], weights: Sequence[float] | None = None) -> None:
        self._examples = [example_of(scene) for scene in rendered]
        self.weights = weights or [1.0] * len(self._examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def example_of(scene: RenderedScene) -> Example:
    """A scene as a training example; labels index `CLASSES`."""
    return Example(
        pixels=scene.pixels,
        boxes=np.array([a.box for a in scene.annotations], np.float32).reshape(-1, 4),
        labels=np.array([CLASSES.index(a.category) for a in scene.annotations], np.int64),
    )


def train_example_detector(config: ExampleDetectorConfig) -> dict[str, Any]:
    """Render, train, save, check.

    Returns:
        {"out", "family", "steps", "seconds", "loss_last", "recall", "precision", "fingerprint"}: recall and
        precision at IoU 0.5 and score 0.5, seconds of rendering and training.
    """
    start = time.monotonic()
    data = RenderedScenes(list(scenes("train", config.scenes, seed=RENDERER_SEED)))
    steps, learning_rate = SCHEDULES[config.family]
    settings = FineTuneConfig(
        steps=config.steps or steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate or learning_rate,
        seed=config.seed,
        batch_norm="train",
        device=config.device,
    )
    trained, losses = fine_tune(_fresh(config), data, settings)
    seconds = time.monotonic() - start
    trained.save(config.out)
    clean = list(scenes("holdout", 200, seed=RENDERER_SEED, rates=GapRates(holdout=0.0)))
    found = [hits(trained, scene) for scene in clean]
    right, missed, false = (sum(counts) for counts in zip(*found, strict=True))
    return {
        "out": str(config.out),
        "family": config.family,
        "steps": len(losses),
        "seconds": round(seconds, 1),
        "loss_last": float(np.mean(losses[-50:])),
        "recall": right / max(right + missed, 1),
        "precision": right / max(right + false, 1),
        "fingerprint": trained.fingerprint,
    }


def _fresh(config: ExampleDetectorConfig) -> TrainableDetector:
    """The untrained detector of a family."""
    if config.family == "ssd":
        return make_detector(SsdOptions(classes=CLASSES, match_iou=config.match_iou), seed=config.seed)
    return small_pyramid.make_detector(
        config.family,
        small_pyramid.PyramidOptions(classes=CLASSES),
        seed=config.seed,
        backbone_weights=BUILTIN,
    )


def hits(detector: Detector, scene: RenderedScene, *, threshold: float = 0.5) -> tuple[int, int, int]:
    """Objects found, objects missed and false detections of one scene, at IoU 0.5."""
    answers = predict_all(detector, [image_tensor(scene.pixels)], score_threshold=threshold)
    detections = answers[0].detections
    free = np.ones(len(scene.annotations), bool)
    boxes: NDArray[np.float64] = np.array([a.box for a in scene.annotations]).reshape(-1, 4)
    names = np.array([a.category for a in scene.annotations])
    for box, label in zip(detections.boxes, detections.labels, strict=True):
        overlap = np.where(free & (names == CLASSES[int(label)]), iou(box[None], boxes)[0], 0.0)
        if overlap.size and overlap.max() >= 0.5:
            free[overlap.argmax()] = False
    found = int((~free).sum())
    return found, int(free.sum()), len(detections) - found
