"""NanoDet with one output, YOLOX with and without its own decoding, YOLOv6: recognised, and decoded as
published. The oracles here are written cell by cell from the repositories' formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from curator.boxes import iou
from curator.detect.onnx import build, recognise
from curator.detect.onnx_graph import OnnxGraph
from curator.errors import CuratorError, InputError
from curator.explain.methods.odam import own_level
from curator.registry import Spec
from curator.tensors import image_tensor
from store.records import Detections
from tests.detect import tiny_heads as tiny
from tests.detect.tiny_yolo import matched, picture

SIZE = (96, 160)  # not square; 1.5 x 2.5 cells of stride 64
NANODET: dict[str, tuple[Callable[[], tiny.Detector], tuple[int, ...], float]] = {
    "m": (lambda: tiny.nanodet(tiny.NanodetHead(3)), (8, 16, 32), 0.5),
    "m, two branches": (lambda: tiny.nanodet(tiny.NanodetHead(3, shared=False)), (8, 16, 32), 0.5),
    "gfl": (lambda: tiny.nanodet(tiny.GflHead(3)), (8, 16, 32), 0.5),
    "plus": (lambda: tiny.nanodet(tiny.NanodetHead(4, plus=True), 4), (8, 16, 32, 64), 0.0),
    "plus, three strides": (lambda: tiny.nanodet(tiny.NanodetHead(3, plus=True)), (8, 16, 32), 0.0),
}
"""Name -> network, its strides, where in a cell boxes start (in strides)."""
YOLO: dict[str, tuple[Callable[[], tiny.Detector], str]] = {
    "yolox, raw": (lambda: tiny.Detector(tiny.YoloxHead(), brightest=255), "yolox"),
    "yolox": (lambda: tiny.Detector(tiny.YoloxHead("cat"), brightest=255), "yolox-decoded"),
    "first yolox": (lambda: tiny.Detector(tiny.YoloxHead("in place"), brightest=255), "yolox-decoded"),
    "first yolov6": (lambda: tiny.Detector(tiny.FirstYolov6Head()), "yolov5"),
    "yolov6": (lambda: tiny.yolov6(use_dfl=False), "yolov5"),
    "yolov6, dfl": (lambda: tiny.yolov6(use_dfl=True), "yolov5"),
}
"""Name -> network, the decoder that fits."""


def detector_of(path: Path, options: str = ""):
    return build(Spec.parse(f"onnx:{path}?classes=cup,plate,spoon{options}"))


def sizes(strides: tuple[int, ...], size: tuple[int, int] = SIZE) -> list[tuple[int, int]]:
    return [(math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in strides]


# ---------------------------------------------------------------- oracles


def nanodet_input(u: torch.Tensor) -> torch.Tensor:
    """RGB 0-1 (3, h, w) -> what the configurations' `normalize` gives: BGR, in that order of the numbers."""
    bgr = u.numpy()[::-1].transpose(1, 2, 0) * 255
    normal = (bgr - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    return torch.from_numpy(normal.transpose(2, 0, 1).astype(np.float32))[None]


def nanodet_boxes(raw: np.ndarray, strides: tuple[int, ...], start: float) -> np.ndarray:
    """One output (A, K + 4 bins) -> boxes (A, 4) xyxy in the input, clipped to it."""
    boxes, place = [], 0
    for stride, (rows, columns) in zip(strides, sizes(strides), strict=True):
        for row in range(rows):
            for column in range(columns):
                sides = []
                for bins in raw[place, tiny.CLASSES :].astype(np.float64).reshape(4, tiny.BINS):
                    share = np.exp(bins - bins.max())
                    sides.append(stride * (share * np.arange(tiny.BINS)).sum() / share.sum())
                x, y = (column + start) * stride, (row + start) * stride
                boxes.append([x - sides[0], y - sides[1], x + sides[2], y + sides[3]])
                place += 1
    assert place == len(raw)
    return np.clip(boxes, 0, [SIZE[1], SIZE[0], SIZE[1], SIZE[0]])


def yolox_boxes(raw: np.ndarray) -> np.ndarray:
    """Raw output (A, 5 + K) -> boxes (A, 4) xyxy in the input."""
    boxes, place = [], 0
    for stride, (rows, columns) in zip((8, 16, 32), sizes((8, 16, 32)), strict=True):
        for row in range(rows):
            for column in range(columns):
                x, y, w, h = raw[place, :4].astype(np.float64)
                x, y, w, h = (
                    (x + column) * stride,
                    (y + row) * stride,
                    math.exp(w) * stride,
                    math.exp(h) * stride,
                )
                boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                place += 1
    assert place == len(raw)
    return np.array(boxes)


def suppressed(boxes: np.ndarray, scores: np.ndarray, least: float, overlap: float) -> list[tuple[int, int]]:
    """Plain NMS class by class: (class, candidate), by class, best first."""
    kept, seen = [], 0
    for label in range(scores.shape[1]):
        order = [k for k in np.argsort(-scores[:, label]) if scores[k, label] > least]
        seen += len(order)
        while order:
            best = order.pop(0)
            kept.append((label, int(best)))
            order = [k for k in order if iou(boxes[best : best + 1], boxes[k : k + 1])[0, 0] <= overlap]
    assert 10 < len(kept) <= seen < 300
    return kept


def threshold(scores: np.ndarray, share: float) -> float:
    """Near a quantile, in the widest gap there: no rounding moves a score across it."""
    ordered = np.sort(scores.ravel())
    near = ordered[int((share - 0.01) * len(ordered)) : int((share + 0.01) * len(ordered)) + 2]
    widest = int(np.diff(near).argmax())
    return float(near[widest] + near[widest + 1]) / 2


def by_class(found: Detections) -> list[tuple[int, int]]:
    """(class, candidate) of detections, which come best first."""
    return sorted(
        zip(found.labels.tolist(), found.candidates.tolist(), strict=True), key=lambda pair: pair[0]
    )


# ---------------------------------------------------------------- NanoDet


@pytest.mark.parametrize("name", NANODET)
def test_nanodet_with_one_output(tmp_path: Path, name: str) -> None:
    make, strides, start = NANODET[name]
    network = make()
    path = tiny.save(network, tmp_path / "nanodet.onnx", SIZE)
    assert recognise(OnnxGraph(path)) == "nanodet"
    detector = detector_of(path)
    assert detector.decoder.strides == strides
    assert detector_of(path, "&decode=nanodet").fingerprint == detector.fingerprint
    image = image_tensor(picture(60, 200, seed=7))
    pin = detector.pin(image)
    u = detector.prepare(image, pin)  # stretched
    assert tuple(u.shape[1:]) == SIZE
    raw = network(nanodet_input(u))[0].numpy()
    expected = nanodet_boxes(raw, strides, start) / [160 / 200, 96 / 60, 160 / 200, 96 / 60]
    found = detector.candidates(u[None], pin)
    np.testing.assert_allclose(found.scores[0], raw[:, : tiny.CLASSES], atol=2e-5)
    np.testing.assert_allclose(found.boxes[0], expected, atol=5e-3)
    np.testing.assert_allclose(found.log_odds.sigmoid(), found.scores, atol=1e-5)
    assert raw[:, : tiny.CLASSES].std() > 0.05  # a head that says something
    index = torch.tensor([0, 17, len(raw) - 1])
    some = detector.candidates(u[None].repeat(2, 1, 1, 1), pin, index=index)
    torch.testing.assert_close(some.boxes[1], found.boxes[0, index], atol=5e-3, rtol=0)
    torch.testing.assert_close(some.scores[1], found.scores[0, index], atol=1e-5, rtol=0)
    least = threshold(raw[:, : tiny.CLASSES], 0.93)
    ((detections, _),) = detector.predict([image], score_threshold=least)
    assert by_class(detections) == suppressed(expected, raw[:, : tiny.CLASSES], least, 0.6)


@pytest.mark.parametrize("name", NANODET)
def test_nanodet_levels_are_those_of_their_candidates(tmp_path: Path, name: str) -> None:
    make, strides, start = NANODET[name]
    detector = detector_of(tiny.save(make(), tmp_path / "nanodet.onnx", SIZE))
    assert len(detector.levels) == len(strides)
    image = image_tensor(picture(*SIZE, seed=8))
    pin = detector.pin(image)
    u = detector.prepare(image, pin)[None].requires_grad_(True)
    first = 0
    for number, (stride, (rows, columns)) in enumerate(zip(strides, sizes(strides), strict=True)):
        row, column = rows // 2, columns // 2
        index = torch.tensor([first + row * columns + column])
        found = detector.candidates(u, pin, index=index, levels=detector.levels)
        maps = [found.features[level] for level in detector.levels]
        assert maps[number].values.shape[-2:] == (rows, columns)
        assert maps[number].scale == (stride, stride)
        assert maps[number].offset == (start * stride, start * stride)
        score = found.log_odds[0, 0, 1]
        wanted = [u, *(level.values for level in maps)]
        pixels, *cells = torch.autograd.grad(score, wanted)
        assert pixels.abs().sum() > 0
        reached = cells[number].abs().sum((0, 1)).nonzero().tolist()
        assert [row, column] in reached
        if name in ("m", "plus", "plus, three strides"):  # the last convolution is 1 x 1: its own cell alone
            assert reached == [[row, column]]
            assert [k for k, cell in enumerate(cells) if cell.abs().sum() > 0] == [number]
        assert own_level(cells) == number
        first += rows * columns


def test_nanodet_plus_416_has_the_cells_that_its_demos_count(tmp_path: Path) -> None:
    """52^2 + 26^2 + 13^2 + 7^2: 416 is no multiple of 64."""
    network = tiny.nanodet(tiny.NanodetHead(4, plus=True), 4)
    detector = detector_of(tiny.save(network, tmp_path / "plus.onnx", (416, 416)))
    u = torch.zeros(1, 3, 416, 416)
    assert detector.candidates(u, detector.pin(u[0])).scores.shape == (1, 3598, tiny.CLASSES)


# ---------------------------------------------------------------- YOLOX and YOLOv6


@pytest.mark.parametrize("name", YOLO)
def test_yolox_and_yolov6_are_told_apart(tmp_path: Path, name: str) -> None:
    make, decoder = YOLO[name]
    assert recognise(OnnxGraph(tiny.save(make(), tmp_path / "yolo.onnx", SIZE))) == decoder


def rewritten(path: Path, op_type: str, **attributes: object) -> Path:
    """The file with one more node before its output."""
    model = onnx.load(str(path))
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node(op_type, ["before"], [output.name], **attributes))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("name", ["yolox, raw", "yolox", "first yolov6"])
def test_a_cast_of_the_output_hides_nothing(tmp_path: Path, name: str) -> None:
    make, decoder = YOLO[name]
    path = tiny.save(make(), tmp_path / "yolo.onnx", SIZE)
    assert recognise(OnnxGraph(rewritten(path, "Cast", to=onnx.TensorProto.FLOAT))) == decoder


