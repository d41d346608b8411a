"""The work of a verification: train one arm with one seed, run it over the holdout, compare with the base.

In: labelled training images, each arm's added images, the holdout with its ground truth. Out: per trial plain
figures (`curator.prove.readings.compare`, AP, seconds). The base is evaluated once per worker, in `setup`.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from curator.detect.base import Detector
from curator.detect.checking import predict_each
from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria, false_positive_causes
from curator.diagnose.metrics import average_precision, precision_and_recall
from curator.diagnose.work import diagnose_predicted, image_result
from curator.errors import InputError, one_line
from curator.matching import ClassMap, ImageResult, match
from curator.progress import progress, say
from curator.prove.readings import (
    FEWEST,
    Base,
    Matched,
    Objects,
    calibration_error,
    compare,
    gather_objects,
    match_all,
    unscored,
)
from curator.prove.statistics import smallest_effect
from curator.prove.trainers.base import Trainer, TrainerSettings, load_trainer
from curator.prove.training_data import TrainingFiles, TrainingImage, TrainingRecipe, digest
from curator.tensors import image_tensor
from store.images import read_pixels
from store.keys import content_key
from store.records import Annotation, Detections, ImageRecord, Pin

STAGE = "verify"
STAGE_VERSION = 6  # 4: torch's schedule and views; 5: conditions; 6: trainers, fates of objects
SAID = 12  # conditions that are named before training
SCORE_FLOOR = 0.05  # detections of the holdout are computed down to it


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutImage:
    """An image of the holdout.

    Attributes:
        conditions: per annotation its condition, "" for none. condition: the image's.
        cluster: the video or place that it shares with other images, else its hash.
        labelled: classes that its labels speak of; None for all.
    """

    image: ImageRecord
    annotations: tuple[Annotation, ...]
    annotation_key: str
    conditions: tuple[str, ...]
    condition: str
    cluster: str
    labelled: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialItem:
    """One arm x one seed. `facts` are carried into the figures."""

    arm: str
    seed: int
    added: tuple[TrainingImage, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrialState:
    """What a worker holds: the base detector and its part of the holdout's comparison."""

    detector: Detector
    trainer: Trainer
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
    trainer: TrainerSettings
    identity: Any
    originals: tuple[TrainingImage, ...]
    holdout: tuple[HoldoutImage, ...]
    checkpoints: str
    condition_tag: str | None = None
    predict_batch: int = 16
    batch_size: int = 1

    def key(self, item: TrialItem) -> str:
        """Content key: name, arm, seed, initial weights, training parts, holdout, thresholds, recipe."""
        return content_key(
            STAGE,
            STAGE_VERSION,
            self.name,
            item.arm,
            item.seed,
            self.fingerprint,
            self.classes.pairs(),
            self.criteria,
            self.recipe,
            self.identity,
            self._originals_key,
            digest(item.added),
            [(h.image.sha256, h.annotation_key, h.conditions, h.condition) for h in self.holdout],
            self.condition_tag,
            *self._not_judged,
        )

    @cached_property
    def _originals_key(self) -> str:
        return digest(self.originals)

    @cached_property
    def _not_judged(self) -> list[list[tuple[str, tuple[str, ...]]]]:
        """Classes that are not judged, by holdout image; [] where all are."""
        found = {h.image.sha256: self.classes.unlabelled(h.labelled) for h in self.holdout}
        return [sorted(found.items())] if any(found.values()) else []

    def setup(self, device: str) -> TrialState:
        """Load the detector and evaluate the base.

        Raises:
            InputError: the detector cannot be trained.
        """
        detector = load_detector(self.spec, device)
        trainer = load_trainer(self.trainer, detector)
        base, figures = evaluate_base(detector, self.holdout, self.classes, self.criteria, self.predict_batch)
        size = f"{figures['images']} images with {figures['missed']} missed objects"
        say(f"holdout: {size}; {can_show(figures)}")
        if missed := figures["missed_by_condition"]:
            most = sorted(missed.items(), key=lambda entry: (-entry[1], entry[0]))
            told = [f"{name} {count}{'' if count >= FEWEST else ' *'}" for name, count in most[:SAID]]
            told += [f"and {len(most) - SAID} more"] if len(most) > SAID else []
            few = f" (* fewer than {FEWEST}: not read apart)" if min(missed.values()) < FEWEST else ""
            say(f"missed objects by condition: {', '.join(told)}{few}")
        return TrialState(detector, trainer, device, base, figures)

    def process(self, state: TrialState, batch: Sequence[TrialItem]) -> list[dict[str, Any]]:
        """Figures of each trial, and under "fates" and "base_fates" what `fates` keeps."""
        return [self._trial(state, item) for item in batch]

    def _trial(self, state: TrialState, item: TrialItem) -> dict[str, Any]:
        start = time.monotonic()
        folder = Path(self.checkpoints) / self.key(item)[:16]
        recipe = self.recipe
        files = TrainingFiles(self.originals, item.added, recipe.added_weight)
        trained = state.trainer.train(
            state.detector, files, folder, recipe=recipe, seed=item.seed, device=state.device
        )
        trained_at = time.monotonic()
        found = [
            d
            for d, _ in predict(
                trained.detector,
                [h.image for h in self.holdout],
                self.predict_batch,
                label=f"holdout of {item.arm} {item.seed}",
            )
        ]
        classes = self.classes.reordered(state.detector.classes, trained.detector.classes)
        results = _results(self.holdout, found, classes)
        matched = match_all(results, iou_threshold=self.criteria.iou)
        comparison = compare(state.base, matched, floor=SCORE_FLOOR)
        shutil.rmtree(folder, ignore_errors=True)
        return {
            **item.facts,
            **comparison,
            **quality(results, matched, state.base.objects, self.classes, self.criteria.iou),
            "unscored_conditions": unscored(comparison),
            "base": state.figures,
            "fates": matched,
            "base_fates": state.base,
            "steps": recipe.steps,
            "training": dict(trained.figures),
            "train_seconds": round(trained_at - start, 2),
            "predict_seconds": round(time.monotonic() - trained_at, 2),
        }


