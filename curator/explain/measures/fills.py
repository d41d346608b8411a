"""What a fill leaves of the object that it removes (G-methods, Table 1).

In: images, the objects' masks, fills. Out: per fill the share of objects that are still recognised and the
MS-SSIM between original and filled (Wang, Simoncelli & Bovik, 2003); both are lower for a fill that removes
more. The paper's third column, LPIPS, needs ImageNet weights that no package brings along, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curator.errors import InputError

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, fine to coarse (Wang et al., 2003, section 3.2)."""
_WINDOW, _SIGMA = 11, 1.5  # px of the Gaussian window (Wang et al., 2004)
_C1, _C2 = 0.01**2, 0.03**2  # for a range of 1

FillCall = Callable[[Tensor, Tensor, int], Tensor]
"""x (3, h, w), hole (h, w), seed -> filled (3, h, w); `HoleFill.fill` is one."""


@dataclass(frozen=True, slots=True)
class FillResult:
    """One fill over all images: share still recognised and mean MS-SSIM, each in [0, 1]."""

    name: str
    accuracy: float
    ms_ssim: float
    count: int


def fill_study(
    objects: Iterable[tuple[Tensor, Tensor]],
    fills: Mapping[str, FillCall],
    recognised: Callable[[Tensor, int], bool],
    *,
    seed: int = 0,
) -> list[FillResult]:
    """Remove each object by each fill; the first row, "real", is the untouched images.

    Args:
        objects: x (3, h, w) RGB [0, 1] of at least 176 px and the object's mask (h, w) bool; read once.
        recognised: given a filled image and the object's number, does the network still find it?
    Raises:
        InputError: no object, or an image that is too small for MS-SSIM.
    """
    found: dict[str, list[tuple[bool, float]]] = {"real": [], **{name: [] for name in fills}}
    for number, (image, hole) in enumerate(objects):
        found["real"].append((recognised(image, number), 1.0))
        for name, fill in fills.items():
            filled = fill(image, hole, seed)
            found[name].append((recognised(filled, number), ms_ssim(image, filled)))
    if not found["real"]:
        raise InputError("fill study: expected at least one object, got none")
    return [
        FillResult(
            name, float(np.mean([r for r, _ in rows])), float(np.mean([s for _, s in rows])), len(rows)
        )
        for name, rows in found.items()
    ]


def ms_ssim(a: Tensor, b: Tensor) -> float:
    """MS-SSIM of two images (C, h, w) in [0, 1], the mean over channels: product over scales j of cs_j^w_j,
    the last one times luminance. Negative means count as 0, so that fractional powers exist.

    Raises:
        InputError: images of different sizes, or with a side below 176 px: five scales need 11 px each.
    """
    least = _WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
    if a.shape != b.shape or min(a.shape[1:]) < least:
        raise InputError(
            f"MS-SSIM: expected two images of one size of at least {least} px, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    steps = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    kernel = torch.exp(-0.5 * (steps / _SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    x, y = a.double().cpu()[:, None], b.double().cpu()[:, None]  # channels as a batch: (C, 1, h, w)
    total = torch.ones(len(x), dtype=torch.float64)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _ssim_parts(x, y, kernel)
        last = scale == len(SCALE_WEIGHTS) - 1
        value = (luminance * structure if last else structure).mean((1, 2, 3))
        total = total * value.clamp_min(0) ** weight
    return float(total.mean())


def _ssim_parts(x: Tensor, y: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps over windows that lie inside (C, 1, h, w)."""

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_x + var_y + _C2)
