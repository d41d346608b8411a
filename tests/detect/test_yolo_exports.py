"""YOLO exports are read as their own package reads them: Ultralytics writes and runs the models."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx import TensorProto, helper

from curator.detect.onnx import build
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from curator.tensors import image_tensor
from tests.detect.tiny_yolo import NAMES, matched, picture, spread

SIZE = (96, 128)
EXPORTS: dict[str, dict[str, Any]] = {
    "yolov8n": {},
    "yolo11n": {"opset": 12},
    "yolo12n": {"dynamic": True},
    "yolov10n": {"end2end": True},
    "yolo26n": {"end2end": True, "dynamic": True},
    "yolov5n": {"opset": 20},
    "yolov8n-p2": {},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name -> ONNX file of an untrained model whose scores are spread out; made once."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    folder = tmp_path_factory.mktemp("yolo")
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    ultralytics = pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            table = ultralytics.YOLO(f"{name}.yaml").model.yaml | {"nc": len(NAMES)}
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(table))
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                model = ultralytics.YOLO(str(folder / f"{name}.yaml"))
            model.model.names = NAMES
            spread(model.model)
            options = {"imgsz": SIZE, "simplify": False, "verbose": False, "opset": 17, **EXPORTS[name]}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = model.export(format="onnx", **options)
            made[name] = Path(file).rename(folder / f"{name}.onnx")
        return made[name]

    here = Path.cwd()
    os.chdir(folder)
    yield make
    os.chdir(here)


@pytest.mark.parametrize("name", EXPORTS)
def test_detections_equal_those_of_the_package(exported: Any, name: str) -> None:
    path = exported(name)
    detector = build(Spec.parse(f"onnx:{path}"))
    assert detector.classes == tuple(NAMES.values())
    assert detector.input_size == SIZE
    import ultralytics

    own = ultralytics.YOLO(str(path), task="detect")
    image = picture(*SIZE, seed=1)
    bgr = np.ascontiguousarray(image[..., ::-1])
    (result,) = own.predict(bgr, imgsz=SIZE, conf=0.1, verbose=False, rect=False, device="cpu")
    ((found, _),) = detector.predict([image_tensor(image)], score_threshold=0.1)
    theirs = np.asarray(result.boxes.data)
    # Untrained, they find many boxes that hardly differ, and their NMS shifts each class by 7,680 px, which
    # rounds: near the threshold of overlap one of two could stay here, the other there.
    assert len(theirs) > 10
    assert abs(len(found) - len(theirs)) <= 2
    assert matched(found, theirs) > 0.95


@pytest.mark.parametrize("size", [(150, 90), (61, 200), (333, 500)])
def test_images_lie_in_the_input_as_the_package_lays_them(exported: Any, size: tuple[int, int]) -> None:
    detector = build(Spec.parse(f"onnx:{exported('yolov8n')}"))
    from ultralytics.data.augment import LetterBox

    image = picture(*size, seed=2)
    theirs = LetterBox(SIZE, auto=False)(image=image)
    pin = detector.pin(image_tensor(image))
    ours = (detector.prepare(image_tensor(image), pin).permute(1, 2, 0) * 255).numpy()
    assert np.abs(ours - theirs).max() < 2


@pytest.mark.parametrize("name", EXPORTS)
def test_candidates_equal_onnxruntime_and_pass_gradients(exported: Any, name: str) -> None:
    path = exported(name)
    detector = build(Spec.parse(f"onnx:{path}"))
    image = image_tensor(picture(120, 100, seed=3))
    pin = detector.pin(image)
    u = detector.prepare(image, pin)[None]
    found = detector.candidates(u, pin, levels=detector.levels)
    assert [m.values.shape[-1] * m.scale[0] for m in found.features.values()] == [SIZE[1]] * len(
        detector.decoder.strides
    )
    torch.testing.assert_close(found.scores, torch.sigmoid(found.log_odds), atol=1e-5, rtol=0)
    raw = torch.from_numpy(by_onnxruntime(path, u.numpy()))
    scores = found.scores[0]
    if raw.shape[2] == 6:
        torch.testing.assert_close(scores.flatten().topk(20).values, raw[0, :20, 4], atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(scores, raw[0, 4:].T, atol=1e-3, rtol=0)
    index = torch.tensor([3, 100])
    other = image_tensor(picture(120, 100, seed=4))
    batch = torch.cat([u, detector.prepare(other, pin)[None]]).requires_grad_(True)
    both = detector.candidates(batch, pin, index=index)
    torch.testing.assert_close(both.scores[0], scores[index], atol=2e-3, rtol=0)
    both.log_odds[0].sum().backward()
    assert batch.grad is not None
    assert batch.grad[0].abs().sum() > 0
    assert batch.grad[1].abs().sum() == 0


def test_what_torch_cannot_run_is_left_to_onnxruntime(exported: Any, tmp_path: Path) -> None:
    """A resize of a kind that torch does not know, in the middle of a real model."""
    model = onnx.load(str(exported("yolov8n")))
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    for attribute in resize.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"half_pixel"
        if attribute.name == "nearest_mode":
            attribute.s = b"ceil"
    path = tmp_path / "odd.onnx"
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"resizes in a way that torch does not .*or give run=onnxruntime"):
        build(Spec.parse(f"onnx:{path}"))
    box = build(Spec.parse(f"onnx:{path}?run=onnxruntime"))
    assert box.modules() is None
    image = image_tensor(picture(*SIZE, seed=6))
    ((found, _),) = box.predict([image], score_threshold=0.05)
    raw = by_onnxruntime(path, image[None].numpy())[0]
    assert len(found) > 0
    assert found.scores[0] == pytest.approx(raw[4:].max(), abs=1e-4)
    with pytest.raises(ConfigError, match="run=torch or run=onnxruntime"):
        build(Spec.parse(f"onnx:{path}?run=fast"))


def by_onnxruntime(path: Path, u: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    return np.asarray(session.run(None, {session.get_inputs()[0].name: u})[0])


class Anchored(torch.nn.Module):
    """A head with objectness as YOLOv5's repository exports it: three anchors a cell, decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.ModuleList([torch.nn.Conv2d(3, 8, s, s) for s in (8, 16, 32)])
        self.heads = torch.nn.ModuleList([torch.nn.Conv2d(8, 3 * 7, 1) for _ in range(3)])

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """(B, A, 5 + 2)."""
        found = []
        for stride, body, head in zip((8, 16, 32), self.body, self.heads, strict=True):
            raw = head(body(u))
            b, _, h, w = raw.shape
            y = raw.view(b, 3, 7, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack([columns, rows], -1).float()
            xy = (y[..., :2] * 2 - 0.5 + grid) * stride
            wh = (y[..., 2:4] * 2) ** 2 * 2 * stride
            found.append(torch.cat([xy, wh, y[..., 4:]], -1).view(b, 3 * h * w, 7))
        return torch.cat(found, 1)


def test_heads_with_objectness_are_recognised_and_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Anchored().eval()
    path = tmp_path / "v5.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, *SIZE),), str(path), opset_version=17, dynamo=False)
    detector = build(Spec.parse(f"onnx:{path}?classes=cup,plate"))
    assert detector.decoder.strides == (8, 16, 32)
    image = image_tensor(picture(*SIZE, seed=5))
    pin = detector.pin(image)
    found = detector.candidates(image[None], pin, levels=detector.levels)
    raw = network(image[None])
    torch.testing.assert_close(found.scores, raw[..., 4:5] * raw[..., 5:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.log_odds.sigmoid(), found.scores, atol=1e-5, rtol=1e-4)
    centre = (found.boxes[..., :2] + found.boxes[..., 2:]) / 2
    inside = ((raw[..., :2] - raw[..., 2:4] / 2) > 0).all(-1) & (
        (raw[..., :2] + raw[..., 2:4] / 2) < torch.tensor([SIZE[1], SIZE[0]])
    ).all(-1)
    torch.testing.assert_close(centre[inside], raw[..., :2][inside], atol=1e-2, rtol=1e-3)
    assert len(found.features) == 3


def write(path: Path, out: list[int], size: list[int | str], **facts: str) -> Path:
    """A file whose output has a shape, for recognition."""
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["out"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [helper.make_tensor("shape", TensorProto.INT64, [len(out)], out)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def test_what_cannot_be_told_is_said_in_one_line(tmp_path: Path) -> None:
    size: list[int | str] = [96, 128]
    cases = [
        (write(tmp_path / "seg.onnx", [1, 84, 252], size, task="segment"), "", "for the task 'segment'"),
        (write(tmp_path / "odd.onnx", [1, 77, 99], size), "", r"\(1, 77, 99\)\] .*give decode= one of"),
        (write(tmp_path / "open.onnx", [1, 84, 252], ["h", "w"]), "", r"leaves its input size open.*=640"),
        (write(tmp_path / "set.onnx", [1, 84, 252], size), "?size=64", "takes inputs of 96 x 128, got"),
    ]
    for path, options, message in cases:
        with pytest.raises(InputError, match=message):
            build(Spec.parse(f"onnx:{path}{options}"))
    with pytest.raises(ConfigError, match="expected size=640"):
        build(Spec.parse(f"onnx:{cases[0][0]}?size=big"))
    with pytest.raises(ConfigError, match="decode=auto or one of yolo, yolov5"):
        build(Spec.parse(f"onnx:{cases[0][0]}?decode=ssd"))
