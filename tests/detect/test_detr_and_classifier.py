"""`detr:` and `classifier:`: what the models themselves give, in their own frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curator.detect.classifier import ClassifierDetector
from curator.detect.detr import DetrDetector, Frame
from curator.detect.load import load_detector
from curator.errors import ConfigError, CuratorError, InputError, RegistryError
from curator.tensors import image_tensor
from store.images import read_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_tiny

    root = tmp_path_factory.mktemp("models")
    for kind in ("detr", "conditional_detr", "rt_detr"):
        save_tiny(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (80, 110), mode="bilinear")[0]


def test_queries_and_their_scores(folder: Path, image: torch.Tensor) -> None:
    detector = load_detector(f"detr:{folder / 'detr'}", "cpu")
    assert isinstance(detector, DetrDetector)
    assert detector.classes == ("a", "b", "N/A", "N/A (2)")
    assert detector.levels == ("backbone",)
    found, pin = detector.predict([image], score_threshold=0.0)[0]
    assert len(found) == len(set(found.candidates.tolist())) == 12  # a query is at most one object
    assert pin.input_size == (64, 88)
    u = detector.prepare(image, pin)
    with torch.no_grad():
        out = detector.network(pixel_values=((u - detector._mean) / detector._std)[None])
    scores = out.logits[0].softmax(-1)[:, :-1]
    best, labels = scores.max(-1)
    index = torch.from_numpy(found.candidates)
    torch.testing.assert_close(torch.from_numpy(found.scores), best[index], rtol=1e-5, atol=1e-6)
    assert (torch.from_numpy(found.labels) == labels[index]).all()
    x, y, w, h = out.pred_boxes[0, index].unbind(-1)
    centre = torch.stack([x * 110, y * 80], -1)
    boxes = torch.from_numpy(found.boxes)
    inside = ((centre - torch.stack([w * 55, h * 40], -1)) >= 0).all(-1)
    torch.testing.assert_close(boxes[inside, 0], ((x - w / 2) * 110)[inside], rtol=1e-4, atol=1e-2)


def test_focal_families_use_the_sigmoid(folder: Path, image: torch.Tensor) -> None:
    detector = load_detector(f"detr:{folder / 'conditional_detr'}?detections=20", "cpu")
    found, pin = detector.predict([image], score_threshold=0.0)[0]
    assert len(found) == 20  # pairs of query and class
    got = detector.candidates(detector.prepare(image, pin)[None], pin)
    assert got.log_odds is not None
    torch.testing.assert_close(got.scores, got.log_odds.sigmoid())
    assert found.scores[0] == pytest.approx(float(got.scores.max()), abs=1e-6)


def test_queries_that_depend_on_the_input_are_not_fixed(folder: Path, image: torch.Tensor) -> None:
    detector = load_detector(f"hf:{folder / 'rt_detr'}", "cpu")
    assert isinstance(detector, DetrDetector)
    assert not detector.fixed_candidates
    assert detector.levels == ("level0", "level1", "level2")
    found, pin = detector.predict([image], score_threshold=0.011)[0]
    assert pin.input_size == (96, 128)
    u = detector.prepare(image, pin)[None]
    got = detector.candidates(u, pin, index=torch.from_numpy(found.candidates), levels=detector.levels)
    rows = torch.arange(len(found))
    torch.testing.assert_close(got.boxes[0], torch.from_numpy(found.boxes))
    assert torch.equal(got.scores[0, rows, torch.from_numpy(found.labels)], torch.from_numpy(found.scores))
    assert [tuple(m.values.shape[-2:]) for m in got.features.values()] == [(12, 16), (6, 8), (3, 4)]
    assert [m.scale for m in got.features.values()] == [(8, 8), (16, 16), (32, 32)]


def test_frames() -> None:
    assert Frame().size(480, 640) == (800, 1066)
    assert Frame().size(400, 1200)[1] in (1332, 1333)  # the longer side rules
    assert Frame(fixed=(640, 640)).size(480, 640) == (640, 640)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("detr:nowhere", "config.json"),
        ("detr:{folder}/detr?min_size=x", "whole number"),
        ("classifier:resnet18", "name the weights"),
        ("classifier:nonet?weights=random", "expected a torchvision classification model"),
        ("classifier:resnet18?weights=random&pixels=bgr", "pixels"),
        ("classifier:resnet18?weights=absent.pth&classes=a,b", "found none at absent.pth"),
    ],
)
def test_wrong_specs(spec: str, message: str, folder: Path) -> None:
    with pytest.raises((ConfigError, InputError, RegistryError), match=message):
        load_detector(spec.format(folder=folder), "cpu")


def test_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CuratorError, match="expected a model of detr"):
        load_detector(f"detr:{tmp_path}", "cpu")


def test_a_classifier_is_one_candidate(image: torch.Tensor) -> None:
    detector = load_detector("classifier:resnet18?weights=random&classes=a,b,c&size=96", "cpu")
    assert isinstance(detector, ClassifierDetector)
    assert detector.levels == ("layer1", "layer2", "layer3", "layer4")
    found, pin = detector.predict([image], score_threshold=0.0)[0]
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)
    assert (found.candidates == 0).all()
    assert (found.boxes == [0, 0, 110, 80]).all()
    empty = detector.candidates(
        detector.prepare(image, pin)[None], pin, index=torch.zeros(0, dtype=torch.int64), levels=["layer4"]
    )
    assert empty.features["layer4"].values.shape == (1, 512, 3, 3)


def test_squeezenet_knows_vehicles(shared: Path) -> None:
    """The pretrained weights have their own head of ImageNet's 1,000 classes and saw caffe's pixels."""
    weights = shared / "weights" / "squeezenet" / "squeezenet1_1_torchvision_layout.safetensors"
    detector = load_detector(f"classifier:squeezenet1_1?weights={weights}&pixels=caffe", "cpu")
    assert len(detector.classes) == len(set(detector.classes)) == 1000
    words = ("car", "cab", "van", "truck", "bus", "wagon", "racer", "convertible", "jeep", "motor", "scooter")
    words += ("limousine", "pickup", "moped", "tow", "wheel", "grille", "ambulance", "Model T", "moving")
    folder = shared / "vehicles_openimages" / "valid" / "images"
    images = [image_tensor(read_pixels(str(path))) for path in sorted(folder.iterdir())[:16]]
    found = detector.predict(images, score_threshold=0.0)
    right = sum(any(word in detector.classes[int(d.labels[0])] for word in words) for d, _ in found)
    assert right >= 10, [detector.classes[int(d.labels[0])] for d, _ in found]
