"""Interpret: fit which of the detector's filters speak for which class, and show what they respond to.

In: an `InterpretConfig` and the labelled images of some roles. Out: a folder with the interpretation (for
`--method vebi`), a summary, the average image of each class's features as PNG, and one page that shows them.
Images are gone through three times: to measure, to find the features' peaks, and to cut the patches, so that
memory does not grow with the pixels. The same command on the same data leaves a finished folder as it is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.detect.checking import predict_all
from curator.detect.load import load_detector
from curator.diagnose.run_current import class_map, working_spec
from curator.errors import InputError
from curator.explain.features.average_images import (
    AverageImage,
    Peak,
    TopPeaks,
    patch,
    peaks,
    receptive_reaches,
)
from curator.explain.features.base import Interpretation, inner_layers, input_boxes, responses
from curator.explain.features.relevant import accuracy, characteristic, fit, measure
from curator.explain.interpretation_output import FeatureCard, write_outputs
from curator.explain.settings import InterpretConfig
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import Advance, progress
from curator.tensors import image_tensor
from store.images import read_pixels
from store.keys import content_key
from store.records import BoxTuple, ImageRecord, Pin, Role

if TYPE_CHECKING:
    from store.store import Store

STAGE = "interpret"
STAGE_VERSION = 1
EXAMPLES = 4  # images on which receptive fields are measured


@dataclass(frozen=True, slots=True)
class _Scene:
    """One image with its labelled objects: boxes (n, 4) stored-image pixels, labels (n, C)."""

    image: ImageRecord
    boxes: NDArray[np.float64]
    labels: NDArray[np.bool_]
    pin: Pin | None = None


def interpret(store: Store, config: InterpretConfig) -> StageResult:
    """Fit an interpretation and write it, its summary and its pictures to `config.out`.

    Returns:
        with the summary that is also written as JSON: "model" (the file), "page", "accuracy" (share of the
        samples that W tells right), "classes" (name, samples, relevant features, those shown).
    Raises:
        InputError: no labelled objects of the detector's classes, or a folder that cannot be written.
        ConfigError: a black box.
    """
    spec = working_spec(store, config.detector)
    detector = load_detector(spec, config.device)
    scenes, keys = _scenes(store, detector, config)
    settings = {name: value for name, value in config.results().items() if name not in ("out", "detector")}
    key = content_key(STAGE, STAGE_VERSION, detector.fingerprint, settings, keys)
    with recorded_run(store, STAGE, config, models=[detector.fingerprint]) as (run_id, counts):
        finished = _finished(config.out, key)
        if finished is not None:
            counts.update(done=0, skipped=1, failed=0)
            return StageResult(stage=STAGE, run_id=run_id, skipped=1, summary=finished)
        failures: list[tuple[str, str]] = []
        with progress(STAGE, 3 * len(scenes)) as advance:
            scenes, x, fitted = _fit(detector, config, scenes, key, failures, advance)
            labels = np.concatenate([scene.labels for scene in scenes])
            shown = characteristic(fitted, x, labels, config.features)
            cards = _cards(detector, config, scenes, fitted, shown, advance)
        summary = write_outputs(config.out, spec, fitted, accuracy(fitted, x, labels), cards)
        counts.update(done=len(scenes), skipped=0, failed=len(failures))
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=len(scenes),
        failed=len(failures),
        failures=tuple(failures),
        summary=summary,
    )


def _finished(out: Path, key: str) -> dict[str, Any] | None:
    """The summary of a folder that holds this very interpretation."""
    summary = out / "summary.json"
    try:
        if Interpretation.load(out).key == key and (out / "index.html").is_file():
            found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
            return found
    except (InputError, OSError, json.JSONDecodeError):
        return None  # absent, of another version, or half written: fit it again
    return None


def _scenes(
    store: Store, detector: Detector, config: InterpretConfig
) -> tuple[list[_Scene], list[tuple[str, str]]]:
    """The images with labelled objects, and (image, annotations) as content keys."""
    classes = class_map(store, detector.classes, config.class_map or {})
    index = {name: i for i, name in enumerate(classes.categories)}
    images = {i.id: i for role in config.roles for i in store.images(reader="explain", role=cast(Role, role))}
    annotated = store.annotations(sorted(images), reader="explain")
    model = next((m for m in store.models() if m.fingerprint == detector.fingerprint), None)
    found = store.detections(model.id, sorted(images)) if model is not None else {}
    scenes, keys = [], []
    for number, image in sorted(images.items()):
        labelled = annotated.get(number)
        if labelled is None or labelled.status != "human":
            continue
        boxes: list[BoxTuple] = []
        labels = []
        for annotation in labelled.annotations:
            x1, y1, x2, y2 = annotation.box
            means = classes.of_label == index[annotation.category]  # (C,)
            if means.any() and x2 > x1 and y2 > y1 and not (annotation.crowd or annotation.difficult):
                boxes.append(annotation.box)
                labels.append(means)
        if boxes:
            pin = found[number].pin if number in found else None
            scenes.append(_Scene(image, np.array(boxes, dtype=np.float64), np.stack(labels), pin))
            keys.append((image.sha256, labelled.key))
    if not scenes:
        raise InputError(
            f"interpret: expected {' and '.join(config.roles)} images with labelled objects of "
            f"{_listed(detector.classes)}; found none; use curator add with labels, or --map DETECTOR=CLASS"
        )
    return scenes, keys


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _prepared(detector: Detector, scene: _Scene) -> tuple[Tensor, Pin]:
    """x (3, h, w) and its pin, which the detector makes where none is stored."""
    stored = image_tensor(read_pixels(scene.image.uri, scene.image.sha256))
    pin = scene.pin or predict_all(detector, [stored], score_threshold=0.99)[0].pin
    return detector.prepare(stored, pin), pin


def _fit(
    detector: Detector,
    config: InterpretConfig,
    scenes: Sequence[_Scene],
    key: str,
    failures: list[tuple[str, str]],
    advance: Advance,
) -> tuple[list[_Scene], NDArray[np.float32], Interpretation]:
    """The scenes that could be measured, with pins; X (N, m); and the fit."""
    measured, rows = [], []
    layers: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    for scene in scenes:
        try:
            image, pin = _prepared(detector, scene)
        except Exception as error:  # a broken image fails alone
            if getattr(error, "exit_code", None) is None:
                raise
            failures.append((scene.image.uri, str(error)))
        else:
            layers = layers or inner_layers(detector, image[None], pin, config.layers)
            x, channels = measure(
                detector,
                image,
                pin,
                scene.boxes,
                layers=layers,
                source=config.layers,
                pooling=config.pooling,
            )
            rows.append(x)
            measured.append(_Scene(scene.image, scene.boxes, scene.labels, pin))
        advance(1)
    if not measured:
        raise InputError(f"interpret: none of {len(scenes)} images could be read; first: {failures[0][1]}")
    x = np.concatenate(rows)
    fitted = fit(
        x,
        np.concatenate([scene.labels for scene in measured]),
        config.mu,
        layers=layers,
        channels=channels,
        classes=detector.classes,
        fingerprint=detector.fingerprint,
        source=config.layers,
        pooling=config.pooling,
        key=content_key(key, failures)
        if failures
        else key,  # a fit that lacks images is not the finished one
    )
    return measured, x, fitted


def _cards(
    detector: Detector,
    config: InterpretConfig,
    scenes: Sequence[_Scene],
    fitted: Interpretation,
    shown: Sequence[Sequence[tuple[int, float]]],
    advance: Advance,
) -> list[FeatureCard]:
    """The shown features of every class with their average images."""
    wanted = [(label, feature) for label, features in enumerate(shown) for feature, _ in features]
    filters = {feature: fitted.filter_of(feature) for _, feature in wanted}
    used = {layer for layer, _ in filters.values()}
    layers = [layer for layer in fitted.layers if layer in used]
    top = {pair: TopPeaks(config.patches) for pair in wanted}
    examples: list[tuple[Tensor, Pin]] = []
    for number, scene in enumerate(scenes):
        features = [pair for pair in wanted if scene.labels[:, pair[0]].any()]
        if features:
            image, pin = _prepared(detector, scene)
            if len(examples) < EXAMPLES:
                examples.append((image, pin))
            with torch.no_grad():
                values = responses(detector, image[None], pin, source=fitted.source, layers=layers)
            boxes = input_boxes(scene.boxes, pin, fitted.pooling)
            for label, feature in features:
                own = boxes[scene.labels[:, label]]
                (found,) = peaks(values, [filters[feature]], own, number, pin.input_size)
                top[label, feature].add(found)
        advance(1)
    reaches = receptive_reaches(detector, examples, source=fitted.source, layers=layers) if wanted else {}
    averages = {pair: AverageImage(detector.mean_color) for pair in wanted}
    by_scene: dict[int, list[tuple[tuple[int, int], Peak]]] = defaultdict(list)
    for pair in wanted:
        for peak in top[pair].best():
            by_scene[peak.image].append((pair, peak))
    for number, scene in enumerate(scenes):
        if number in by_scene:
            image, _ = _prepared(detector, scene)
            for pair, peak in by_scene[number]:
                reach = reaches[filters[pair[1]][0]]
                averages[pair].add(peak, *patch(image, peak, reach))
        advance(1)
    return [
        FeatureCard(
            label=label,
            rank=rank,
            layer=filters[feature][0],
            channel=filters[feature][1],
            weight=float(fitted.weights[feature, label]),
            contribution=contribution,
            reach=reaches[filters[feature][0]],
            average=averages[label, feature],
        )
        for label, features in enumerate(shown)
        for rank, (feature, contribution) in enumerate(features)
    ]
