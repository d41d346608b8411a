"""ONNX exports of query-based detectors are read as onnxruntime and their own packages read them."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForObjectDetection, RTDetrImageProcessor

from curator.detect.black_box import BlackBox
from curator.detect.load import load_detector
from curator.detect.onnx import OnnxDetector, build
from curator.errors import ConfigError, InputError
from curator.explain.base import Target
from curator.explain.target import TargetScores
from curator.registry import Spec
from curator.tensors import image_tensor
from store.records import Detections

WRAPPERS = {
    "rt_detr": "Plain",
    "detr": "Plain",
    "d_fine": "Plain",
    "rf_detr": "Swapped",
    "deployed": "Deployed",
    "joined": "Joined",
}
KINDS = {"deployed": "rt_detr", "joined": "d_fine"}
OPTIONS = {"rf_detr": "?classes=a,b,c", "deployed": "?classes=a,b,N/A,N/A (2)"}
FACTS = {"joined": {"description": "Ultralytics rtdetr-l model", "names": "['a', 'b', 'c']"}}
SHAPE = (96, 128)
LABELS = {0: "cup", 1: "plate", 2: "spoon"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name -> folder with config.json, weights and model.onnx; made once."""
    tiny = import_module("tiny_queries")  # beside this file (conftest)
    root = tmp_path_factory.mktemp("queries")

    def make(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            tiny.save(KINDS.get(name, name), folder)
            wrapper = getattr(tiny, WRAPPERS[name])
            tiny.export(folder, wrapper, folder / "model.onnx", **FACTS.get(name, {}))
        return folder

    return make


def spec_of(folder: Path) -> Spec:
    return Spec.parse(f"onnx:{folder / 'model.onnx'}{OPTIONS.get(folder.name, '')}")


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Coloured blobs with noise (H, W, 3) uint8."""
    draw = np.random.default_rng(seed)
    image = np.full((height, width, 3), draw.integers(0, 255, 3), np.uint8)
    for _ in range(12):
        y, x = draw.integers(0, height - 8), draw.integers(0, width - 8)
        image[y : y + draw.integers(8, 60), x : x + draw.integers(8, 60)] = draw.integers(0, 255, 3)
    return (image * 0.8 + draw.integers(0, 50, image.shape)).astype(np.uint8)


def matched(found: Detections, theirs: np.ndarray, score: float = 1e-3) -> float:
    """Share of their detections (n, 6) that ours hold, within a pixel and `score`."""
    held = 0
    for row in theirs:
        near = (np.abs(found.boxes - row[:4]).max(1) < 1) & (np.abs(found.scores - row[4]) < score)
        held += bool((near & (found.labels == row[5])).any())
    return held / len(theirs)


def rows(found: Detections) -> np.ndarray:
    return np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], 1)


@pytest.mark.parametrize("name", WRAPPERS)
def test_an_export_finds_what_its_model_finds(made: Any, name: str) -> None:
    """The same weights by `hf:`, which normalises and stretches as their preprocessor says."""
    folder = made(name)
    detector, own = build(spec_of(folder)), load_detector(f"hf:{folder}", "cpu")
    assert detector.classes == own.classes
    assert detector.fixed_candidates == own.fixed_candidates == (name == "detr")
    images = [image_tensor(picture(*size, seed=1)) for size in ((150, 110), (70, 120))]
    if name == "joined":  # Ultralytics shrinks without antialiasing
        images = [image_tensor(picture(*SHAPE, seed=seed)) for seed in (1, 2)]
    theirs = own.predict(images, score_threshold=0.01)
    for (found, pin), (expected, own_pin) in zip(
        detector.predict(images, score_threshold=0.01), theirs, strict=True
    ):
        assert len(expected) >= 8
        assert matched(found, rows(expected)[: len(found)]) == 1
        assert pin.to_json() == own_pin.to_json()


@pytest.mark.parametrize("name", WRAPPERS)
def test_candidates_equal_onnxruntime_and_pass_gradients(made: Any, name: str) -> None:
    folder = made(name)
    detector = build(spec_of(folder))
    images = [image_tensor(picture(120, 100, seed=seed)) for seed in (3, 4)]
    pins = [detector.pin(image) for image in images]
    batch = torch.stack([detector.prepare(image, pin) for image, pin in zip(images, pins, strict=True)])
    found = detector.candidates(batch[:1], pins[0])
    torch.testing.assert_close(found.scores, found.log_odds.sigmoid(), atol=1e-6, rtol=1e-5)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    fed = {session.get_inputs()[0].name: detector.decoder.normalise(batch[:1]).numpy()}
    if name == "deployed":
        fed["orig_target_sizes"] = np.array([[100, 120]])
    outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, fed), strict=True))
    scores = torch.from_numpy(in_order(name, outputs))
    torch.testing.assert_close(
        found.scores[0] if name != "deployed" else found.scores.flatten().topk(12).values[None],
        scores,
        atol=1e-4,
        rtol=1e-3,
    )
    if name == "deployed":
        ((best, _),) = detector.predict(images[:1], score_threshold=0.0)
        theirs = np.clip(outputs["boxes"][0], 0, [100, 120, 100, 120])
        np.testing.assert_allclose(best.boxes, theirs[: len(best)], atol=0.05)
        assert (best.labels == outputs["labels"][0][: len(best)]).all()
    batch.requires_grad_(True)
    both = detector.candidates(batch, pins[0], index=torch.tensor([5, 2]))
    torch.testing.assert_close(both.scores[0].detach(), found.scores[0, [5, 2]], atol=1e-4, rtol=1e-3)
    both.log_odds[0].sum().backward()
    assert batch.grad[0].abs().sum() > 0
    assert batch.grad[1].abs().sum() == 0


def in_order(name: str, outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Their scores, by query or best first."""
    if name == "deployed":
        return outputs["scores"]
    if name == "joined":
        return outputs["output0"][0, :, 4:]
    logits = torch.from_numpy(outputs["labels" if name == "rf_detr" else "logits"])[0]
    return (logits.softmax(-1)[:, :-1] if name == "detr" else logits.sigmoid()).numpy()


def test_a_transformers_export_finds_what_transformers_finds(made: Any) -> None:
    folder = made("rt_detr")
    network = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True).eval()
    processor = RTDetrImageProcessor(size={"height": SHAPE[0], "width": SHAPE[1]}, do_normalize=False)
    image = picture(*SHAPE, seed=5)
    with torch.no_grad():
        out = network(**processor(image, return_tensors="pt"))
    (theirs,) = processor.post_process_object_detection(out, 0.01, target_sizes=[SHAPE])
    boxes = theirs["boxes"].numpy().clip(0, [SHAPE[1], SHAPE[0]] * 2)
    table = np.concatenate([boxes, theirs["scores"][:, None], theirs["labels"][:, None]], 1)
    ((found, _),) = build(spec_of(folder)).predict([image_tensor(image)], score_threshold=0.01)
    assert len(table) == len(found) == 12
    assert matched(found, table) == 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Dynamic or not -> a tiny RT-DETR as Ultralytics exports it."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    folder = tmp_path_factory.mktemp("rtdetr")
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    ultralytics = pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    steps = [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 16, 24, 32)]
    head = [[2, 3, 4], 1, "RTDETRDecoder", ["nc", 32, 20, 4, 4, 2, 64]]
    table = {"nc": 3, "scales": {"l": [1.0, 1.0, 1024]}, "backbone": steps, "head": [head]}
    (folder / "rtdetr-l.yaml").write_text(yaml.safe_dump(table))
    here = Path.cwd()
    os.chdir(folder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = ultralytics.RTDETR(str(folder / "rtdetr-l.yaml"))
    model.model.names = LABELS
    with torch.no_grad():
        for score in model.model.model[-1].dec_score_head:
            score.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))

    def make(dynamic: bool) -> Path:
        path = folder / f"dynamic_{dynamic}.onnx"
        if not path.exists():
            options = {"imgsz": SHAPE, "simplify": False, "verbose": False, "opset": 17}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Path(model.export(format="onnx", dynamic=dynamic, **options)).rename(path)
        return path

    yield make
    os.chdir(here)


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_ultralytics_export_finds_what_ultralytics_finds(exported: Any, dynamic: bool) -> None:
    path = exported(dynamic)
    detector = build(Spec.parse(f"onnx:{path}"))
    assert detector.classes == tuple(LABELS.values())
    assert detector.input_size == SHAPE
    assert not detector.fixed_candidates
    import ultralytics

    own = ultralytics.RTDETR(str(path))
    for size in (SHAPE, (150, 90)):
        image = picture(*size, seed=6)
        bgr = np.ascontiguousarray(image[..., ::-1])
        (result,) = own.predict(bgr, imgsz=SHAPE, conf=0.05, verbose=False, device="cpu")
        table = np.asarray(result.boxes.data)
        ((found, _),) = detector.predict([image_tensor(image)], score_threshold=0.05)
        assert len(table) > 10
        assert abs(len(found) - len(table)) <= 1
        if size == SHAPE:
            assert matched(found, table) > 0.95
        else:  # they resize in whole numbers of 255, we do not
            assert matched(found, table, score=5e-3) >= 0.9


