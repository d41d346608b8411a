"""A black box goes the whole way: detect, diagnose, explain; its target is what it predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.detect.base import Detector
from curator.detect.black_box import BlackBox
from curator.detect.load import load_detector
from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.diagnose.run import diagnose
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, InputError
from curator.explain.base import Target
from curator.explain.methods.drise import DRISE
from curator.explain.methods.e2x import E2X
from curator.explain.run import explain
from curator.explain.settings import ExplainConfig
from curator.explain.target import PredictionScores, TargetScores, scores_of, target_kind
from store.images import encode_png
from store.records import Pin, SegmentMap
from store.store import Store

SOURCE = '''
"""Finds red rectangles: an image's red pixels as one box, as sure as they are red."""

import numpy as np
from curator.detect.black_box import BlackBox


def find(images):
    found = []
    for image in images:
        red = image[0].numpy() - image[1:].numpy().max(0)
        rows, columns = np.nonzero(red > 0.2)
        if len(rows) == 0:
            found.append((np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
            continue
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found.append((np.array([box]), np.array([red[red > 0.2].mean()]), np.array([0])))
    return found


def build():
    return BlackBox(find, ("square",), fingerprint="red squares, 1")
'''
RED, BLUE, PALE = (240, 20, 20), (20, 20, 240), (170, 90, 90)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of one square each: red (found), pale red (under the threshold), blue (nothing found)."""
    root = tmp_path_factory.mktemp("black_box")
    (root / "red_squares.py").write_text(SOURCE)
    images, annotations = [], []
    for i, colour in enumerate((RED, PALE, BLUE)):
        pixels = np.full((64, 80, 3), 128, np.uint8)
        pixels[16:48, 24:56] = colour
        (root / f"{i}.png").write_bytes(encode_png(pixels))
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 64})
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "bbox": [24, 16, 32, 32], "area": 1024, "iscrowd": 0}
        )
    labels = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def test_detect_diagnose_and_explain(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workspace))
    spec = "python:red_squares:build"
    with Store.create(workspace / "ws") as store:
        added = add(
            store, AddConfig(format="coco", path=workspace / "labels.json", images=workspace, role="mine")
        )
        assert added.exit_code == 0, added.failures
        assert detect(store, DetectConfig(detector=spec, device="cpu")).summary["detections"] == 2
        found = diagnose(store, DiagnoseConfig(device="cpu"))
        assert found.exit_code == 0, found.failures
        outcomes = {store.images(reader="diagnose", ids=[o.image_id])[0].uri[-5]: o for o in store.outcomes()}
        assert [(outcomes[i].kind, outcomes[i].cause) for i in "012"] == [
            ("TP", None),
            ("FN", "under-threshold"),
            ("FN", "miss"),
        ]
        assert outcomes["1"].target.rule == "matched"
        assert outcomes["2"].target.rule == "best-iou"
        for method in ("permutation", "lime"):
            config = ExplainConfig(method=method, samples=12, segments=12, device="cpu")
            result = explain(store, config)
            assert result.exit_code == 0, result.failures
            maps = {a.outcome_id: a for a in store.attributions()}
            for i, outcome in outcomes.items():
                attribution = maps[outcome.id]
                explained = attribution.map
                assert isinstance(explained, SegmentMap)
                if i == "2":  # it sees nothing there, whatever is hidden
                    assert explained.full == explained.empty == 0
                    assert not explained.evidence
                    continue
                assert explained.full == pytest.approx(outcome.score, abs=1e-3)
                assert explained.evidence
                labels = store.segmentation(attribution.segmentation_id or 0).labels
                inside = np.unique(labels[16:48, 24:56])
                assert int(np.argmax(explained.phi)) in inside
                if method == "permutation":  # what it does not look at has no part, exactly
                    assert np.abs(np.delete(explained.phi, inside)).max(initial=0) < 1e-6
                    assert abs(explained.gap) < 1e-6
        for wrong, said in (
            ({"method": "e2x"}, "got the black box"),
            ({"method": "odam"}, "got the black box"),
            ({"method": "lime", "target": "log_odds"}, "a target by prediction"),
        ):
            with pytest.raises(ConfigError, match=said):
                explain(store, ExplainConfig(**{"samples": 8, "segments": 12, "device": "cpu"} | wrong))


def test_the_target_is_the_best_overlap_times_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 10]])
    box = BlackBox(
        lambda images: [(boxes, np.array([0.4, 0.9, 0.8]), np.array([0, 0, 1]))] * len(images),
        ("a", "b"),
        fingerprint="fixed",
    )
    u = torch.zeros(2, 3, 40, 40)
    pin = box.predict([u[0]], score_threshold=0.5)[0][1]
    targets = [Target(candidate=0, label=label, box=(0.0, 0.0, 10.0, 10.0)) for label in (0, 1)]
    got = scores_of(box, pin, targets)(u)
    assert got.tolist() == [[pytest.approx(0.45), pytest.approx(0.8)]] * 2  # 0.9 x 1/2 > 0.4 x 1
    far = Target(candidate=0, label=1, box=(20.0, 20.0, 30.0, 30.0))
    assert scores_of(box, pin, [far])(u).tolist() == [[0], [0]]
    # An input frame of half the size: what is found there lies at twice the place in the stored image.
    half = Pin(image_size=(80, 80), input_size=(40, 40), scale=(0.5, 0.5))
    large = [Target(candidate=0, label=1, box=(0.0, 0.0, 20.0, 20.0))]
    assert PredictionScores(box, half, large)(u).tolist() == [[pytest.approx(0.8)]] * 2


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")[0]


@pytest.fixture(scope="module")
def ssd() -> Detector:
    return make_detector(SsdOptions(classes=("a", "b"), size=96, channels=(8, 8, 16, 16, 16)), seed=5)


def test_a_detector_by_its_predictions(ssd: Detector, image: torch.Tensor) -> None:
    """Over all candidates the target is at least the candidate's own score, and at least what NMS keeps."""
    found, pin = ssd.predict([image], score_threshold=0.1)[0]
    target = Target(
        candidate=int(found.candidates[0]),
        label=int(found.labels[0]),
        box=tuple(float(v) for v in found.boxes[0]),
    )
    u = torch.stack([ssd.prepare(image, pin), ssd.prepare(image, pin) * 0.6])
    own = TargetScores(ssd, pin, [target])(u)
    every = PredictionScores(ssd, pin, [target])(u)
    boxed = BlackBox.of(ssd)
    kept = scores_of(boxed, boxed.predict([image], score_threshold=0.1)[0][1], [target])(u)
    assert every[0] == pytest.approx(own[0], abs=1e-4)  # on the clean image it is the best at its own place
    assert (every >= kept - 1e-5).all()
    assert kept[0] == pytest.approx(own[0], abs=1e-4)


def test_what_a_black_box_cannot_do(ssd: Detector, image: torch.Tensor) -> None:
    box = BlackBox.of(ssd)
    pin = box.predict([image], score_threshold=0.1)[0][1]
    plain = Target(candidate=0, label=0)
    with pytest.raises(ConfigError, match="black box"):
        TargetScores(box, pin, [plain])
    with pytest.raises(InputError, match="boxes"):
        scores_of(box, pin, [plain])
    with pytest.raises(ConfigError, match="log_odds"):
        scores_of(box, pin, [Target(candidate=0, label=0, kind="log_odds", box=(0.0, 0.0, 9.0, 9.0))])
    with pytest.raises(InputError, match="2 inputs"):
        box.candidates(torch.zeros(2, 3, 96, 96), pin, index=torch.tensor([0]))
    wrong = BlackBox(
        lambda images: [(np.zeros((2, 4)), np.zeros(1), np.zeros(1, int))], ("a",), fingerprint="x"
    )
    with pytest.raises(InputError, match=r"boxes \(n, 4\)"):
        wrong.predict([image], score_threshold=0.1)
    wrong = BlackBox(lambda images: [(np.zeros((1, 4)), np.ones(1), np.full(1, 7))], ("a",), fingerprint="x")
    with pytest.raises(InputError, match="labels 0 to 0"):
        wrong.predict([image], score_threshold=0.1)


def test_auto_means_log_odds_where_they_can_be_had() -> None:
    detector = load_detector("curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5", "cpu")
    image = torch.rand(3, 96, 96)
    _, pin = detector.predict([image], score_threshold=0.5)[0]
    assert target_kind("auto", detector, image, pin, [E2X()]) == "log_odds"
    assert target_kind("auto", detector, image, pin, [E2X(), DRISE()]) == "probability"
    assert target_kind("probability", detector, image, pin, [E2X()]) == "probability"
    assert (
        target_kind("log_odds", detector, image, pin, [DRISE()]) == "log_odds"
    )  # refused later, with a reason
