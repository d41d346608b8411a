"""The work of a verification: train one arm with one seed, run it over the holdout, compare with the base.

In: labelled training images, each arm's added images, the holdout with its ground truth. Out: per trial plain
figures (`curator.prove.readings.compare`, AP, seconds). The base is evaluated once per worker, in `setup`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from curator.detect.base import Detector, TrainableDetector
from curator.detect.checking import predict_each
from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria, false_positive_causes
from curator.diagnose.metrics import average_precision
from curator.diagnose.work import diagnose_predicted, image_result
from curator.errors import InputError, one_line
from curator.matching import ClassMap, ImageResult, match
from curator.progress import progress
from curator.prove.readings import Base, compare, gather_objects, match_all, unscored
from curator.prove.trainers.fine_tune import Example, FineTuneConfig
from curator.registry import TRAINERS
from curator.tensors import image_tensor
from store.images import read_bytes_as_pixels, read_pixels
from store.keys import content_key
from store.records import Annotation, BoxTuple, Detections, ImageRecord, Pin

STAGE = "verify"
STAGE_VERSION = 5  # 3: the detector's answers are checked; 4: torch's schedule and views; 5: conditions
SCORE_FLOOR = 0.05  # detections of the holdout are computed down to it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImage:
    """A labelled image, by file or by its own bytes (a sample); labels are detector classes."""

    sha256: str
    uri: str = ""
    data: bytes = b""
    boxes: tuple[BoxTuple, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutImage:
    """An image of the holdout.

    Attributes:
        conditions: per annotation its condition, "" for none. condition: the image's.
    """

    image: ImageRecord
    annotations: tuple[Annotation, ...]
    annotation_key: str
    conditions: tuple[str, ...]
    condition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialItem:
    """One arm x one seed. `facts` are carried into the figures."""

    arm: str
    seed: int
    added: tuple[TrainingImage, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """What every arm's training has in common."""

    steps: int
    batch_size: int
    learning_rate: float
    added_weight: float
    precision: Literal["auto", "fp32", "bf16"]


class TrainingFiles:
    """`curator.prove.trainers.fine_tune.TrainingSet` over originals and added images; decodes on demand."""

    def __init__(
        self, originals: Sequence[TrainingImage], added: Sequence[TrainingImage], added_weight: float
    ) -> None:
        self._images = [*originals, *added]
        self.weights: Sequence[float] = [1.0] * len(originals) + [added_weight] * len(added)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        image = self._images[index]
        pixels = (
            read_bytes_as_pixels(image.data) if image.data else read_pixels(image.uri, sha256=image.sha256)
        )
        return Example(
            pixels=pixels,
            boxes=np.array(image.boxes, np.float32).reshape(-1, 4),
            labels=np.array(image.labels, np.int64),
        )


@dataclass(frozen=True, slots=True)
class TrialState:
    """What a worker holds: the base detector and its part of the holdout's comparison."""

    detector: TrainableDetector
    device: str
    base: Base
    figures: dict[str, Any]


@dataclass
class TrialWork:
    """Trains and measures; plain data, so that it can run on another machine (`jobs.base.Work`)."""

    name: str
    spec: str
    fingerprint: str
    classes: ClassMap
    criteria: Criteria
    recipe: TrainingRecipe
    originals: tuple[TrainingImage, ...]
    holdout: tuple[HoldoutImage, ...]
    checkpoints: str
    condition_tag: str | None = None
    predict_batch: int = 16
    batch_size: int = 1

    def key(self, item: TrialItem) -> str:
        """Content key: name, arm, seed, initial weights, training parts, holdout, thresholds, recipe."""
        mapping = [
            (label, self.classes.categories[c]) for label, c in enumerate(self.classes.of_label) if c >= 0
        ]
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.name,
            item.arm,
            item.seed,
            self.fingerprint,
            mapping,
            self.criteria,
            self.recipe,
            _digest(self.originals),
            _digest(item.added),
            [(h.image.sha256, h.annotation_key, h.conditions, h.condition) for h in self.holdout],
            self.condition_tag,
        )

    def setup(self, device: str) -> TrialState:
        """Load the detector and evaluate the base.

        Raises:
            InputError: the detector cannot be trained.
        """
        detector = load_detector(self.spec, device)
        if not isinstance(detector, TrainableDetector):
            raise InputError(
                f"{self.spec}: cannot be trained here (no loss); verify needs a torchvision: or curator: "
                "detector. Export the data set and train with your own framework instead"
            )
        base, figures = evaluate_base(detector, self.holdout, self.classes, self.criteria, self.predict_batch)
        return TrialState(detector, device, base, figures)

    def process(self, state: TrialState, batch: Sequence[TrialItem]) -> list[dict[str, Any]]:
        """Figures of each trial."""
        return [self._trial(state, item) for item in batch]

    def _trial(self, state: TrialState, item: TrialItem) -> dict[str, Any]:
        start = time.monotonic()
        folder = Path(self.checkpoints) / self.key(item)[:16]
        recipe = self.recipe
        settings = FineTuneConfig(
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            precision=recipe.precision,
            learning_rate=recipe.learning_rate,
            seed=item.seed,
            device=state.device,
        )
        files = TrainingFiles(self.originals, item.added, recipe.added_weight)
        trained, losses = TRAINERS.load("builtin")(
            state.detector, files, settings, checkpoint=folder / "checkpoint.safetensors"
        )
        trained_at = time.monotonic()
        found = [
            d
            for d, _ in predict(
                trained,
                [h.image for h in self.holdout],
                self.predict_batch,
                label=f"holdout of {item.arm} {item.seed}",
            )
        ]
        results = _results(self.holdout, found, self.classes)
        comparison = compare(
            state.base, match_all(results, iou_threshold=self.criteria.iou), floor=SCORE_FLOOR
        )
        precisions = average_precision(results, self.classes.categories, iou_threshold=self.criteria.iou)
        shutil.rmtree(folder, ignore_errors=True)
        return {
            **item.facts,
            **comparison,
            "ap50": mean_precision(precisions, self.classes),
            "ap50_per_class": precisions,
            "unscored_conditions": unscored(comparison),
            "base": state.figures,
            "steps": recipe.steps,
            "final_loss": float(np.mean(losses[-20:])),
            "train_seconds": round(trained_at - start, 2),
            "predict_seconds": round(time.monotonic() - trained_at, 2),
        }


