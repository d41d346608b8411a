"""Ultralytics' own models: what they find is what the package finds, and they are trained as any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curator.detect.base import PlainDetector, TrainableDetector
from curator.detect.load import load_detector
from curator.detect.ultralytics_file import convert
from curator.errors import InputError
from curator.prove.trainers.fine_tune import Example, FineTuneConfig, fine_tune
from curator.tensors import image_tensor
from tests.detect.tiny_yolo import NAMES, matched, picture, save_table, save_weights

KINDS = ("yolov8", "yolo11", "yolov10", "yolo26", "yolov8-p2")
FREE = ("yolov10", "yolo26")  # their heads need no NMS
SIZE = (96, 128)
OPTIONS = "?size=96x128"
Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Kind -> a `.pt` file, with its converted copy beside it; made once."""
    folder = tmp_path_factory.mktemp("ultralytics")
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(folder))
    pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    made: dict[str, Path] = {}

    def weights(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_weights(kind, folder)
            convert(made[kind], made[kind].with_suffix(".safetensors"))
        return made[kind]

    return weights


@cache
def load(make: Make, kind: str, options: str = OPTIONS) -> Any:
    return load_detector(f"ultralytics:{make(kind).with_suffix('.safetensors')}{options}", "cpu")


def theirs(path: Path, image: np.ndarray, **options: Any) -> np.ndarray:
    """What the package's own predict finds on an RGB image: (n, 6) corners, score, class."""
    from ultralytics import YOLO

    bgr = np.ascontiguousarray(image[..., ::-1])
    (result,) = YOLO(str(path)).predict(bgr, imgsz=SIZE, verbose=False, device="cpu", **options)
    return np.asarray(result.boxes.data)


# ---------------------------------------------------------------- what they find


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SIZE, (80, 128)])
def test_detections_equal_those_of_the_package(make: Make, kind: str, size: tuple[int, int]) -> None:
    """On an image of the input's size and on one that is padded."""
    detector = load(make, kind)
    assert detector.classes == tuple(NAMES.values())
    image = picture(*size, seed=1)
    expected = theirs(make(kind), image, conf=0.2, **({"nms": False} if kind in FREE else {}))
    ((found, _),) = detector.predict([image_tensor(image)], score_threshold=0.2)
    assert len(expected) > 10
    if kind in FREE:
        assert len(found) == len(expected)
        assert matched(found, expected) == 1
    else:  # their NMS shifts each class by 7,680 px, which rounds: boxes that overlap by almost the threshold
        assert abs(len(found) - len(expected)) <= 0.05 * len(expected)
        assert matched(found, expected) > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(150, 200), (333, 500), (70, 50)])
def test_detections_on_resized_images_are_candidates(make: Make, kind: str, size: tuple[int, int]) -> None:
    """Their resizing rounds to 8 bits, which changes a random network's scores: ours sees their pixels."""
    from ultralytics.data.augment import LetterBox

    detector = load(make, kind)
    image = picture(*size, seed=1)
    expected = theirs(make(kind), image, conf=0.2, **({"nms": False} if kind in FREE else {}))
    assert len(expected) > 10
    pin = detector.pin(image_tensor(image))
    u = image_tensor(np.ascontiguousarray(LetterBox(SIZE, auto=True)(image=image)))
    with torch.inference_mode():
        every = detector.candidates(u[None], pin)
    scores, boxes = every.scores[0].numpy(), every.boxes[0].numpy()
    for *box, score, label in expected:
        near = np.abs(scores[:, int(label)] - score) < 1e-3
        assert (np.abs(boxes[near] - box).max(1) < 1).any()


