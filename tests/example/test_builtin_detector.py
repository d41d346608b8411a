"""The shipped detector: good on clean scenes, failing on every planted gap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curator.boxes import iou
from curator.detect.small_ssd import BUILTIN, build_builtin
from curator.detect.ssd import SsdDetector
from curator.example.detector import hits
from curator.example.flowers import CLASSES
from curator.example.gaps import GAPS, Gap
from curator.example.scene import RenderedScene, SceneParams, render_scene
from curator.registry import Spec
from curator.tensors import image_tensor


@pytest.fixture(scope="module")
def detector() -> SsdDetector:
    return build_builtin(Spec.parse("builtin:"))


def rendered(gap: Gap | None, count: int) -> list[RenderedScene]:
    return [render_scene(SceneParams(role="holdout", index=i, seed=31, gap=gap)) for i in range(count)]


def test_it_is_small_and_knows_the_classes(detector: SsdDetector) -> None:
    assert detector.classes == CLASSES
    assert BUILTIN.stat().st_size < 5_000_000


def test_it_finds_the_flowers_of_clean_scenes(detector: SsdDetector) -> None:
    found, missed, false = (
        sum(c) for c in zip(*(hits(detector, s) for s in rendered(None, 40)), strict=True)
    )
    assert found / (found + missed) >= 0.95
    assert found / (found + false) >= 0.95


@pytest.mark.parametrize("gap", [gap for gap in GAPS if gap != "lookalike"])
def test_it_misses_the_flowers_of_a_gap(detector: SsdDetector, gap: Gap) -> None:
    scenes = rendered(gap, 24)
    lost = []
    with torch.inference_mode():
        for scene in scenes:
            found, _ = detector.predict([image_tensor(scene.pixels)], score_threshold=0.5)[0]
            names = np.array(CLASSES)[found.labels]
            for annotation in scene.annotations:
                if annotation.attributes["gap"] == gap:
                    overlaps = iou([annotation.box], found.boxes)[0] * (names == annotation.category)
                    lost.append(overlaps.max(initial=0.0) < 0.5)
    assert np.mean(lost) >= 0.4


def test_it_takes_look_alikes_for_flowers(detector: SsdDetector) -> None:
    fooled = []
    for scene in rendered("lookalike", 30):
        found, _ = detector.predict([image_tensor(scene.pixels)], score_threshold=0.5)[0]
        fooled += (iou(scene.culprit_boxes, found.boxes).max(1, initial=0.0) >= 0.5).tolist()
    assert np.mean(fooled) >= 0.3