def test_a_cast_of_nanodet_s_output_hides_nothing(tmp_path: Path) -> None:
    path = tiny.save(NANODET["m"][0](), tmp_path / "nanodet.onnx", SIZE)
    assert recognise(OnnxGraph(rewritten(path, "Cast", to=onnx.TensorProto.FLOAT))) == "nanodet"


def test_raw_boxes_of_an_unknown_head_are_not_taken_for_decoded_ones(tmp_path: Path) -> None:
    path = tiny.save(YOLO["yolox, raw"][0](), tmp_path / "raw.onnx", SIZE)
    with pytest.raises(InputError, match=r"cannot tell how the outputs .* give decode= one of"):
        recognise(OnnxGraph(rewritten(path, "Relu")))  # a head that nobody here knows


@pytest.mark.parametrize("name", ["yolox, raw", "yolox"])
def test_yolox_decoded_or_not(tmp_path: Path, name: str) -> None:
    network = YOLO[name][0]()
    path = tiny.save(network, tmp_path / "yolox.onnx", SIZE)
    detector = detector_of(path)
    image = picture(96, 100, seed=9)  # fits without resizing: at the left, grey at the right
    pin = detector.pin(image_tensor(image))
    u = detector.prepare(image_tensor(image), pin)[None]
    padded = np.full((*SIZE, 3), 114, np.float32)
    padded[:, :100] = image[..., ::-1]  # BGR
    network.head.decode = ""
    raw = network(torch.from_numpy(padded).permute(2, 0, 1)[None])[0].numpy()
    boxes = np.clip(yolox_boxes(raw), 0, [100, 96, 100, 96])
    scores = raw[:, 4:5] * raw[:, 5:]
    found = detector.candidates(u, pin)
    np.testing.assert_allclose(found.scores[0], scores, atol=2e-5)
    np.testing.assert_allclose(found.boxes[0], boxes, atol=1e-2)
    least = threshold(scores, 0.75)
    ((detections, _),) = detector.predict([image_tensor(image)], score_threshold=least)
    best = np.where(scores == scores.max(1, keepdims=True), scores, 0)
    assert by_class(detections) == suppressed(boxes, best, least, 0.45)
    index = torch.tensor([5, 245])
    asked = u.repeat(2, 1, 1, 1).requires_grad_(True)
    some = detector.candidates(asked, pin, index=index, levels=detector.levels)
    torch.testing.assert_close(some.boxes[1], found.boxes[0, index], atol=1e-2, rtol=0)
    shapes = [some.features[level].values.shape[-2:] for level in detector.levels]
    assert shapes == sizes((8, 16, 32))
    coarse = some.features["level1"].values
    (gradient,) = torch.autograd.grad(some.log_odds[0, 1, 0], coarse)
    row, column = divmod(245 - 240, 10)  # of the level with 6 x 10 cells
    reached = gradient[0].abs().sum(0)
    assert reached[row, column] > 0
    assert reached[row + 3 :].sum() == reached[:, column + 3 :].sum() == 0  # two 3 x 3 convolutions at most
    assert gradient[1].abs().sum() == 0