@pytest.mark.parametrize("kind", FREE)
def test_the_head_with_nms_can_be_asked_for(make: Make, kind: str) -> None:
    image = picture(*SIZE, seed=1)
    expected = theirs(make(kind), image, conf=0.2, nms=None)
    ((found, _),) = load(make, kind, f"{OPTIONS}&end2end=no").predict(
        [image_tensor(image)], score_threshold=0.2
    )
    assert abs(len(found) - len(expected)) <= 0.05 * len(expected)
    assert matched(found, expected) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_the_heads_own(make: Make, kind: str) -> None:
    from ultralytics import YOLO

    detector = load(make, kind)
    network = YOLO(str(make(kind))).model.float().eval()
    image = image_tensor(picture(*SIZE, seed=2))
    pin = detector.pin(image)
    u = detector.prepare(image, pin)[None]
    assert torch.equal(u[0], image)
    found = detector.candidates(u, pin, levels=detector.levels)
    with torch.inference_mode():
        raw = network(u)[1]
    raw = raw["one2one" if kind in FREE else "one2many"] if "one2one" in raw else raw
    torch.testing.assert_close(found.log_odds[0].T, raw["scores"][0], atol=1e-4, rtol=1e-4)
    for name, own in zip(detector.levels, raw["feats"], strict=True):
        feature = found.features[name]
        torch.testing.assert_close(feature.values, own, atol=1e-4, rtol=1e-4)
        assert feature.scale[0] * own.shape[-1] == SIZE[1]
    assert detector.levels == (("P2",) if kind.endswith("p2") else ()) + ("P3", "P4", "P5")