@pytest.mark.parametrize("name", ["rt_detr", "ultralytics"])
def test_a_detection_is_followed_by_its_box(made: Any, exported: Any, name: str) -> None:
    """The similarity target moves with the input, and its gradient knows how."""
    path = exported(False) if name == "ultralytics" else made("rt_detr") / "model.onnx"
    detector: OnnxDetector = build(Spec.parse(f"onnx:{path}"))
    image = image_tensor(picture(*SHAPE, seed=7))
    ((found, pin),) = detector.predict([image], score_threshold=0.0)
    box = tuple(map(float, found.boxes[0]))
    target = Target(candidate=int(found.candidates[0]), label=int(found.labels[0]), box=box)
    scores = TargetScores(detector, pin, [target])
    u: Tensor = detector.prepare(image, pin)[None].requires_grad_(True)
    s = scores(u)
    assert float(s.detach()[0, 0]) == pytest.approx(float(found.scores[0]), abs=1e-3)
    (gradient,) = torch.autograd.grad(s.sum(), u)
    assert torch.isfinite(gradient).all()
    step = 0.002 / gradient.norm()  # the queries that are drawn stay the same
    with torch.no_grad():
        up, down = scores(u + step * gradient), scores(u - step * gradient)
    slope = float((up - down)[0, 0]) / (2 * float(step) * float(gradient.norm()) ** 2)
    assert slope == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", ["d_fine", "ultralytics"])