def short_arms(items: Sequence[TrialItem]) -> list[str]:
    """A line for every arm that adds fewer images than were asked for."""
    added = {
        item.arm: (len(item.added), item.facts["budget"])
        for item in items
        if item.arm != "nothing" and len(item.added) < item.facts["budget"]
    }
    return [
        f"{arm} adds {count} images where {budget} were asked for, so it is not compared at equal numbers"
        for arm, (count, budget) in added.items()
    ]


def can_show(base: Mapping[str, Any]) -> str:
    """What the base's figures say of the differences that its holdout can show."""
    smallest = base.get("smallest_effect")
    if smallest is None:
        return "the base misses nothing here, so no arm can fix anything"
    if smallest > 1:
        return "too few to show any difference between two arms"
    return f"a difference between two arms of {smallest:.2f} or more of them can be shown"


def quality(
    results: Sequence[ImageResult], matched: Matched, objects: Objects, classes: ClassMap, iou: float
) -> dict[str, Any]:
    """A detector's quality on the holdout, whatever the base: plain figures.

    Returns:
        "ap50" and "ap50_per_class" (at `iou`); "ap", "ar", "ap_per_class", "ar_per_class" (means over the IoU
        .5 to .95); "calibration_error" of detections from `SCORE_FLOOR` on.
    """
    at_one = average_precision(results, classes.categories, iou_threshold=iou)
    over_many = precision_and_recall(results, classes.categories)
    precision = {name: values[0] for name, values in over_many.items()}
    recall = {name: values[1] for name, values in over_many.items()}
    error = calibration_error(objects, matched)
    return {
        "ap50": mean_precision(at_one, classes),
        "ap50_per_class": at_one,
        "ap": mean_precision(precision, classes),
        "ap_per_class": precision,
        "ar": mean_precision(recall, classes),
        "ar_per_class": recall,
        "calibration_error": None if np.isnan(error) else error,
    }


def mean_precision(precisions: Mapping[str, float], classes: ClassMap) -> float | None:
    """Mean over the classes that the detector can produce and the holdout shows."""
    values = [value for name, value in precisions.items() if name not in classes.missing]
    return float(np.mean(values)) if values else None


def _results(
    holdout: Sequence[HoldoutImage], found: Sequence[Detections], classes: ClassMap
) -> list[ImageResult]:
    return [image_result(h.annotations, d, classes, h.labelled) for h, d in zip(holdout, found, strict=True)]


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
        detector, [(h.image, h.annotations, h.labelled) for h in holdout], found, classes, criteria
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
    found_now = matched.found_at >= criteria.score
    clusters = np.array([h.cluster for h in holdout])[objects.image[objects.counted & ~found_now]]
    missed = Counter(objects.condition[objects.counted & ~found_now].tolist())
    smallest = smallest_effect(np.unique(clusters, return_counts=True)[1].tolist())
    return base, {
        "images": len(holdout),
        "objects": int(objects.counted.sum()),
        "found": int((found_now & objects.counted).sum()),
        "missed": int((~found_now & objects.counted).sum()),
        "missed_by_condition": {name: count for name, count in sorted(missed.items()) if name},
        "false": base.false_count,
        "false_per_image": base.false_count / max(len(holdout), 1),
        "threshold": criteria.score,
        "low_score": low,
        **quality(results, matched, objects, classes, criteria.iou),
        "missing_classes": list(classes.missing),
        "smallest_effect": None if np.isnan(smallest) else smallest,
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
