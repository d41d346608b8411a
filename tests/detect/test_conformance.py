"""One suite over every detector: what `curator.detect.base.Detector` promises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curator.detect.base import Detector, TrainableDetector
from curator.detect.checking import predict_all
from curator.detect.load import load_detector
from curator.detect.one_pass import candidate_boxes, one_pass
from curator.detect.python import conformance
from curator.errors import InputError
from curator.registry import DETECTORS, Spec
from store.records import Pin
from tests.detect.tiny_yolo import save_table

DENSE = "weights=random&classes=a,b&min_size=96&max_size=160"
SPECS = {
    "small": "curator:ssd?classes=a,b,c&seed=3",
    "small-resnet": "curator:ssd?classes=a,b&backbone=resnet18&size=128&anchors=16,40,80,120",
    "ssd300": "torchvision:ssd300_vgg16?weights=random&classes=a,b",
    "ssdlite320": "torchvision:ssdlite320_mobilenet_v3_large?weights=random&classes=a,b",
    "small-retinanet": "curator:retinanet?classes=a,b,c&seed=3&size=128",
    "small-fcos": "curator:fcos?classes=a,b,c&seed=3&size=128",
    "small-faster-rcnn": "curator:faster_rcnn?classes=a,b,c&seed=3&size=128",
    "small-retinanet-resnet": "curator:retinanet?classes=a,b&backbone=resnet18&size=96&anchors=16,40,80,120",
    "retinanet": f"torchvision:retinanet_resnet50_fpn_v2?{DENSE}",
    "fcos": f"torchvision:fcos_resnet50_fpn?{DENSE}",
    "faster-rcnn": f"torchvision:fasterrcnn_mobilenet_v3_large_320_fpn?{DENSE}",
    "detr": "detr:{tiny}/detr",
    "conditional-detr": "detr:{tiny}/conditional_detr",
    "dab-detr": "hf:{tiny}/dab-detr",
    "yolos": "hf:{tiny}/yolos",
    "deformable-detr": "hf:{tiny}/deformable_detr",
    "rt-detr": "hf:{tiny}/rt_detr",
    "rt-detr-v2": "hf:{tiny}/rt_detr_v2",
    "d-fine": "hf:{tiny}/d_fine",
    "lw-detr": "hf:{tiny}/lw_detr",
    "rf-detr": "hf:{tiny}/rf_detr",
    "squeezenet": "classifier:squeezenet1_1?weights=random&classes=a,b,c&size=96",
    "resnet": "classifier:resnet18?weights=random&classes=a,b,c&size=96&pixels=unit",
    "yolox": "onnx:{weights}/yolox_nano/yolox_nano.onnx?decode=yolox",
    "nanodet": "onnx:{weights}/nanodet_m/nanodet_m_416.onnx?decode=nanodet",
    "yolo11": "ultralytics:{yolo}/tiny11.yaml?classes=a,b,c&size=96",
    "yolo26": "ultralytics:{yolo}/tiny26.yaml?classes=a,b&size=96x128",
    "python": "python:own_detector:build?names=x,y",
}
FLOOR = {
    "yolox": 0.001,
    "nanodet": 0.05,
    "small-retinanet": 0.005,
    "small-retinanet-resnet": 0.005,
    "retinanet": 0.001,
    "small-fcos": 0.02,
    "fcos": 0.02,
    "small-faster-rcnn": 0.2,
    "faster-rcnn": 0.2,
    "detr": 0.05,
    "conditional-detr": 0.001,
    "dab-detr": 0.001,
    "yolos": 0.05,
    "rt-detr": 0.001,
    "rt-detr-v2": 0.001,
    "deformable-detr": 0.001,
    "d-fine": 0.001,
    "lw-detr": 0.001,
    "rf-detr": 0.001,
    "yolo11": 0.001,
    "yolo26": 0.001,
    "squeezenet": 0.01,
    "resnet": 0.01,
}
SAMPLED = ("small-faster-rcnn", "faster-rcnn")  # a step's loss depends on which proposals it draws
ALIGNED = ("yolo11",)  # a box weighs the more in the loss, the better it is found: at first the loss rises
TWICE = ("small-faster-rcnn", "faster-rcnn")  # proposals are frozen by a look of their own
FEW_STEPS = ("ssd300", "retinanet", "fcos", "faster-rcnn")  # slow


@pytest.fixture(scope="module", params=SPECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detector(name: str, request: pytest.FixtureRequest) -> Detector:
    return load_detector(filled(name, request), "cpu")


def filled(name: str, request: pytest.FixtureRequest) -> str:
    """The spec, with the folders that it names."""
    spec = SPECS[name]
    for folder in ("tiny", "yolo", "weights"):
        if f"{{{folder}}}" in spec:
            spec = spec.format(**{folder: request.getfixturevalue(folder)})
    return spec


@pytest.fixture(scope="session")
def weights(shared: Path) -> Path:
    return shared / "weights"


@pytest.fixture(scope="session")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("settings"))
    pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    root = tmp_path_factory.mktemp("yolo")
    for kind in ("yolo11", "yolo26"):
        save_table(kind, root)
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import KINDS, save_tiny  # beside this file, on the path as own_detector is (conftest)

    root = tmp_path_factory.mktemp("tiny")
    for kind in KINDS:
        save_tiny(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 6, 9, generator=generator)
    sizes = [(120, 200), (210, 96), (160, 160)]
    return [
        torch.nn.functional.interpolate(coarse[i : i + 1], size, mode="bilinear")[0].clamp(0, 1)
        for i, size in enumerate(sizes)
    ]


def test_describes_itself(detector: Detector) -> None:
    assert conformance(detector) == []
    assert len(set(detector.classes)) == len(detector.classes)
    network = detector.modules()
    assert network is not None
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_detections_are_their_candidates(name: str, detector: Detector, images: list[Tensor]) -> None:
    """Boxes and scores of `predict` come back from `candidates` at the kept index."""
    for image in images[:2]:
        found, pin = detector.predict([image], score_threshold=FLOOR.get(name, 0.3))[0]
        assert len(found) > 0
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert found.labels.max() < len(detector.classes)
        again = Pin.from_json(pin.to_json())
        assert again.to_json() == pin.to_json()
        np.testing.assert_allclose(again.to_image(again.to_input(found.boxes)), found.boxes, atol=1e-3)
        u = detector.prepare(image, pin)
        assert tuple(u.shape[-2:]) == pin.input_size
        got = detector.candidates(u[None], pin, index=torch.from_numpy(found.candidates))
        rows = torch.arange(len(found))
        labels = torch.from_numpy(found.labels)
        boxes = got.boxes[0] if got.boxes.ndim == 3 else got.boxes[0, rows, labels]
        torch.testing.assert_close(boxes, torch.from_numpy(found.boxes), atol=2e-3, rtol=1e-4)
        torch.testing.assert_close(
            got.scores[0, rows, labels], torch.from_numpy(found.scores), atol=1e-5, rtol=1e-4
        )
        assert got.log_odds is not None
        torch.testing.assert_close(got.log_odds[0].sigmoid(), got.scores[0], atol=1e-5, rtol=1e-4)


def test_boxes_lie_in_the_stored_image(name: str, detector: Detector, images: list[Tensor]) -> None:
    for (found, pin), image in zip(
        detector.predict(images, score_threshold=FLOOR.get(name, 0.1)), images, strict=True
    ):
        height, width = image.shape[-2:]
        assert pin.image_size == (height, width)
        assert (found.boxes >= -1e-3).all()
        assert (found.boxes[:, 0::2] <= width + 1e-2).all()
        assert (found.boxes[:, 1::2] <= height + 1e-2).all()


def test_batch_mates_change_nothing(name: str, detector: Detector, images: list[Tensor]) -> None:
    floor = FLOOR.get(name, 0.3)
    together = detector.predict(images, score_threshold=floor)
    for image, (found, pin) in zip(images, together, strict=True):
        alone, own_pin = detector.predict([image], score_threshold=floor)[0]
        assert own_pin.to_json() == pin.to_json()
        assert abs(len(alone) - len(found)) <= 1  # a score within rounding of the threshold
        n = min(len(alone), len(found), 5)
        torch.testing.assert_close(
            torch.from_numpy(alone.scores[:n]), torch.from_numpy(found.scores[:n]), atol=1e-4, rtol=1e-3
        )


def test_index_order_batches_and_gradients(detector: Detector, images: list[Tensor]) -> None:
    pin = detector.predict(images[:1], score_threshold=0.5)[0][1]
    u = torch.stack([detector.prepare(images[0], pin), detector.prepare(images[0], pin) * 0.7])
    every = detector.candidates(u[:1], pin)
    index = torch.tensor([11, 3, 700]) % every.scores.shape[1]
    picked = detector.candidates(u.requires_grad_(), pin, index=index, levels=detector.levels)
    assert picked.scores.shape == (2, 3, len(detector.classes))
    torch.testing.assert_close(picked.scores[0].detach(), every.scores[0, index], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(picked.boxes[0].detach(), every.boxes[0, index], atol=1e-2, rtol=1e-3)
    (gradient,) = torch.autograd.grad(picked.log_odds[0, 2, 0], u, retain_graph=True)  # type: ignore[index]
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0  # the other image of the batch has no part in it
    if detector.levels:
        maps = [picked.features[level].values for level in detector.levels]
        through = torch.autograd.grad(picked.log_odds[0, 1, 0], maps, allow_unused=True)  # type: ignore[index]
        assert any(g is not None and g.abs().max() > 0 for g in through)


def test_empty_index_gives_features_alone(detector: Detector, images: list[Tensor]) -> None:
    pin = detector.predict(images[:1], score_threshold=0.5)[0][1]
    u = detector.prepare(images[0], pin)[None].expand(2, -1, -1, -1)
    got = detector.candidates(u, pin, index=torch.zeros(0, dtype=torch.int64), levels=detector.levels)
    assert got.scores.shape == (2, 0, len(detector.classes))
    assert got.boxes.shape[:2] == (2, 0)
    assert got.boxes.shape[-1] == 4
    for level in detector.levels:
        feature = got.features[level]
        rows, columns = feature.values.shape[-2:]
        assert feature.values.shape[0] == 2
        last = (
            feature.scale[0] * (columns - 1) + feature.offset[0],
            feature.scale[1] * (rows - 1) + feature.offset[1],
        )
        assert 0 < feature.offset[0] <= pin.input_size[1]
        assert last[0] <= pin.input_size[1] * 1.7  # a coarse map's last cell may look past the border
        assert last[1] <= pin.input_size[0] * 1.7


def test_one_pass_gives_what_predict_and_candidates_give(
    name: str, detector: Detector, images: list[Tensor]
) -> None:
    network = detector.modules()
    assert network is not None
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    for image in images[:2]:
        answer = predict_all(detector, [image], score_threshold=FLOOR.get(name, 0.3))[0]
        looks: list[int] = []
        handle = first.register_forward_hook(lambda _, __, output, looks=looks: looks.append(len(output)))
        try:
            one = one_pass(detector, image, detector.levels)
        finally:
            handle.remove()
        assert looks == ([1, 1] if name in TWICE else [1])
        assert one.pin.to_json() == answer.pin.to_json()
        assert torch.equal(one.u, detector.prepare(image, answer.pin))
        rows = torch.searchsorted(one.candidates, torch.from_numpy(answer.detections.candidates))
        found = answer.detections.scores > 0
        if one.dropped:  # a box per class may have area where that of the best class has none
            found &= np.isin(answer.detections.candidates, one.candidates.numpy())
        assert found.any()
        labels = torch.from_numpy(answer.detections.labels)
        scores = one.scores[rows[found], labels[found]]
        torch.testing.assert_close(
            scores, torch.from_numpy(answer.detections.scores[found]), atol=1e-5, rtol=1e-4
        )
        alone = detector.candidates(
            one.u[None], one.pin, index=torch.zeros(0, dtype=torch.int64), levels=detector.levels
        )
        assert set(one.features) == set(detector.levels)
        for level, feature in alone.features.items():
            torch.testing.assert_close(one.features[level].values, feature.values, atol=1e-4, rtol=1e-3)
        boxes, _, offered = candidate_boxes(one, most=8)
        height, width = image.shape[-2:]
        assert 1 <= len(boxes) <= 8
        assert (boxes >= 0).all()
        assert (boxes <= np.array([width, height, width, height])).all()
        assert offered[0, 0] >= scores.max() - 1e-5


def test_heads_stay_in_fp32_under_autocast(detector: Detector, images: list[Tensor]) -> None:
    """Numbers that a bf16 head could not give."""
    pin = detector.predict(images[:1], score_threshold=0.5)[0][1]
    u = detector.prepare(images[0], pin)[None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = detector.candidates(u, pin)
    with torch.no_grad():
        exact = detector.candidates(u, pin)
    assert got.log_odds is not None
    assert exact.log_odds is not None
    assert got.scores.dtype == got.log_odds.dtype == got.boxes.dtype == torch.float32
    assert (got.log_odds != got.log_odds.bfloat16().float()).float().mean() > 0.5
    if getattr(detector, "fixed_candidates", True):  # else bf16 may draw other queries
        torch.testing.assert_close(got.scores, exact.scores, atol=0.1, rtol=0.1)


def test_the_fingerprint_is_the_models(name: str, detector: Detector, request: pytest.FixtureRequest) -> None:
    if name in ("ssd300", "yolox", "nanodet"):
        pytest.skip("slow to build again")
    parsed = Spec.parse(filled(name, request))
    assert DETECTORS.load(parsed.scheme)(parsed).fingerprint == detector.fingerprint
    assert len(detector.fingerprint) == 64


def test_wrong_requests_are_refused(detector: Detector, images: list[Tensor]) -> None:
    pin = detector.predict(images[:1], score_threshold=0.5)[0][1]
    u = detector.prepare(images[0], pin)[None].expand(2, -1, -1, -1)
    with pytest.raises(InputError, match="2 inputs"):
        detector.candidates(u, pin)
    if detector.levels:
        with pytest.raises(InputError, match="nowhere"):
            detector.candidates(u, pin, index=torch.tensor([0]), levels=["nowhere"])
    assert detector.predict([], score_threshold=0.5) == []


def test_training_clone_save_and_load(
    name: str, detector: Detector, images: list[Tensor], tmp_path: Path
) -> None:
    if not isinstance(detector, TrainableDetector):
        pytest.skip("not trainable")
    before = detector.fingerprint
    twin = detector.clone()
    assert twin.fingerprint == before
    boxes = torch.tensor([[20.0, 20.0, 70.0, 80.0]])
    targets = [(boxes, torch.tensor([1])), (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    network = twin.modules()
    assert network is not None
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    losses = []
    for _ in range(2 if name in FEW_STEPS else 4):
        loss = torch.stack(list(twin.loss(images[:2], targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert not network.training
    assert all(0 < loss < 1e4 for loss in losses)
    assert losses[-1] < losses[0] or name in (*SAMPLED, *ALIGNED)
    assert detector.fingerprint == before != twin.fingerprint
    twin.save(tmp_path / "trained.safetensors")
    again = load_detector(f"curator:{tmp_path / 'trained.safetensors'}", "cpu")
    assert again.classes == detector.classes
    assert again.fingerprint == twin.fingerprint
    expected, _ = twin.predict(images[:1], score_threshold=0.05)[0]
    found, _ = again.predict(images[:1], score_threshold=0.05)[0]
    assert (found.boxes == expected.boxes).all()
    assert (found.candidates == expected.candidates).all()
