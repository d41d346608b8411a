"""Exported detectors: batches, real weights on real images, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from curator.boxes import iou
from curator.detect.decoding import cells
from curator.detect.load import load_detector
from curator.detect.onnx import build
from curator.detect.onnx_graph import OnnxGraph, check_batches, run
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
        (f"onnx:{yolox}", "decode=yolox or decode=nanodet"),
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