@pytest.mark.parametrize("kind", ["yolo11", "yolov10", "yolo26"])
def test_gradients_reach_the_input_and_no_other_image(make: Make, kind: str) -> None:
    detector = load(make, kind)
    image = image_tensor(picture(70, 110, seed=3))
    pin = detector.pin(image)
    detector.predict([image], score_threshold=0.5)  # in inference mode, before gradients are asked for
    u = torch.stack([detector.prepare(image, pin), detector.prepare(image, pin) * 0.6]).requires_grad_()
    index = torch.tensor([7, 100])
    both = detector.candidates(u, pin, index=index)
    alone = detector.candidates(u[:1], pin)
    torch.testing.assert_close(both.log_odds[0], alone.log_odds[0, index], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(both.boxes[0], alone.boxes[0, index], atol=0.1, rtol=1e-3)
    (gradient,) = torch.autograd.grad(both.log_odds[0].sum() + both.boxes[0].sum(), u)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() > 1e-6
    assert gradient[1].abs().max() == 0


@pytest.mark.parametrize("size", [(150, 90), (61, 200), (333, 500), (96, 128)])
@pytest.mark.parametrize("rect", [True, False])
def test_images_lie_in_the_input_as_the_package_lays_them(
    make: Make, size: tuple[int, int], rect: bool
) -> None:
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    detector: PlainDetector = load(make, "yolo11", OPTIONS if rect else f"{OPTIONS}&rect=no")
    image = picture(*size, seed=2)
    expected = LetterBox(SIZE, auto=rect)(image=image)
    pin = detector.pin(image_tensor(image))
    ours = (detector.prepare(image_tensor(image), pin).permute(1, 2, 0) * 255).numpy()
    assert pin.input_size == expected.shape[:2]
    assert np.abs(ours - expected).max() < 2
    box = np.array([[10.0, 20, 60, 70]], np.float32)
    back = scale_boxes(expected.shape[:2], torch.from_numpy(pin.to_input(box).copy()), size)
    np.testing.assert_allclose(back.numpy(), np.minimum(box, [size[1], size[0]] * 2), atol=0.05)


# ---------------------------------------------------------------- building, training, saving


def test_fresh_weights_leave_the_random_state_alone(make: Make, tmp_path: Path) -> None:
    del make  # the package is usable
    path = save_table("yolo11", tmp_path)
    before = torch.get_rng_state()
    one = load_detector(f"ultralytics:{path}?classes=a,b&seed=1&size=96", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    again = load_detector(f"ultralytics:{path}?seed=1&classes=a,b&size=96", "cpu")
    other = load_detector(f"ultralytics:{path}?classes=a,b&seed=2&size=96", "cpu")
    assert one.fingerprint == again.fingerprint != other.fingerprint
    shipped: Any = load_detector("ultralytics:yolov8n.yaml?classes=a,b", "cpu")
    assert shipped.input_size == (640, 640)


@pytest.mark.parametrize("kind", ["yolo11", "yolov10", "yolo26"])
def test_a_copy_trains_and_comes_back_from_its_file(make: Make, kind: str, tmp_path: Path) -> None:
    del make  # the package is usable
    detector: Any = load_detector(
        f"ultralytics:{save_table(kind, tmp_path)}?classes=cup,plate,spoon&size=96x128", "cpu"
    )
    assert isinstance(detector, TrainableDetector)
    before = detector.fingerprint
    twin = detector.clone()
    assert twin.fingerprint == before
    images = [image_tensor(picture(90, 120, seed=seed)) for seed in (1, 2)]
    targets = [
        (torch.tensor([[20.0, 20, 70, 80], [5, 5, 40, 30]]), torch.tensor([1, 0])),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    network = twin.modules()
    assert network is not None
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 5e-4)
    losses = []
    for _ in range(3):
        parts = twin.loss(images, targets)
        assert set(parts) == {"box", "cls", "dfl"}
        loss = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        assert not network.training
    assert losses[2] < losses[1] < losses[0]
    assert detector.fingerprint == before != twin.fingerprint
    assert not any(p.requires_grad for p in detector.modules().parameters())
    path = tmp_path / "trained.safetensors"
    twin.save(path)
    for scheme in ("ultralytics", "curator"):
        again = load_detector(f"{scheme}:{path}", "cpu")
        assert again.fingerprint == twin.fingerprint
        assert again.classes == detector.classes
        ours, theirs_ = (d.predict(images, score_threshold=0.0) for d in (twin, again))
        assert all(len(a[0]) > 0 for a in ours)
        assert all((a[0].boxes == b[0].boxes).all() for a, b in zip(ours, theirs_, strict=True))


class Pictures:
    """Two labelled pictures, for the trainer."""

    weights = (1.0, 1.0)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Example:
        box = np.array([[20, 20, 70, 80]], np.float32)
        return Example(pixels=picture(90, 120, index), boxes=box, labels=np.array([index]))


def test_the_built_in_trainer_resumes_to_the_same_weights(make: Make, tmp_path: Path) -> None:
    del make  # the package is usable
    spec = f"ultralytics:{save_table('yolo26', tmp_path)}?classes=a,b&size=96"
    detector: Any = load_detector(spec, "cpu")
    config = FineTuneConfig(
        steps=4, batch_size=2, device="cpu", precision="fp32", checkpoint_every=2, batch_norm="train"
    )
    whole, losses = fine_tune(detector, Pictures(), config)
    assert len(losses) == 4

    def stop(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fine_tune(detector, Pictures(), config, checkpoint=checkpoint, on_step=stop)
    resumed, again = fine_tune(detector, Pictures(), config, checkpoint=checkpoint)
    assert again == losses
    assert resumed.fingerprint == whole.fingerprint != detector.fingerprint


def test_the_loss_is_the_packages(make: Make) -> None:
    """Boxes reach their loss where the letterbox puts them."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG

    detector = load(make, "yolo11").clone()
    image = image_tensor(picture(48, 64, seed=1))
    parts = detector.loss([image], [(torch.tensor([[8.0, 4, 40, 36]]), torch.tensor([2]))])
    network = YOLO(str(make("yolo11"))).model.float()
    network.args = DEFAULT_CFG
    network.train()
    batch: dict[str, Tensor] = {
        "img": torch.nn.functional.interpolate(image[None], SIZE, mode="bilinear"),
        "batch_idx": torch.zeros(1),
        "cls": torch.tensor([[2.0]]),
        "bboxes": torch.tensor([[24 / 64, 20 / 48, 32 / 64, 32 / 48]]),
    }
    expected = network.loss(batch)[0]
    torch.testing.assert_close(torch.stack(list(parts.values())), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="labels 0 to 2"):
        detector.loss([image], [(torch.tensor([[8.0, 4, 40, 36]]), torch.tensor([3]))])
