"""Exported detectors: batches, real weights on real images, clear refusals."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from curator.boxes import iou
from curator.detect.decoding import Decoder, cells
from curator.detect.load import load_detector
from curator.detect.nanodet import NanodetDecoder
from curator.detect.onnx import build
from curator.detect.onnx_graph import OnnxGraph, check_batches, run
from curator.detect.yolox import YoloxDecoder
from curator.errors import CuratorError, InputError
from curator.registry import Spec
from curator.tensors import image_tensor
from store.images import read_pixels


def write_model(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], out: list[int]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def test_fixed_batches_become_batchable(tmp_path: Path) -> None:
    """[1, 3, -1] would turn two images into one row of twice the length."""
    path = write_model(
        tmp_path / "fixed.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"shape": np.array([1, 3, -1])},
        [1, 3, 64],
    )
    network = OnnxGraph(path).to_torch([])
    check_batches(network, (8, 8), "fixed.onnx")
    assert run(network, torch.zeros(5, 3, 8, 8))[0].shape == (5, 3, 64)


@pytest.mark.parametrize("start", [0, 1])
def test_slices_with_and_without_steps(tmp_path: Path, start: int) -> None:
    constants = {
        "s": np.array([start, -1]),
        "e": np.array([np.iinfo(np.int64).max, -9]),
        "a": np.array([2, 3]),
        "t": np.array([2, -1]),
    }
    path = write_model(
        tmp_path / "slice.onnx",
        [helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        constants,
        [1, 3, 4, 8],
    )
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run(OnnxGraph(path).to_torch([]), x)[0], x[:, :, start::2].flip(3))


def test_constants_of_products_that_are_no_linear_layer(tmp_path: Path) -> None:
    """A square matrix on the left, where taking it for weights on the right gives no error; a stack."""
    draw = np.random.default_rng(0)
    constants = {
        "left": draw.normal(size=(8, 8)).astype(np.float32),
        "stack": draw.normal(size=(1, 3, 8, 8)).astype(np.float32),
        "weights": draw.normal(size=(8, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["left", "x"], ["a"]),
        helper.make_node("MatMul", ["a", "stack"], ["b"]),
        helper.make_node("MatMul", ["b", "weights"], ["y"]),
    ]
    path = write_model(tmp_path / "products.onnx", nodes, constants, [1, 3, 8, 8])
    network = OnnxGraph(path).to_torch([])
    check_batches(network, (8, 8), "products.onnx")
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    left, stack, weights = (torch.from_numpy(value) for value in constants.values())
    torch.testing.assert_close(run(network, x)[0], left @ x @ stack @ weights, atol=1e-4, rtol=1e-4)


def test_mixing_models_are_refused(tmp_path: Path) -> None:
    path = write_model(
        tmp_path / "mix.onnx",
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        {},
        [1, 3, 8, 8],
    )
    with pytest.raises(InputError, match="mixes the images of a batch"):
        check_batches(OnnxGraph(path).to_torch([]), (8, 8), "mix.onnx")


def test_cells_are_ordered_by_level_row_column() -> None:
    corner, stride = cells((16, 32), (8, 16), device=torch.device("cpu"))
    assert corner.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [1, 1], [2, 1], [3, 1], [0, 0], [1, 0]]
    assert stride[:, 0].tolist() == [8] * 8 + [16] * 2


def test_refusals(shared: Path, tmp_path: Path) -> None:
    yolox = shared / "weights" / "yolox_nano" / "yolox_nano.onnx"
    (tmp_path / "text.onnx").write_text("no model")
    for spec, message in [
        (f"onnx:{yolox}?decode=ssd", "decode=auto or one of yolo, yolov5, yolo-end2end, yolox, nanodet"),
        ("onnx:absent.onnx?decode=yolox", "found none at absent.onnx"),
        (f"onnx:{tmp_path / 'text.onnx'}?decode=yolox", "no ONNX file"),
        (f"onnx:{yolox}?decode=yolox&classes=a,b", "80 classes, got 2 names"),
        (f"onnx:{yolox}?decode=nanodet", "nanodet"),
    ]:
        with pytest.raises(CuratorError, match=message):
            build(Spec.parse(spec))


@pytest.mark.parametrize(
    ("model", "bound"),
    [
        ("yolox_nano/yolox_nano.onnx?decode=yolox", 0.5),
        ("nanodet_m/nanodet_m_416.onnx?decode=nanodet", 0.4),
    ],
)
def test_pretrained_weights_find_cars(shared: Path, model: str, bound: float) -> None:
    """Recall at IoU 0.5 of Car, Bus, Motorcycle and Truck as any of COCO's vehicles, on real images."""
    detector = load_detector(f"onnx:{shared / 'weights' / model}", "cpu")
    vehicles = [detector.classes.index(name) for name in ("car", "bus", "motorcycle", "truck")]
    folder = shared / "vehicles_openimages" / "valid"
    paths = sorted((folder / "images").iterdir())[:24]
    found = total = 0
    images = [image_tensor(read_pixels(str(path))) for path in paths]
    for path, image, (detections, _) in zip(
        paths, images, detector.predict(images, score_threshold=0.25), strict=True
    ):
        rows = np.loadtxt(folder / "labels" / f"{path.stem}.txt", ndmin=2)
        rows = rows[rows[:, 0] != 0]  # Ambulance is no COCO class
        height, width = image.shape[-2:]
        centre, half = rows[:, 1:3] * [width, height], rows[:, 3:5] * [width, height] / 2
        truth = np.concatenate([centre - half, centre + half], 1)
        kept = detections.boxes[np.isin(detections.labels, vehicles)]
        total += len(truth)
        if len(kept) and len(truth):
            found += int((iou(truth, kept).max(1) >= 0.5).sum())
    assert total > 20
    assert found / total > bound