def _digest(images: Sequence[TrainingImage]) -> str:
    return content_key([(i.sha256, i.boxes, i.labels) for i in images])


def mean_precision(precisions: Mapping[str, float], classes: ClassMap) -> float | None:
    """Mean AP over the classes that the detector can produce and the holdout shows."""
    values = [value for name, value in precisions.items() if name not in classes.missing]
    return float(np.mean(values)) if values else None


def _results(
    holdout: Sequence[HoldoutImage], found: Sequence[Detections], classes: ClassMap
) -> list[ImageResult]:
    return [image_result(h.annotations, d, classes) for h, d in zip(holdout, found, strict=True)]


def predict(
    detector: Detector, images: Sequence[ImageRecord], batch_size: int, *, label: str
) -> Iterator[tuple[Detections, Pin]]:
    """Detections of images, batch by batch; two threads decode one batch ahead.

    Raises:
        ImageError, CorruptionError: a holdout image that cannot be read stops the verification.
        InputError: so does one on which the detector's answer is broken.
    """
    module = detector.modules()
    parameter = next(module.parameters(), None) if module is not None else None
    decode: Callable[[ImageRecord], Any] = lambda image: read_pixels(image.uri, sha256=image.sha256)  # noqa: E731
    starts = range(0, len(images), batch_size)
    with ThreadPoolExecutor(2) as pool, progress(label, len(images)) as advance:
        ahead = [pool.submit(decode, image) for image in images[:batch_size]]
        for start in starts:
            pixels = [future.result() for future in ahead]
            ahead = [
                pool.submit(decode, image) for image in images[start + batch_size : start + 2 * batch_size]
            ]
            tensors = [image_tensor(p) for p in pixels]
            if parameter is not None:
                tensors = [tensor.to(parameter.device) for tensor in tensors]
            answers = predict_each(detector, tensors, score_threshold=SCORE_FLOOR)
            for image, answer in zip(images[start : start + batch_size], answers, strict=True):
                if isinstance(answer, Exception):
                    raise InputError(f"{image.uri}: {one_line(answer)}") from answer
                yield answer.detections, answer.pin
            advance(len(pixels))


def evaluate_base(
    detector: Detector,
    holdout: Sequence[HoldoutImage],
    classes: ClassMap,
    criteria: Criteria,
    batch_size: int,
) -> tuple[Base, dict[str, Any]]:
    """The base's failures with their causes, and its figures as plain JSON."""
    found = list(predict(detector, [h.image for h in holdout], batch_size, label="holdout of the base"))
    results = _results(holdout, [d for d, _ in found], classes)
    matched = match_all(results, iou_threshold=criteria.iou)
    judged, low = diagnose_predicted(
        detector, [(h.image, h.annotations) for h in holdout], found, classes, criteria
    )
    causes = {
        cast(int, o.annotation_id): o.cause or "" for outcomes in judged for o in outcomes if o.kind == "FN"
    }
    producible = np.isin(np.arange(len(classes.categories)), classes.of_label)
    objects = gather_objects([r.truth for r in results], [h.conditions for h in holdout], causes, producible)
    base = Base(
        objects=objects,
        matched=matched,
        threshold=criteria.score,
        images=len(holdout),
        false_cause=_false_causes(results, criteria),
        categories=classes.categories,
        false_condition=np.array([holdout[i].condition for i in matched.image], dtype=np.str_),
    )
    precisions = average_precision(results, classes.categories, iou_threshold=criteria.iou)
    found_now = matched.found_at >= criteria.score
    return base, {
        "images": len(holdout),
        "objects": int(objects.counted.sum()),
        "found": int((found_now & objects.counted).sum()),
        "missed": int((~found_now & objects.counted).sum()),
        "false": base.false_count,
        "false_per_image": base.false_count / max(len(holdout), 1),
        "threshold": criteria.score,
        "low_score": low,
        "ap50": mean_precision(precisions, classes),
        "ap50_per_class": precisions,
    }


def _false_causes(results: Sequence[ImageResult], criteria: Criteria) -> Any:
    """TIDE causes in the order of `match_all`'s false positives; "" below the score threshold."""
    causes: list[str] = []
    for result in results:
        everything = match(
            result.boxes, result.scores, result.classes, result.truth, iou_threshold=criteria.iou
        )
        named = false_positive_causes(
            everything,
            result.classes,
            result.truth,
            iou_threshold=criteria.iou,
            background_iou=criteria.background_iou,
        )
        causes += [
            named[i][0] if result.scores[i] >= criteria.score else ""
            for i in np.flatnonzero(everything.false_positive).tolist()
        ]
    return np.array(causes, dtype=np.str_)
