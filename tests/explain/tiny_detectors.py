"""Detectors small enough to check by hand: real modules behind the whole `Detector` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from curator.detect.base import Candidates
from curator.tensors import generator
from store.records import Detections, Pin


class TinyDetector:
    """A module u (B, 3, h, w) -> (B, A, K) as a detector.

    Args:
        values: "log_odds" when the module gives log-odds (scores are their sigmoid), "probability" when it
            gives the scores themselves (then there are no log-odds).
    """

    levels: tuple[str, ...] = ()

    def __init__(
        self,
        module: nn.Module,
        *,
        size: tuple[int, int],
        classes: int = 1,
        values: str = "log_odds",
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.module = module.requires_grad_(False).eval()
        self.size, self.values, self.mean_color = size, values, mean
        self.classes = tuple(f"class{i}" for i in range(classes))
        self.spec = f"tiny:{type(module).__name__}"
        self.fingerprint = self.spec
        self.forwards: list[int] = []  # batch sizes seen

    def to(self, device: torch.device) -> Self:
        self.module.to(device)
        return self

    def pin(self) -> Pin:
        return Pin(image_size=self.size, input_size=self.size, scale=(1.0, 1.0))

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        return image

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        self.forwards.append(len(u))
        values = self.module(u)
        if index is not None:
            values = values[:, index]
        boxes = u.new_tensor([0.0, 0.0, self.size[1], self.size[0]]).expand(*values.shape[:2], 4)
        if self.values == "probability":
            return Candidates(values, None, boxes)
        return Candidates(values.sigmoid(), values, boxes)

    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        found = []
        for image in images:
            with torch.no_grad():
                scores = self.candidates(image[None], self.pin()).scores[0]
            best, label = scores.max(1)
            keep = np.flatnonzero(best.numpy() > score_threshold)
            boxes = np.tile(np.array([0, 0, self.size[1], self.size[0]], np.float32), (len(keep), 1))
            found.append(
                (
                    Detections(
                        boxes=boxes, scores=best.numpy()[keep], labels=label.numpy()[keep], candidates=keep
                    ),
                    self.pin(),
                )
            )
        return found

    def modules(self) -> nn.Module:
        return self.module


class Linear(nn.Module):
    """s_a(u) = <a, u> for fixed random a: (B, A, 1)."""

    def __init__(self, size: tuple[int, int], candidates: int = 2, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(candidates, 3, *size, generator=generator("linear", seed)) / 10
        self.weight = nn.Parameter(weight)

    def forward(self, u: Tensor) -> Tensor:
        return torch.einsum("bchw,achw->ba", u, self.weight)[..., None]


class Constant(nn.Module):
    """A score that does not depend on the input, with or without a graph to it."""

    def __init__(self, *, connected: bool) -> None:
        super().__init__()
        self.connected = connected

    def forward(self, u: Tensor) -> Tensor:
        value = (u * 0).sum((1, 2, 3)) if self.connected else u.new_zeros(len(u))
        return (value + 0.3)[:, None, None]


class Product(nn.Module):
    """F = w1 w2 w3 on an image of ones with three vertical stripes, baseline 0."""

    def forward(self, u: Tensor) -> Tensor:
        width = u.shape[-1] // 3
        stripes = [u[..., i * width : (i + 1) * width].mean((1, 2, 3)) for i in range(3)]
        return (stripes[0] * stripes[1] * stripes[2])[:, None, None]


class Scaled(nn.Module):
    """alpha times another module."""

    def __init__(self, inner: nn.Module, alpha: float) -> None:
        super().__init__()
        self.inner, self.alpha = inner, alpha

    def forward(self, u: Tensor) -> Tensor:
        return self.alpha * self.inner(u)


class Convolutional(nn.Module):
    """Two smooth convolutions and a head: (B, A, K) log-odds over the cells of a grid."""

    def __init__(self, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, classes, 1)
        numbers = generator("convolutional", seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=numbers) * 0.5

    def forward(self, u: Tensor) -> Tensor:
        features = torch.tanh(self.second(torch.tanh(self.first(u))))
        return self.head(features).flatten(2).transpose(1, 2)


class IgnoresLeft(nn.Module):
    """A network that does not look at the left half of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Convolutional(seed=4)

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(u[..., u.shape[-1] // 2 :]).mean(1, keepdim=True)


class SymmetricQuarters(nn.Module):
    """A smooth function of the means of the image's four quarters in which they play equal parts."""

    def forward(self, u: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(u.mean(1), 2).flatten(1)
        return torch.tanh(8 * means**2).sum(1)[:, None, None]


def blocks(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Labels (height, width) of a grid of rows x columns rectangles."""
    y = np.arange(height) * rows // height
    x = np.arange(width) * columns // width
    return (y[:, None] * columns + x[None, :]).astype(np.uint16)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) of random smooth colours."""
    coarse = torch.rand(1, 3, 4, 4, generator=generator("picture", seed))
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[0]
