"""Guided backpropagation with the stride fix, and VEBI on a network whose features are planted."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop
from torch import Tensor, nn

from curator.detect.load import load_detector
from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.features.base import Interpretation
from curator.explain.fills.fill import MeanFill, MeanHole
from curator.explain.methods.guided import GuidedBackpropagation, GuidedBackward, resample
from curator.explain.methods.vebi import Vebi
from curator.tensors import generator

sys.path.insert(0, str(Path(__file__).parent))
from tiny_detectors import Convolutional, Linear, TinyDetector, blocks, picture

H, W = 16, 24
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


class Rectified(nn.Module):
    """Strided convolutions, pooling and rectifiers: (B, A, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.act1, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.act2, self.head = nn.ReLU(), nn.Conv2d(8, 2, 1)
        numbers = generator("rectified")
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=numbers) * 0.5

    def forward(self, u: Tensor) -> Tensor:
        x = self.act2(self.second(self.pool(self.act1(self.first(u)))))
        return self.head(x).flatten(2).transpose(1, 2)


class Colours(nn.Module):
    """Channel 0 answers to red, 1 to blue, 2 to everything; class 0 is red's, class 1 blue's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 4, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(3, 2, 1)
        weight = torch.zeros(3, 3, 4, 4)
        weight[0, 0], weight[0, 1:], weight[1, 2], weight[1, :2], weight[2] = 1, -1, 1, -1, 0.1
        self.first.weight.data, self.first.bias.data = weight / 16, torch.zeros(3)
        self.head.weight.data, self.head.bias.data = torch.eye(3)[:2, :, None, None] * 4, torch.zeros(2)

    def forward(self, u: Tensor) -> Tensor:
        return self.head(self.act(self.first(u))).flatten(2).transpose(1, 2)


def scene() -> Tensor:
    """A red square on the left, a blue one on the right, black ground."""
    image = torch.zeros(3, H, W)
    image[0, 4:10, 2:8] = 1.0
    image[2, 6:12, 14:20] = 1.0
    return image


def guided(detector: TinyDetector, image: Tensor, targets: list[Target], **settings: str):
    method = GuidedBackpropagation(AttributionOptions(settings=settings))
    segments = blocks(*image.shape[1:], 2, 2)
    return method.explain(
        detector, image, detector.pin(), segments, MeanFill(), targets, seed=0, image_key=""
    )


def test_without_the_fix_it_is_captums_guided_backpropagation() -> None:
    net, image = Rectified(), picture(H, W)
    detector = TinyDetector(net, size=(H, W), classes=2)
    targets = [Target(candidate=c, label=k, kind="log_odds") for c in range(0, 24, 5) for k in (0, 1)]
    ours = guided(detector, image, targets, stride_fix="0")
    for target, found in zip(targets, ours, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum announces the hooks that it sets
            theirs = GuidedBackprop(net).attribute(
                image[None].clone().requires_grad_(True), target=(target.candidate, target.label)
            )
        expected = theirs[0].detach().abs().sum(0).numpy()
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
        score = float(net(image[None])[0, target.candidate, target.label])
        assert found.full == pytest.approx(score, abs=1e-5)
        assert np.isnan(found.gap)
        assert found.evidence == bool(expected.max() > 0.01)
    assert sum(found.evidence for found in ours) >= 3


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(4, 2, 1, 1), (3, 2, 1, 1), (3, 3, 2, 2)]
)
def test_a_strided_convolution_passes_back_at_stride_one(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    numbers = generator("stride", kernel, dilation)
    u = torch.randn(1, 3, 15, 20, generator=numbers).requires_grad_(True)
    weight = torch.randn(5, 3, kernel, kernel, generator=numbers)
    with GuidedBackward():
        out = F.conv2d(u, weight, None, stride, padding, dilation)
    torch.testing.assert_close(out, F.conv2d(u, weight, None, stride, padding, dilation))
    gradient = torch.randn(out.shape, generator=numbers)
    mask = dilation * (kernel - 1) + 1
    side_one = (15 + 2 * padding - mask + 1, 20 + 2 * padding - mask + 1)  # eq. (3) at S = 1
    assert F.conv2d(u, weight, None, 1, padding, dilation).shape[2:] == side_one
    spread = F.interpolate(gradient, size=side_one, mode="nearest")
    spread = spread * gradient[0, 0].numel() / spread[0, 0].numel()
    expected = F.conv_transpose2d(spread, weight, None, 1, padding, 0, 1, dilation)
    torch.testing.assert_close(torch.autograd.grad(out, u, gradient)[0], expected)


def test_pooling_passes_back_at_stride_one_too() -> None:
    u = torch.randn(1, 2, 9, 12, generator=generator("pool")).requires_grad_(True)
    for pool, options in ((F.max_pool2d, {"ceil_mode": True}), (F.avg_pool2d, {"padding": 1})):
        with GuidedBackward():
            out = pool(u, 3, 2, **options)
        torch.testing.assert_close(out, pool(u, 3, 2, **options))
        gradient = torch.rand(out.shape, generator=generator("pool", 1))
        at_one = pool(u, 3, 1, **options)
        expected = torch.autograd.grad(at_one, u, resample(gradient, tuple(at_one.shape[2:])))[0]
        torch.testing.assert_close(torch.autograd.grad(out, u, gradient)[0], expected)


def test_the_fix_removes_the_grid() -> None:
    u = torch.rand(1, 3, 32, 32, generator=generator("grid")).requires_grad_(True)
    weight = torch.ones(4, 3, 3, 3)  # kernel 3 at stride 2: pixels are seen by 1, 2 or 4 cells
    maps = []
    for fix in (False, True):
        with GuidedBackward(stride_fix=fix):
            out = F.conv2d(u, weight, None, 2, 1)
        gradient = torch.autograd.grad(out.sum(), u)[0][0, 0, 4:-4, 4:-4]
        maps.append(float(gradient.std() / gradient.mean()))
    assert maps[0] > 0.4
    assert maps[1] < 0.02


def test_activations_clip_gradients_however_they_are_written() -> None:
    x = torch.tensor([-2.0, -0.5, 0.5, 2.0, 3.0])
    gradient = torch.tensor([1.0, 1.0, 1.0, -1.0, 2.0])
    for function in (F.relu, torch.relu, Tensor.relu, nn.ReLU(inplace=True), lambda v: (v * 1).relu_()):
        leaf = x.clone().requires_grad_(True)
        with GuidedBackward():
            out = function(leaf)
        torch.testing.assert_close(out, x.clamp_min(0))
        torch.testing.assert_close(
            torch.autograd.grad(out, leaf, gradient)[0], torch.tensor([0, 0, 1, 0, 2.0])
        )
    slopes = []
    for silu in (F.silu, nn.SiLU(), lambda v: v * v.sigmoid(), lambda v: torch.mul(torch.sigmoid(v), v)):
        leaf = x.clone().requires_grad_(True)
        with GuidedBackward():
            out = silu(leaf)
        torch.testing.assert_close(out, F.silu(x))
        slopes.append(torch.autograd.grad(out, leaf, gradient)[0])
        torch.testing.assert_close(slopes[-1], slopes[0])
    assert slopes[0].tolist()[:2] == [0.0, 0.0]
    assert slopes[0][3] == 0


def test_scores_are_unchanged_and_targets_do_not_see_each_other() -> None:
    detector = load_detector("builtin:", "cpu")
    image = picture(192, 192)
    pin, index = detector.pin(image), torch.tensor([5, 1000])
    u = image[None].clone().requires_grad_(True)
    with GuidedBackward():
        inside = detector.candidates(u, pin, index=index).scores
    torch.testing.assert_close(
        inside, detector.candidates(image[None], pin, index=index).scores, rtol=0, atol=1e-6
    )
    tiny = TinyDetector(Rectified(), size=(H, W), classes=2)
    targets = [Target(candidate=9, label=1), Target(candidate=3, label=0)]
    together = guided(tiny, picture(H, W), targets)
    alone = guided(tiny, picture(H, W), targets[1:])[0]
    np.testing.assert_allclose(together[1].values, alone.values, atol=1e-7)
    assert alone.passes == together[1].passes == 4


def test_a_score_that_ignores_the_input_has_no_evidence() -> None:
    detector = TinyDetector(Convolutional(), size=(H, W), classes=2)
    detector.module.head.weight.data.zero_()
    found = guided(detector, picture(H, W), [Target(candidate=2, label=0)])[0]
    assert not found.evidence
    assert not found.values.any()


# ------------------------------------------------------------ VEBI


@pytest.fixture
def planted(tmp_path: Path) -> tuple[TinyDetector, Path]:
    """The colour network, and an interpretation that says so."""
    detector = TinyDetector(Colours(), size=(H, W), classes=2)
    save(tmp_path / "m.safetensors", np.array([[1, 0], [0, 1], [0.1, 0.1]]))
    return detector, tmp_path / "m.safetensors"


def save(path: Path, weights: np.ndarray, **changes: object) -> None:
    fields: dict[str, object] = {
        "layers": ("first",),
        "channels": (3,),
        "classes": ("class0", "class1"),
        "samples": (9, 9),
        "mu": 10.0,
        "source": "conv",
        "pooling": "box",
        "fingerprint": "tiny:Colours",
        "key": "k",
    }
    Interpretation(weights=weights.astype(np.float32), **{**fields, **changes}).save(path)  # type: ignore[arg-type]


LEFT, RIGHT = (0.0, 0.0, 12.0, 16.0), (12.0, 0.0, 24.0, 16.0)


def explain(detector: TinyDetector, path: Path, targets: list[Target], fill: object = None, **settings: str):
    method = Vebi(AttributionOptions(settings={"model": str(path), **settings}))
    return method.explain(
        detector,
        scene(),
        detector.pin(),
        blocks(H, W, 2, 2),
        fill or MeanFill(),  # type: ignore[arg-type]
        targets,
        seed=0,
        image_key="",
    )


@pytest.mark.parametrize("visual", ["fixed", "guided", "activation"])
def test_the_map_shows_the_classs_feature_inside_the_box(
    planted: tuple[TinyDetector, Path], visual: str
) -> None:
    red, blue = explain(
        *planted,
        [Target(candidate=0, label=0, box=LEFT), Target(candidate=0, label=1, box=RIGHT)],
        visual=visual,
    )
    for found, (y, x), channel in ((red, (4, 2), 0), (blue, (6, 14), 1)):
        assert found.evidence
        assert found.extra["channel"] == channel
        inside = found.values[max(0, y - 3) : y + 9, max(0, x - 3) : x + 9].sum()  # a kernel's reach
        assert inside > 0.95 * found.values.sum() > 0
        assert found.values.min() >= 0
        assert found.values.max() == pytest.approx(found.extra["contribution"], rel=1e-5)
        assert found.passes == (3 if visual == "activation" else 4)


def test_the_contribution_is_w_times_the_normalised_energy(planted: tuple[TinyDetector, Path]) -> None:
    detector, path = planted
    (found,) = explain(detector, path, [Target(candidate=0, label=0, box=LEFT)])
    energy = detector.module.act(detector.module.first(scene()[None]))[0, :, :, :6].flatten(1).norm(dim=1)
    assert found.extra["contribution"] == pytest.approx(float(energy[0] / energy.sum()), rel=1e-5)
    several = explain(detector, path, [Target(candidate=0, label=0, box=LEFT)], features="3")[0]
    assert several.values.sum() > found.values.sum()
    assert several.passes == found.passes + 1  # blue does not answer there


def test_no_relevant_feature_is_no_evidence(planted: tuple[TinyDetector, Path]) -> None:
    save(planted[1], np.array([[1, 0], [0, 1], [0, 0]]))
    (found,) = explain(*planted, [Target(candidate=0, label=1, box=LEFT)])
    assert not found.evidence
    assert not found.values.any()


def test_targets_alone_and_together_and_either_fill(planted: tuple[TinyDetector, Path]) -> None:
    targets = [Target(candidate=0, label=0, box=LEFT), Target(candidate=0, label=1, box=RIGHT)]
    together = explain(*planted, targets)
    for number, target in enumerate(targets):
        (alone,) = explain(*planted, [target], fill=MeanHole((0.0, 0.0, 0.0)))
        np.testing.assert_allclose(alone.values, together[number].values, atol=1e-6)
        assert alone.empty == pytest.approx(together[number].empty, abs=1e-6)


def test_pooling_over_the_image_needs_no_box(planted: tuple[TinyDetector, Path]) -> None:
    save(planted[1], np.eye(3)[:, :2], pooling="image")
    assert explain(*planted, [Target(candidate=0, label=1)])[0].evidence
    save(planted[1], np.eye(3)[:, :2])
    with pytest.raises(InputError, match="expected the targets' boxes"):
        explain(*planted, [Target(candidate=0, label=1)])


def test_what_is_missing_is_named(planted: tuple[TinyDetector, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `curator interpret --detector SPEC --out DIR`"):
        Vebi()
    with pytest.raises(ConfigError, match="found none; fit one with"):
        Vebi(AttributionOptions(settings={"model": str(tmp_path / "absent")}))
    with pytest.raises(ConfigError, match="visual: expected one of fixed"):
        explain(*planted, [Target(candidate=0, label=0, box=LEFT)], visual="pretty")
    other = TinyDetector(Linear((H, W)), size=(H, W), classes=2)
    with pytest.raises(ConfigError, match="an interpretation of tiny:Linear"):
        explain(other, planted[1], [Target(candidate=0, label=0, box=LEFT)])
