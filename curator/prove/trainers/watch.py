"""Average precision while a detector is trained: of labelled images that the training does not see.

In: the images, and how often to look. Out: (step, AP50) pairs. Looking changes nothing: weights, statistics
and random draws stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from curator.detect.base import TrainableDetector
from curator.detect.checking import predict_each
from curator.diagnose.metrics import average_precision
from curator.matching import GroundTruth, ImageResult
from curator.progress import say
from curator.prove.training_data import TrainingFiles, TrainingImage
from curator.tensors import image_tensor

BATCH = 16
FLOOR = 0.05  # scores below it hardly change AP


@dataclass
class Watch:
    """Looks every `every` steps, and at the last.

    Attributes:
        images: labelled; an image that cannot be read is left out. seen: what was found, (step, AP50).
    """

    images: Sequence[TrainingImage]
    every: int
    seen: list[tuple[int, float]] = field(default_factory=list)

    def due(self, step: int, last: int) -> bool:
        """Is it time to look after `step` steps?"""
        return bool(self.images) and (step % self.every == 0 or step == last)

    @torch.no_grad()
    def look(self, detector: TrainableDetector, step: int) -> float:
        """AP50, the mean over the detector's classes that the images hold; nan where they hold none."""
        network = detector.modules()
        training = network is not None and network.training
        parameter = next(network.parameters(), None) if network is not None else None
        device = torch.device("cpu") if parameter is None else parameter.device
        if network is not None:
            network.eval()
        files, results = TrainingFiles(self.images, (), 1.0), []
        for start in range(0, len(files), BATCH):
            shown = [files[i] for i in range(start, min(start + BATCH, len(files)))]
            tensors = [image_tensor(example.pixels).to(device) for example in shown]
            answers = predict_each(detector, tensors, score_threshold=FLOOR)
            for example, answer in zip(shown, answers, strict=True):
                if isinstance(answer, Exception):
                    continue
                count = len(example.labels)
                truth = GroundTruth(
                    example.boxes.astype(np.float64), example.labels, np.zeros(count, bool), np.arange(count)
                )
                found = answer.detections
                results.append(
                    ImageResult(
                        truth,
                        np.asarray(found.boxes, np.float64),
                        np.asarray(found.scores, np.float64),
                        np.asarray(found.labels, np.int64),
                    )
                )
        if training and network is not None:
            network.train()
        values = list(average_precision(results, detector.classes).values())
        precision = float(np.mean(values)) if values else float("nan")
        self.seen.append((step, precision))
        say(f"train: step {step}: AP50 {precision:.3f} on {len(self.images)} mined images")
        return precision
