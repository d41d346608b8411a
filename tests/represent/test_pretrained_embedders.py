"""Real pretrained weights tell real objects apart about as measured before (README of the shared data)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from curator.detect.one_pass import one_pass
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.represent.embedders.load import load_embedder
from curator.tensors import image_tensor
from store.records import Pin

Labelled = tuple[Path, NDArray[np.float32], list[str]]


@pytest.fixture(scope="module")
def labelled(shared: Path) -> list[Labelled]:
    """voc100's images with boxes and classes."""
    found = []
    for path in sorted((shared / "voc100").rglob("*.xml")):
        root = ElementTree.parse(path).getroot()
        objects = root.findall("object")
        image = next((shared / "voc100").rglob(str(root.findtext("filename"))))
        corners = [[float(str(o.findtext(f"bndbox/{k}"))) for k in _CORNERS] for o in objects]
        found.append((image, np.array(corners, np.float32), [str(o.findtext("name")) for o in objects]))
    return found


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def precision(text: str, labelled: list[Labelled], view: str = "object") -> float:
    """Share of the five nearest boxes of other images that are of the same class."""
    detector = make_detector(SsdOptions(classes=("a",), size=96, channels=(8, 8, 16, 16, 16)))
    embedder = load_embedder(text, detector)
    vectors, labels, images = [], [], []
    for number, (path, boxes, names) in enumerate(labelled):
        image = image_tensor(np.asarray(Image.open(path).convert("RGB")))
        size = (int(image.shape[1]), int(image.shape[2]))
        pin = Pin(image_size=size, input_size=size, scale=(1.0, 1.0))
        vectors.append(embedder.embed(image[None], [pin], [boxes])[0][view])
        labels += names
        images += [number] * len(names)
    every, kinds, owner = np.concatenate(vectors), np.array(labels), np.array(images)
    every = every - every.mean(0)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    likeness = every @ every.T
    likeness[owner[:, None] == owner] = -9
    nearest = np.argsort(-likeness, axis=1)[:, :5]
    return float((kinds[nearest] == kinds[:, None]).mean())


MOBILENET = "weights/mobilenet_v1_1.0/mobilenet_v1_1.0_tf_layout_no_pw13.safetensors"
SQUEEZENET = "weights/squeezenet/squeezenet1_1_torchvision_layout.safetensors"


@pytest.mark.slow
def test_pretrained_networks_know_classes(shared: Path, labelled: list[Labelled]) -> None:
    mobilenet, squeezenet = f"safetensors:{shared / MOBILENET}", f"safetensors:{shared / SQUEEZENET}"
    crops = precision(f"{mobilenet}?layout=mobilenet_v1&levels=conv_dw_13&crops=128&side=224", labelled)
    assert crops > 0.5  # measured .56 with crops of 224
    one_look = precision(f"{mobilenet}?layout=mobilenet_v1&side=320", labelled)
    assert 0.35 < one_look < crops
    assert precision(f"{squeezenet}?layout=squeezenet&crops=128&side=224", labelled) > 0.4
    assert precision("torchvision:squeezenet1_1?weights=random&side=224", labelled) < 0.3


def test_mobilenets_cells_lie_where_the_geometry_says(shared: Path) -> None:
    """The gradient of a cell of every level is centred on its place, to a third of its stride."""
    from safetensors.torch import load_file

    from curator.represent.embedders.mobilenet import LEVELS, MobileNetV1

    network = MobileNetV1(load_file(shared / MOBILENET), "shared")
    u = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(0)).requires_grad_()
    maps = network(u)
    assert tuple(maps) == LEVELS
    for level in LEVELS[:3]:
        values, scale = maps[level].values, maps[level].scale[0]
        assert values.shape[-1] == 448 / scale
        row, column = values.shape[-2] // 2, values.shape[-1] // 2
        (gradient,) = torch.autograd.grad(values[0, :, row, column].sum(), u, retain_graph=True)
        weight = gradient.square().sum((0, 1))
        at = torch.arange(448) + 0.5
        x, y = (weight.sum(0) * at).sum() / weight.sum(), (weight.sum(1) * at).sum() / weight.sum()
        for place, index, offset in ((x, column, maps[level].offset[0]), (y, row, maps[level].offset[1])):
            assert abs(float(place) - (scale * index + offset)) < scale / 3 + 1


def test_one_look_of_the_detector_serves_several(shared: Path, labelled: list[Labelled]) -> None:
    detector = make_detector(SsdOptions(classes=("a", "b"), size=96, channels=(8, 8, 16, 16, 16)))
    text = f"detector:+safetensors:{shared / MOBILENET}?layout=mobilenet_v1&side=96"
    embedder = load_embedder(text, detector)
    path, boxes, _ = labelled[0]
    one = one_pass(detector, image_tensor(np.asarray(Image.open(path).convert("RGB"))), embedder.levels)
    views = embedder.embed(one.u[None], [one.pin], [boxes], features=one.features)[0]
    assert list(embedder.views) == ["object", "context", "mobilenet.object", "mobilenet.context"]
    assert list(embedder.image_views) == ["image", "mobilenet.image"]
    assert all(np.isfinite(values).all() for values in views.values())
