"""Models of maite: its own types on one side, `Detector` on the other."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from maite.protocols import object_detection as od
from torch import Tensor

from curator.detect.black_box import BlackBox
from curator.detect.checking import predict_each
from curator.detect.load import load_detector
from curator.detect.maite import build
from curator.detect.python import conformance
from curator.errors import CuratorError, InputError
from curator.registry import Spec
from curator.tensors import image_tensor


@pytest.fixture
def own() -> Any:
    """The module beside this one, on the path by conftest."""
    return import_module("own_maite")


@pytest.fixture
def image() -> Tensor:
    return image_tensor(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))


@pytest.mark.parametrize("spec", ["wrapped?pixels=unit", "Wrapped?pixels=unit&each=yes"])
def test_it_finds_what_the_model_finds(own: Any, image: Tensor, spec: str) -> None:
    assert isinstance(own.wrapped, od.Model)
    expected = own.wrapped([image.numpy()])[0]
    assert isinstance(expected, od.ObjectDetectionTarget.__origin__)
    box = load_detector(f"maite:own_maite:{spec}", "cpu")
    assert isinstance(box, BlackBox)
    assert conformance(box) == []
    assert box.classes == ("cup", "plate", "n", "n (2)", "n (3)", "n (4)", "spoon")
    found, pin = box.predict([image], score_threshold=0.0)[0]
    assert len(found) == len(expected.scores) > 0
    assert pin.image_size == (90, 120)
    np.testing.assert_allclose(found.boxes, expected.boxes.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores.detach().numpy(), atol=1e-6)
    assert (found.labels == expected.labels.numpy() - 1).all()


def test_labels_are_numbers_of_index2label(own: Any, image: Tensor) -> None:
    box = build(Spec.parse("maite:own_maite:answers?pixels=unit"))
    own.answers.answer = [
        own.Target(torch.tensor([[1.0, 2, 3, 4], [5, 6, 70, 80]]), [7, 1], np.array([0.4, 0.6])),
        own.Target(np.zeros((0, 4)), np.zeros(0, np.uint8), np.zeros((0, 3))),
    ]
    first, second = (found for found, _ in box.predict([image, image], score_threshold=0.1))
    assert [box.classes[label] for label in first.labels] == ["cup", "spoon"]
    assert len(second) == 0


@pytest.mark.parametrize(
    ("options", "kind", "most"),
    [("pixels=unit", "float32", 1.0), ("pixels=255", "float32", 255.0), ("pixels=uint8", "uint8", 255.0)],
)
def test_pixels(own: Any, options: str, kind: str, most: float) -> None:
    ramp = torch.arange(256).float().div(255).view(1, 16, 16) * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    box = build(Spec.parse(f"maite:own_maite:plain?{options}&channels=bgr&classes=cup,plate"))
    box.predict([ramp], score_threshold=0.1)
    (seen,) = own.plain.seen
    assert seen.dtype == kind
    assert seen.shape == (3, 16, 16)
    assert seen[2].max() == most
    assert seen[0].max() == 0
    assert np.abs(seen[2].astype(np.float64) * 255 / most - np.arange(256).reshape(16, 16)).max() < 1e-3


def test_fingerprints(own: Any) -> None:
    specs = ["wrapped?pixels=unit", "wrapped?pixels=255", "Wrapped?pixels=unit&seed=1"]
    specs += ["Plain?pixels=255&classes=a,b", "Plain?pixels=255&classes=a,b&bias=0.1"]
    boxes = [build(Spec.parse(f"maite:own_maite:{spec}")) for spec in specs]
    assert len({box.fingerprint for box in boxes}) == len(boxes)
    assert [box.versioned for box in boxes] == [True, True, True, False, False]
    for spec, box in zip(specs, boxes, strict=True):
        assert build(Spec.parse(f"maite:own_maite:{spec}")).fingerprint == box.fingerprint
    with torch.no_grad():
        weight = next(own.wrapped.network.parameters())
        weight.add_(1)
        assert build(Spec.parse(f"maite:own_maite:{specs[0]}")).fingerprint != boxes[0].fingerprint
        weight.sub_(1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_maite:plain", r"expected pixels=unit \(0 to 1\).*got None"),
        ("own_maite:plain?pixels=byte", "expected pixels=unit .*got 'byte'"),
        ("own_maite:plain?pixels=unit&channels=grey", "channels=rgb or channels=bgr"),
        ("own_maite:plain?pixels=unit", "expected metadata with 'index2label'.*or give the names"),
        ("own_maite:plain?pixels=unit&classes=a,b&speed=1", "knows the options channels, classes, pixels"),
        ("own_maite?pixels=unit", "expected maite:package.module:object"),
        ("no_such_module:a?pixels=unit", "maite: found no module 'no_such_module'"),
        ("own_maite:missing?pixels=unit", "has no 'missing'"),
        ("own_maite:number?pixels=unit", "expected a model or what makes one, got a int"),
        ("own_maite:Plain?pixels=unit&colour=red", "does not take the options {'colour': 'red'}"),
        ("own_maite:Nameless?pixels=unit&classes=a,b", "callable with metadata .*, got a Nameless with no"),
        ("own_maite:Worded?pixels=unit", "expected metadata with 'index2label'"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(CuratorError, match=message) as caught:
        build(Spec.parse(f"maite:{spec}"))
    assert "\n" not in str(caught.value)


def target(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"boxes": [[1, 2, 3, 4]], "labels": [1], "scores": [0.5]} | changes)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "expected a sequence with an answer per image, got NoneType"),
        ([], "expected an answer for each of 1 images, got 0"),
        ([{"boxes": []}], "got a dict without boxes, labels, scores"),
        ([target(labels=[3])], "expected labels among the 3 numbers of its classes, got 3"),
        ([target(scores=[[0.5, 0.5]])], r"expected scores \(1,\) or \(1, 3\), got \(1, 2\)"),
        ([target(scores=["0.5"])], "expected numbers as scores"),
        ([target(boxes=[[1, 2, 3]])], r"expected boxes \(n, 4\)"),
        ([target(boxes=[[1, 2, 3, 4], [1]])], "expected numbers as boxes"),
        ([target(boxes=[[np.nan, 2, 3, 4]])], "expected finite numbers"),
        ([target(scores=[1.2])], r"expected scores in \[0, 1\]"),
    ],
)
def test_bad_answers(own: Any, image: Tensor, answer: Any, message: str) -> None:
    box = build(Spec.parse("maite:own_maite:answers?pixels=unit"))
    own.answers.answer = answer
    (found,) = predict_each(box, [image], score_threshold=0.1)
    assert isinstance(found, InputError)
    with pytest.raises(InputError, match=message):
        raise found


def test_the_package_is_not_needed() -> None:
    script = "import curator.detect.maite, sys; print('maite' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