# ---------------------------------------------------------------- against onnxruntime


def by_onnxruntime(model: onnx.ModelProto, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of each image alone (an export may have a fixed batch of 1), put together."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    singles = [session.run(None, {name: images[i : i + 1].numpy()}) for i in range(len(images))]
    return [torch.cat([torch.from_numpy(one[k]) for one in singles]) for k in range(len(singles[0]))]


@pytest.mark.parametrize(
    ("weights", "decoder"),
    [("yolox_nano/yolox_nano.onnx", YoloxDecoder()), ("nanodet_m/nanodet_m_416.onnx", NanodetDecoder())],
)
def test_shipped_weights_equal_onnxruntime_in_batches_and_pass_gradients(
    shared: Path, weights: str, decoder: Decoder
) -> None:
    path = shared / "weights" / weights
    graph = OnnxGraph(path)
    own = len(graph.outputs)
    network = graph.to_torch(decoder.level_values(graph))
    paths = sorted((shared / "vehicles_openimages" / "valid" / "images").iterdir())[:2]
    u = torch.stack([image_tensor(read_pixels(str(path))) for path in paths]).requires_grad_()
    outputs = run(network, decoder.normalise(u))
    expected = by_onnxruntime(onnx.load(str(path)), decoder.normalise(u.detach()))
    assert len(expected) == own
    for found, wanted in zip(outputs[:own], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=3e-4)
    for i in range(2):
        for found, alone in zip(outputs, run(network, decoder.normalise(u[i : i + 1])), strict=True):
            torch.testing.assert_close(found[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(outputs[0][0, :, 5:].amax(), u)
    assert float(gradient[0].abs().sum()) > 0
    assert float(gradient[1].abs().sum()) == 0  # the other image has no part in it


class Exported(nn.Module):
    """A tiny detector head with what today's exports hold: Split and Pad of opset 18, Resize, a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(4, 4, 3)
        self.last = nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = functional.silu(self.first(x)).chunk(2, 1)
        right = self.second(functional.pad(right, (1, 1, 1, 1), value=0.5))
        left = functional.interpolate(functional.max_pool2d(left, 2), scale_factor=2.0, mode="nearest")
        return self.last(torch.cat([left, right], 1)).flatten(2).transpose(1, 2).sigmoid()


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("dynamo", [False, True])
def test_exports_of_today_load(tmp_path: Path, opset: int, dynamo: bool) -> None:
    """onnx2torch refused them: "Split version 18 not implemented", "Pad 18"."""
    torch.manual_seed(0)  # restored by the fixture below
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported().eval(),
            (torch.rand(1, 3, 32, 32),),
            str(path),
            opset_version=opset,
            input_names=["images"],
            output_names=["out"],
            dynamo=dynamo,
            external_data=False,
        )
    model = onnx.load(str(path))
    kinds = {node.op_type for node in model.graph.node}
    assert kinds >= {"Pad"} | ({"Split"} if dynamo else {"Slice", "Gather"})
    network = OnnxGraph(path).to_torch([])
    check_batches(network, (32, 32), "model.onnx")
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (found,) = run(network, images)
    torch.testing.assert_close(found, by_onnxruntime(model, images.detach())[0], rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(found[0].sum(), images)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_weights_beside_the_file_are_part_of_the_fingerprint(shared: Path, tmp_path: Path) -> None:
    source = shared / "weights" / "yolox_nano" / "yolox_nano.onnx"
    path = tmp_path / "model.onnx"
    onnx.save_model(onnx.load(str(source)), str(path), save_as_external_data=True, location="model.data")
    before = load_detector(f"onnx:{path}?decode=yolox", "cpu").fingerprint
    assert load_detector(f"onnx:{path}?decode=yolox", "cpu").fingerprint == before
    weights = bytearray((tmp_path / "model.data").read_bytes())
    weights[1000] ^= 1  # the least bit of one weight
    (tmp_path / "model.data").write_bytes(bytes(weights))
    assert load_detector(f"onnx:{path}?decode=yolox", "cpu").fingerprint != before


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def resizing(path: Path, factor: float, **settings: object) -> Path:
    return write_model(
        path,
        [helper.make_node("Resize", ["x", "", "s"], ["y"], **settings)],
        {"s": np.array([1, 1, factor, factor], np.float32)},
        [1, 3, int(8 * factor), int(8 * factor)],
    )


@pytest.mark.parametrize("factor", [2.0, 1.5, 3.0, 0.5])
@pytest.mark.parametrize("where", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize(
    ("mode", "rounding"),
    [
        ("nearest", "floor"),
        ("nearest", "ceil"),
        ("nearest", "round_prefer_floor"),
        ("nearest", "round_prefer_ceil"),
        ("linear", "floor"),
        ("cubic", "floor"),
    ],
)
def test_resizing_is_right_or_refused(
    tmp_path: Path, mode: str, where: str, rounding: str, factor: float
) -> None:
    path = resizing(
        tmp_path / "resize.onnx",
        factor,
        mode=mode,
        coordinate_transformation_mode=where,
        **({"nearest_mode": rounding} if mode == "nearest" else {}),
    )
    usual = (mode, where, rounding) == ("nearest", "asymmetric", "floor") or (
        mode != "nearest" and where != "asymmetric"
    )
    network, refusal = None, ""
    try:
        network = OnnxGraph(path).to_torch([])
    except InputError as error:
        refusal = str(error)
    if network is None:
        assert f"{mode}, {where}" in refusal
        assert not usual
        return
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        run(network, x)[0], by_onnxruntime(onnx.load(str(path)), x)[0], rtol=1e-4, atol=1e-5
    )


def test_what_cannot_be_converted_is_one_clear_line(tmp_path: Path) -> None:
    unknown = helper.make_node("Frobnicate", ["x"], ["y"])
    path = write_model(tmp_path / "own.onnx", [unknown], {}, [1, 3, 8, 8])
    with pytest.raises(InputError, match=r"own\.onnx cannot be converted .*Frobnicate"):
        OnnxGraph(path).to_torch([])
    path = resizing(tmp_path / "odd.onnx", 2.0, mode="linear", coordinate_transformation_mode="asymmetric")
    with pytest.raises(InputError, match=r"odd\.onnx resizes in a way that torch does not"):
        OnnxGraph(path).to_torch([])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathering_along_any_axis(tmp_path: Path, axis: int) -> None:
    path = write_model(
        tmp_path / "gather.onnx",
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)],
        {"i": np.array([[0, -1]])},
        [1],
    )
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = run(OnnxGraph(path).to_torch([]), x)[0]
    expected = np.take(x.numpy(), np.array([[0, -1]]), axis=axis)
    assert np.array_equal(found.numpy(), expected)
