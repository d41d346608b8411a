"""Views by inner layers: the right layers, sums that add up, segments that get what is theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from curator.explain.base import Target
from curator.explain.inner_layers import choose_layers, inner_layers, recorded
from curator.explain.masked import MaskedImages
from curator.explain.target import TargetScores

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import TinyDetector, blocks, picture

H, W = 32, 48


class Pyramid(nn.Module):
    """Halves of which no two cells share a pixel, then one coarse level; linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 2, stride=2, bias=False)
        self.same = nn.Conv2d(4, 4, 1, bias=False)
        self.down = nn.Conv2d(4, 5, 2, stride=2, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        return self.down(self.same(self.stem(u))).flatten(1).sum(1)[:, None, None]


class Patches(nn.Module):
    """A transformer's way in: no feature map at any of the strides."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.out = nn.Linear(3 * H * W, 1)

    def forward(self, u: Tensor) -> Tensor:
        return self.out(self.flat(u))[:, None]


def prepared(module: nn.Module) -> tuple[TinyDetector, TargetScores, Tensor, Tensor]:
    detector = TinyDetector(module, size=(H, W))
    scores = TargetScores(detector, detector.pin(), [Target(candidate=0, label=0, kind="log_odds")])
    return detector, scores, picture(H, W), torch.full((3, H, W), 0.4)


def test_the_last_layer_of_each_stride_before_a_coarser_one_is_chosen() -> None:
    names = ["stem", "stem.act", "dark2", "dark3", "dark4", "up", "head", "head"]
    shapes = [(208, 304), (208, 304), (104, 152), (52, 76), (26, 38), (52, 76), (52, 76), (26, 38)]
    assert choose_layers(names, shapes, (416, 608)) == [1, 2, 3, 4]
    squeezed = [*shapes[:2], (1, 1), *shapes[2:]]  # attention over channels within a stage
    assert choose_layers([*names[:2], "squeeze", *names[2:]], squeezed, (416, 608))[0] == 1
    squeezed = [shapes[0], (1, 1), *shapes[1:]]
    assert choose_layers([names[0], "squeeze", *names[1:]], squeezed, (416, 608))[0] == 2
    sliced = [(416, 304), *shapes[:1], (208, 608), *shapes[1:]]  # a space-to-depth stem's ways there
    assert choose_layers(["a", names[0], "b", *names[1:]], sliced, (416, 608))[0] == 3
    shared = ["stem", "stem", "dark2", "dark3", "dark4", "up", "head", "head"]
    assert choose_layers(shared, shapes, (416, 608)) == [2, 3, 4]  # one that runs twice has no one output
    residual = ["layer1.0.relu", "layer1", "layer2.0.conv1", "layer2.0.conv2", "layer2"]
    sides = [(104, 152)] * 3 + [(52, 76)] * 2  # conv1 lies beside layer2's shortcut
    assert choose_layers(residual, sides, (416, 608)) == [1, 4]
    assert choose_layers([], [], (416, 608)) == []


def test_layers_and_recording_leave_no_hook_behind() -> None:
    detector, scores, image, baseline = prepared(Pyramid())
    network = detector.modules()
    found = inner_layers(network, scores, image, baseline, blocks(H, W, 4, 6))
    assert [layer.name for layer in found] == ["same", "down"]
    with recorded(network, ["stem"]) as outputs:
        scores(image[None])
        assert tuple(outputs["stem"].shape) == (1, 4, H // 2, W // 2)
    assert not any(module._forward_hooks for module in network.modules())
    assert inner_layers(None, scores, image, baseline, blocks(H, W, 4, 6)) == []


def test_every_view_of_a_linear_network_gives_each_segment_its_own() -> None:
    detector, scores, image, baseline = prepared(Pyramid())
    segments = blocks(H, W, 4, 6)  # of 8 x 8 pixels: no cell lies in two
    layers = inner_layers(detector.modules(), scores, image, baseline, segments)
    masked = MaskedImages(scores, image, baseline, segments, batch_size=3)
    weights = np.random.default_rng(0).random((5, masked.count)).astype(np.float32)
    found = masked.samples(weights, network=detector.modules(), layers=layers)
    assert found.shape == (3, 1, 5, masked.count)
    np.testing.assert_allclose(found[0].mean(1), masked.mean_products(weights), atol=1e-5)
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def test_a_cell_across_segments_is_shared_by_pixels_and_nothing_is_lost() -> None:
    detector, scores, image, baseline = prepared(Pyramid())
    segments = np.zeros((H, W), dtype=np.uint16)
    segments[:, 1:] = 1  # one column of half a fine cell, a quarter of a coarse one
    layers = inner_layers(detector.modules(), scores, image, baseline, segments)
    masked = MaskedImages(scores, image, baseline, segments, batch_size=8)
    found = masked.samples(np.ones((1, 2), np.float32), network=detector.modules(), layers=layers)
    full, empty = masked.evaluate(np.array([[1, 1], [0, 0]], np.float32))[:, 0]
    np.testing.assert_allclose(found.sum(-1).ravel(), full - empty, rtol=1e-4)
    assert (layers[0].shares[layers[0].segments == 0] == 0.5).all()
    assert (layers[1].shares[layers[1].segments == 0] == 0.25).all()


def test_a_network_without_feature_maps_has_no_inner_views() -> None:
    detector, scores, image, baseline = prepared(Patches())
    assert inner_layers(detector.modules(), scores, image, baseline, blocks(H, W, 4, 6)) == []
