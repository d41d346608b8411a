"""Responses, descriptors and the stored interpretation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curator.detect.load import load_detector
from curator.errors import ConfigError, InputError
from curator.explain.features.base import (
    Interpretation,
    Responses,
    cover,
    descriptors,
    inner_layers,
    input_boxes,
    responses,
)
from curator.explain.features.relevant import accuracy, characteristic, fit, measure
from curator.tensors import generator
from tests.explain import tiny_detectors as tiny


class Net(nn.Module):
    """Two blocks, one convolution used twice, an in-place addition, a gate of one cell and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)
        numbers = generator("net")
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=numbers) * 0.5

    def forward(self, u: Tensor) -> Tensor:
        x = self.first(u)
        y = self.shared(x)
        y += x
        y = self.shared(torch.relu(y)) * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(y).flatten(2).transpose(1, 2)


def detector() -> object:
    return tiny.TinyDetector(Net(), size=(8, 12), classes=2)


def test_a_layer_is_what_leaves_its_normalisation_and_activation() -> None:
    d = detector()
    u = tiny.picture(8, 12)[None]
    values = responses(d, u, d.pin(), source="conv")
    net = d.module
    torch.testing.assert_close(values["first.0"], net.first(u))
    torch.testing.assert_close(values["shared"], net.shared(net.first(u)))  # not what += made of it
    assert list(values) == ["first.0", "shared", "shared#1", "gate", "head"]


def test_recording_changes_no_value_and_leaves_no_hook() -> None:
    net, u = Net(), tiny.picture(8, 12)[None]
    before = net(u)
    with Responses(net) as recorder:
        torch.testing.assert_close(net(u), before, rtol=0, atol=0)
    assert recorder.values
    assert not any(module._forward_hooks for module in net.modules())


def test_inner_layers_leave_out_heads_and_gates() -> None:
    d = detector()
    assert inner_layers(d, tiny.picture(8, 12)[None], d.pin(), "conv") == ("first.0", "shared", "shared#1")
    builtin = load_detector("builtin:", "cpu")
    image = torch.zeros(3, 192, 192)
    names = inner_layers(builtin, image[None], builtin.pin(image), "conv")
    assert names
    assert all(name.startswith("backbone.") for name in names)
    assert inner_layers(builtin, image[None], builtin.pin(image), "levels") == builtin.levels


def test_a_network_of_one_layer_or_none_is_refused() -> None:
    d = tiny.TinyDetector(tiny.Linear((8, 12)), size=(8, 12))
    with pytest.raises(ConfigError, match="no inner layers of source 'conv'"):
        inner_layers(d, tiny.picture(8, 12)[None], d.pin(), "conv")
    with pytest.raises(ConfigError, match="has no layer absent"):
        responses(d, tiny.picture(8, 12)[None], d.pin(), source="conv", layers=("absent",))


def test_cover_is_the_share_of_each_cell_in_the_box() -> None:
    rows, columns = cover(np.array([[2, 1, 7, 8]], np.float32), (2, 3), (8, 12))
    np.testing.assert_allclose(rows, [[0.75, 1.0]])
    np.testing.assert_allclose(columns, [[0.5, 0.75, 0.0]])


def test_descriptors_are_energies_in_the_box_normalised_per_layer() -> None:
    values = {"a": torch.zeros(1, 2, 2, 2), "b": torch.zeros(1, 3, 4, 4)}
    values["a"][0, 0, 0, 0] = 3.0
    values["a"][0, 1, 0, 0] = -1.0
    values["a"][0, 1, 1, 1] = 9.0  # outside the first box
    boxes = np.array([[0, 0, 4, 4], [0, 0, 8, 8]], np.float32)
    x = descriptors(values, boxes, (8, 8))
    np.testing.assert_allclose(x[0], [0.75, 0.25, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(x[1, :2], np.array([3, np.sqrt(82)]) / (3 + np.sqrt(82)), atol=1e-6)
    scaled = descriptors({name: 7 * value for name, value in values.items()}, boxes, (8, 8))
    np.testing.assert_allclose(scaled, x, atol=1e-6)


def test_pooling_over_the_image_takes_the_whole_input() -> None:
    pin = detector().pin()
    boxes = np.array([[1.0, 1.0, 3.0, 3.0]])
    np.testing.assert_array_equal(input_boxes(boxes, pin, "image"), [[0, 0, 12, 8]])
    np.testing.assert_array_equal(input_boxes(boxes, pin, "box"), boxes)


def fitted(x: np.ndarray, labels: np.ndarray) -> Interpretation:
    return fit(
        x,
        labels,
        10.0,
        layers=("a", "b"),
        channels=(2, 3),
        classes=("u", "v"),
        fingerprint="f",
        source="conv",
        pooling="box",
        key="k",
    )


def test_a_class_known_by_one_filter_is_found_by_it() -> None:
    numbers = np.random.default_rng(0)
    labels = np.eye(2, dtype=bool)[np.arange(60) % 2]
    x = numbers.uniform(0.1, 0.2, (60, 5)).astype(np.float32)
    x[labels[:, 1], 3] += 0.4
    found = fitted(x, labels)
    best = characteristic(found, x, labels, 2)
    assert best[1][0][0] == 3
    assert found.filter_of(3) == ("b", 1)
    assert [found.filter_of(i) for i in (0, 1, 2, 4)] == [("a", 0), ("a", 1), ("b", 0), ("b", 2)]
    assert accuracy(found, x, labels) == 1.0
    assert found.relevant(1, x[1], 1)[0][1] == pytest.approx(found.weights[3, 1] * x[1, 3])
    assert all(r > 0 for _, r in found.relevant(1, x[1], 5))
    with pytest.raises(InputError, match="labelled objects"):
        fitted(x[:0], labels[:0])


def test_measured_features_of_a_detector() -> None:
    d = load_detector("builtin:", "cpu")
    image = tiny.picture(192, 192)
    layers = inner_layers(d, image[None], d.pin(image), "conv")
    boxes = np.array([[10, 10, 60, 80], [100, 20, 150, 90.0]])
    x, channels = measure(d, image, d.pin(image), boxes, layers=layers)
    assert x.shape == (2, sum(channels))
    np.testing.assert_allclose(x.sum(1), len(layers), rtol=1e-4)
    alone, _ = measure(d, image, d.pin(image), boxes[1:], layers=layers)
    np.testing.assert_allclose(alone[0], x[1], atol=1e-6)
    assert np.abs(x[0] - x[1]).max() > 1e-3


def test_an_interpretation_reads_back_equal(tmp_path: Path) -> None:
    labels = np.eye(2, dtype=bool)[np.arange(10) % 2]
    found = fitted(np.random.default_rng(1).uniform(size=(10, 5)).astype(np.float32), labels)
    found.save(tmp_path / "interpretation.safetensors")
    for path in (tmp_path, tmp_path / "interpretation.safetensors"):
        again = Interpretation.load(path)
        np.testing.assert_array_equal(again.weights, found.weights)
        assert (again.layers, again.channels, again.classes) == (("a", "b"), (2, 3), ("u", "v"))
        assert (again.samples, again.mu, again.pooling, again.key) == ((5, 5), 10.0, "box", "k")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="curator interpret --detector SPEC"):
        Interpretation.load(tmp_path / "absent")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(InputError, match="no safetensors file"):
        Interpretation.load(tmp_path / "text")
    detector_file = Path(__file__).parents[3] / "curator" / "example" / "weights" / "detector.safetensors"
    with pytest.raises(InputError, match="not written by this version"):
        Interpretation.load(detector_file)