def test_first_yolox_is_read_by_its_predictions_alone(tmp_path: Path) -> None:
    """It wrote into its output, which exports to indices for one image."""
    image = image_tensor(picture(80, 140, seed=10))
    first = tiny.save(YOLO["first yolox"][0](), tmp_path / "first.onnx", SIZE)
    with pytest.raises(InputError, match=r"one image at a time .*give run=onnxruntime"):
        detector_of(first)
    later = detector_of(tiny.save(YOLO["yolox"][0](), tmp_path / "later.onnx", SIZE))
    ((found, _),) = detector_of(first, "&run=onnxruntime").predict([image], score_threshold=0.45)
    ((wanted, _),) = later.predict([image], score_threshold=0.45)
    assert 10 < len(wanted) < 200
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


@pytest.mark.parametrize("name", ["first yolov6", "yolov6", "yolov6, dfl"])
def test_yolov6_keeps_its_own_pictures(tmp_path: Path, name: str) -> None:
    """RGB 0-1 in the middle. Later releases write a constant for one image into the file: a black box."""
    network = YOLO[name][0]()
    path = tiny.save(network, tmp_path / "v6.onnx", SIZE)
    detector = detector_of(path, "" if name == "first yolov6" else "&run=onnxruntime")
    image = picture(96, 100, seed=11)
    padded = np.full((*SIZE, 3), 114, np.float32)
    padded[:, 30:130] = image
    raw = network(torch.from_numpy(padded / 255).permute(2, 0, 1)[None])[0].numpy()
    scores = raw[:, 4:5] * raw[:, 5:]
    boxes = np.concatenate([raw[:, :2] - raw[:, 2:4] / 2, raw[:, :2] + raw[:, 2:4] / 2], 1)
    best = np.where(scores == scores.max(1, keepdims=True), scores, 0)
    least = threshold(scores, 0.75)
    labels, candidates = np.array(suppressed(boxes, best, least, 0.45)).T
    ((found, _),) = detector.predict([image_tensor(image)], score_threshold=least)
    shown = np.clip(boxes[candidates] - [30, 0, 30, 0], 0, [100, 96, 100, 96])
    wanted = np.concatenate([shown, scores[candidates, labels][:, None], labels[:, None]], 1)
    assert len(found) == len(wanted)
    assert matched(found, wanted) > 0.97  # cells that see the padding alone have equal scores


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("opset", range(11, 21))
@pytest.mark.parametrize("name", ["plus", "yolox", "first yolov6"])
def test_every_opset_that_is_promised(tmp_path: Path, name: str, opset: int) -> None:
    """All that the TorchScript exporter of torch 2 writes, from the oldest that the repositories use."""
    network = NANODET[name][0]() if name in NANODET else YOLO[name][0]()
    path = tiny.save(network, tmp_path / "model.onnx", SIZE, opset)
    assert [entry.version for entry in onnx.load(str(path)).opset_import if not entry.domain] == [opset]
    detector = detector_of(path)
    image = image_tensor(picture(*SIZE, seed=12))
    pin = detector.pin(image)
    u = detector.prepare(image, pin)[None]
    found = detector.candidates(u, pin)
    raw = network(detector.decoder.normalise(u))
    scores = raw[..., : tiny.CLASSES] if name == "plus" else raw[..., 4:5] * raw[..., 5:]
    torch.testing.assert_close(found.scores, scores, atol=2e-5, rtol=0)
    if name == "plus":
        boxes = nanodet_boxes(raw[0].numpy(), (8, 16, 32, 64), 0.0)
    else:
        centre, half = raw[0, :, :2], raw[0, :, 2:4] / 2
        boxes = np.clip(torch.cat([centre - half, centre + half], 1).numpy(), 0, [160, 96, 160, 96])
    np.testing.assert_allclose(found.boxes[0], boxes, atol=1e-2)


