"""Average images: what a filter responds to (VEBI, Oramas et al., ICLR 2019, 4.1 and Figure 5).

In: a filter's responses inside boxes. Out: the mean of the patches around its `count` largest peaks, one
peak per object. A patch spans the layer's receptive field, which is measured: from the gradient of a
response with respect to the input, as far as 95% of its mass reaches (the effective receptive field, Luo et
al., NeurIPS 2016). Arithmetic on kernels and strides stops at branches, and for the deep layers of a detector
it gives the whole image, most of which hardly moves the response.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.features.base import Source, cover, responses
from store.records import Pin

SHARE = 0.95  # of the gradient's mass inside a patch, per axis
LONGEST = 96  # px of a patch at most; larger ones are scaled down, so that memory stays flat
SHOWN = 9  # patches kept beside the mean


class Peak(NamedTuple):
    """A response's largest value in a box: where (x, y) in the input frame, and of which image."""

    value: float
    image: int
    x: float
    y: float


def receptive_reaches(
    detector: Detector,
    examples: Sequence[tuple[Tensor, Pin]],
    *,
    source: Source,
    layers: Sequence[str],
    share: float = SHARE,
) -> dict[str, tuple[float, float]]:
    """Half the width and height (input px) of each layer's receptive field.

    Args:
        examples: prepared images (3, h, w) with their pins; the gradients' masses are added up.
    Returns:
        per layer (x, y), at least half a pixel.
    """
    masses: dict[str, list[NDArray[np.float64]]] = {}
    for image, pin in examples:
        u = image[None].detach().clone().requires_grad_(True)
        with torch.enable_grad():
            values = responses(detector, u, pin, source=source, layers=layers)
        for layer, value in values.items():
            row, column = value.shape[-2] // 2, value.shape[-1] // 2
            (gradient,) = torch.autograd.grad(value[0, :, row, column].sum(), u, retain_graph=True)
            mass = gradient[0].abs().sum(0).double().cpu().numpy()  # (h, w)
            centre = (
                _centre(row, value.shape[-2], mass.shape[0]),
                _centre(column, value.shape[-1], mass.shape[1]),
            )
            for axis in (0, 1):
                along = mass.sum(1 - axis)
                distance = np.abs(np.arange(len(along)) + 0.5 - centre[axis])
                spread = np.bincount(np.floor(distance).astype(int), weights=along).astype(np.float64)
                masses.setdefault(f"{axis}{layer}", []).append(spread)
    reaches = {}
    for layer in layers:
        found = [_quantile(masses[f"{axis}{layer}"], share) for axis in (1, 0)]
        reaches[layer] = (found[0], found[1])
    return reaches


def _centre(cell: int, cells: int, length: int) -> float:
    return (cell + 0.5) * length / cells


def _quantile(spreads: Sequence[NDArray[np.float64]], share: float) -> float:
    total = np.zeros(max(len(spread) for spread in spreads))
    for spread in spreads:
        total[: len(spread)] += spread
    if total.sum() == 0:
        return 0.5
    return float(np.searchsorted(np.cumsum(total) / total.sum(), share) + 0.5)


def peaks(
    values: Mapping[str, Tensor],
    filters: Sequence[tuple[str, int]],
    boxes: NDArray[np.float32],
    image: int,
    input_size: tuple[int, int],
) -> list[list[Peak]]:
    """Largest response of each filter in each box.

    Args:
        values: per layer (1, C, h, w). filters: (layer, channel). boxes: (n, 4) input frame.
        image: number of the image, to be found again.
    Returns:
        per filter its n peaks; boxes outside the input are left out.
    """
    found: list[list[Peak]] = []
    for layer, channel in filters:
        value = values[layer][0, channel].detach().float().cpu()  # (h, w)
        rows, columns = cover(boxes, (int(value.shape[0]), int(value.shape[1])), input_size)
        inside = rows[:, :, None] * columns[:, None, :]  # (n, h, w)
        weighted = torch.where(inside > 0, value * inside, -torch.inf).flatten(1)
        best, place = weighted.max(1)
        found.append(
            [
                Peak(
                    float(top),
                    image,
                    _centre(int(cell) % value.shape[1], value.shape[1], input_size[1]),
                    _centre(int(cell) // value.shape[1], value.shape[0], input_size[0]),
                )
                for top, cell in zip(best, place, strict=True)
                if torch.isfinite(top)
            ]
        )
    return found


class TopPeaks:
    """The `count` largest peaks of one feature; ties go to the earlier image."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, int, Peak]] = []
        self._order = 0

    def add(self, found: Sequence[Peak]) -> None:
        """Take in peaks; those of no response are none."""
        for peak in found:
            self._order -= 1
            if peak.value > 0:
                heapq.heappush(self._heap, (peak.value, self._order, peak))
                if len(self._heap) > self.count:
                    heapq.heappop(self._heap)

    def best(self) -> list[Peak]:
        """Largest first."""
        return [peak for _, _, peak in sorted(self._heap, reverse=True)]


def patch(image: Tensor, peak: Peak, reach: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Crop x (3, h, w) around a peak.

    Returns:
        the patch (3, p, q), its longer side at most LONGEST px, and which of it lies in the image (p, q), 0
        to 1.
    """
    half = [int(r) for r in reach]
    column, row = int(np.floor(peak.x)), int(np.floor(peak.y))
    padding = (half[0], half[0], half[1], half[1])
    known = F.pad(torch.cat([image, torch.ones_like(image[:1])]), padding)  # (4, h + ..., w + ...)
    crop = known[:, row : row + 2 * half[1] + 1, column : column + 2 * half[0] + 1]
    factor = LONGEST / max(crop.shape[1:])
    if factor < 1:
        size = (max(1, round(crop.shape[1] * factor)), max(1, round(crop.shape[2] * factor)))
        crop = F.interpolate(crop[None], size=size, mode="area")[0]
    return crop[:3], crop[3]


@dataclass
class AverageImage:
    """A running mean of patches of one size, and the first few of them as they are added.

    Attributes:
        background: (3,) colour where no patch has a pixel, and around the shown ones.
    """

    background: tuple[float, float, float]
    count: int = 0
    shown: list[tuple[Peak, Tensor]] = field(default_factory=list)
    _sum: Tensor | None = None
    _known: Tensor | None = None

    def add(self, peak: Peak, pixels: Tensor, known: Tensor) -> None:
        """Add a patch (3, p, q), 0 outside the image, and its coverage (p, q)."""
        pixels, known = pixels.detach().cpu().double(), known.detach().cpu().double()
        self._sum = pixels if self._sum is None else self._sum + pixels
        self._known = known if self._known is None else self._known + known
        self.count += 1
        self.shown.append((peak, (pixels + self._colour() * (1 - known)).float()))
        self.shown.sort(key=lambda pair: (-pair[0].value, pair[0].image))
        del self.shown[SHOWN:]

    def mean(self) -> Tensor:
        """(3, p, q) RGB [0, 1], each pixel over the patches that have it.

        Raises:
            ValueError: no patch was added.
        """
        if self._sum is None or self._known is None:
            raise ValueError("average image: expected at least one patch, got none")
        mean = torch.where(self._known > 0, self._sum / self._known.clamp_min(1e-6), self._colour())
        return mean.float()

    def _colour(self) -> Tensor:
        return torch.tensor(self.background, dtype=torch.float64).view(3, 1, 1)
