"""Our counts and causes against hotcoco's on real images with a real pretrained detector (YOLOX-nano)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria, diagnose_image
from curator.diagnose.metrics import evaluate
from curator.diagnose.work import image_result
from curator.matching import ClassMap
from curator.tensors import image_tensor
from store.images import read_pixels
from store.records import FP_CAUSES, Annotation, Detections, Outcome

CATEGORIES = ("Ambulance", "Bus", "Car", "Motorcycle", "Truck")
IMAGES = 16


def labels(path: Path, width: int, height: int, first: int) -> tuple[Annotation, ...]:
    annotations: list[Annotation] = []
    for line in path.read_text().splitlines():
        kind, x, y, w, h = (float(value) for value in line.split()[:5])
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        annotations.append(
            Annotation(
                id=first + len(annotations),
                category_id=int(kind) + 1,
                category=CATEGORIES[int(kind)],
                box=box,
            )
        )
    return tuple(annotations)


@pytest.mark.parametrize("threshold", [0.3, 0.05])
def test_counts_and_causes_equal_hotcocos(shared: Path, threshold: float) -> None:
    folder = shared / "vehicles_openimages" / "valid"
    weights = shared / "weights" / "yolox_nano" / "yolox_nano.onnx"
    if not weights.exists() or not folder.exists():
        pytest.skip("no YOLOX-nano weights or no vehicles there")
    detector = load_detector(f"onnx:{weights}?decode=yolox", "cpu")
    classes = ClassMap.resolve(detector.classes, CATEGORIES, {})
    criteria = Criteria(score=threshold, low_score=threshold / 10)
    outcomes: list[Outcome] = []
    results = []
    for number, path in enumerate(sorted((folder / "images").iterdir())[:IMAGES]):
        pixels = read_pixels(str(path))
        truth = labels(folder / "labels" / f"{path.stem}.txt", pixels.shape[1], pixels.shape[0], 100 * number)
        image = image_tensor(pixels)
        found, pin = detector.predict([image], score_threshold=0.05)[0]

        def candidates() -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                raw = detector.candidates(detector.prepare(image, pin)[None], pin)  # noqa: B023
            return raw.boxes[0].numpy(), raw.scores[0].numpy()

        outcomes += diagnose_image(found, truth, classes, criteria, candidates, image_id=number, model_id=1)
        results.append(image_result(truth, found, classes, None))
        _check_targets(found, [o for o in outcomes if o.image_id == number], candidates())
    theirs = evaluate(results, CATEGORIES, score_threshold=threshold)
    for name in CATEGORIES:
        ours = [sum(o.kind == kind and o.category == name for o in outcomes) for kind in ("TP", "FP", "FN")]
        expected = list(theirs.counts[name])
        if name in classes.missing:  # named, and left out of the misses
            assert name == "Ambulance"
            expected[2] = 0
        assert ours == expected, name
    causes = Counter(o.cause for o in outcomes if o.kind == "FP")
    assert {cause: causes[cause] for cause in FP_CAUSES} == {
        cause: theirs.tide_counts[cause] for cause in FP_CAUSES
    }
    assert sum(o.kind == "TP" for o in outcomes) > 5
    assert sum(o.kind == "FN" for o in outcomes) > 5


def _check_targets(found: Detections, outcomes: list[Outcome], raw: tuple[np.ndarray, np.ndarray]) -> None:
    """A target's stored score is the score that its candidate has."""
    for outcome in outcomes:
        at = raw[1][outcome.target.candidate, outcome.target.label]
        assert outcome.target.score == pytest.approx(float(at), abs=2e-4)
    assert all(o.target.rule == "detection" for o in outcomes if o.kind != "FN")
    assert len({o.detection_index for o in outcomes if o.kind != "FN"}) <= len(found)