@pytest.mark.parametrize(
    ("weights", "decoder"),
    [("yolox_nano/yolox_nano.onnx", "yolox"), ("nanodet_m/nanodet_m_416.onnx", "nanodet")],
)
def test_shipped_weights_are_recognised(shared: Path, weights: str, decoder: str) -> None:
    path = shared / "weights" / weights
    assert recognise(OnnxGraph(path)) == decoder
    found = build(Spec.parse(f"onnx:{path}"))
    assert found.fingerprint == build(Spec.parse(f"onnx:{path}?decode={decoder}")).fingerprint
    assert found.decoder.strides == (8, 16, 32)
    assert found.read_as == f"{decoder} of 416 x 416 pixels"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolox, raw", "&decode=nanodet", r"nanodet: expected one output .*is this a NanoDet export\?"),
        (
            "yolox, raw",
            "&decode=yolox-decoded",
            r"yolox-decoded: expected 3 levels .*--decode_in_inference\?",
        ),
        ("first yolov6", "&decode=yolox-decoded", r"yolox-decoded: expected 3 levels"),
        ("yolox, raw", "&decode=ssd", r"yolox, nanodet, yolox-decoded"),
    ],
)
def test_another_head_than_the_one_that_is_named(
    tmp_path: Path, name: str, options: str, message: str
) -> None:
    path = tiny.save(YOLO[name][0](), tmp_path / "model.onnx", SIZE)
    with pytest.raises(CuratorError, match=message):
        detector_of(path, options)