def test_onnxruntime_finds_the_same_as_a_black_box(made: Any, exported: Any, name: str) -> None:
    path = exported(False) if name == "ultralytics" else made(name) / "model.onnx"
    box, opened = (build(Spec.parse(f"onnx:{path}{options}")) for options in ("?run=onnxruntime", ""))
    assert isinstance(box, BlackBox)
    assert box.modules() is None
    assert box.classes == opened.classes
    assert box.fingerprint != opened.fingerprint
    images = [image_tensor(picture(100, 70, seed=seed)) for seed in (8, 9)]
    expected = opened.predict(images, score_threshold=0.05)
    for (found, _), (own, _) in zip(box.predict(images, score_threshold=0.05), expected, strict=True):
        assert matched(found, rows(own)) == 1


def test_what_cannot_be_told_is_said_in_one_line(made: Any, exported: Any, tmp_path: Path) -> None:
    alone = tmp_path / "model.onnx"
    shutil.copy(made("rt_detr") / "model.onnx", alone)
    cases = [
        (f"{alone}", InputError, "give decode=detr-softmax .* or decode=detr-sigmoid"),
        (f"{alone}?decode=detr-sigmoid", ConfigError, "give pixels=unit .* or pixels=imagenet"),
        (f"{alone}?decode=detr-sigmoid&pixels=bytes", ConfigError, "expected pixels=unit or pixels=imagenet"),
        (f"{alone}?decode=detr-sigmoid&pixels=unit", InputError, "has 4 classes, got 80 names"),
        (
            f"{alone}?decode=rfdetr",
            InputError,
            "expected the outputs labels and dets .*got logits, pred_boxes",
        ),
        (f"{alone}?decode=rtdetr", InputError, "found no queries in the graph"),
        (f"{exported(False)}?decode=yolo-end2end&pixels=unit", ConfigError, "pixels= is known of rtdetr"),
    ]
    for spec, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            build(Spec.parse(f"onnx:{spec}"))
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"expected JSON in .*config.json"):
        build(Spec.parse(f"onnx:{alone}"))
    told = build(Spec.parse(f"onnx:{made('rt_detr') / 'model.onnx'}?pixels=imagenet"))
    assert told.fingerprint != build(spec_of(made("rt_detr"))).fingerprint
    assert told.mean_color[0] == pytest.approx(0.485)
