"""How light, sharpness and noise of a photograph are told from its pixels.

In: images (3, H, W) RGB [0, 1] and parts of them. Out: figures that `compose` and the `appearance` recipe
match.

    blur      standard deviation s in pixels of the Gaussian that blurred the sharpest edges: re-blurred by s1
              and s2, an edge's gradient falls by R = sqrt((s^2 + s2^2) / (s^2 + s1^2)) (Zhuo & Sim, Defocus
              map estimation from a single image, Pattern Recognition 2011, eq. 5)
    noise     standard deviation of the luminance from the median absolute diagonal difference (the finest
              Haar wavelets; Donoho & Johnstone, Biometrika 1994)
    spread    5% to 95% range of the luminance: what haze and low contrast make small
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor

from curator.inpaint.masks import Mask

Array = NDArray[np.float64]
SHARPEST = 0.4
"""Pixels; no lens and demosaicing is sharper, and smaller figures are estimates of nothing."""
BLURREST = 4.0
_NARROW, _WIDE = 0.7, 1.5  # pixels, s1 and s2
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def lab_of(image: Tensor) -> Array:
    """CIE Lab (H, W, 3) of an image (3, H, W) RGB [0, 1]."""
    return np.asarray(rgb2lab(image.permute(1, 2, 0).numpy()), dtype=np.float64)


def rgb_of(lab: Array) -> Tensor:
    """RGB (3, H, W) float32 in [0, 1] of CIE Lab (H, W, 3); colours that RGB has not are clipped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")
        rgb = np.clip(lab2rgb(lab), 0, 1).astype(np.float32)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def luminance(image: Tensor) -> Array:
    """Luma (H, W) in [0, 1] of an image (3, H, W)."""
    return np.asarray(np.tensordot(_LUMINANCE, image.numpy().astype(np.float64), axes=1))


def blur(image: Tensor, part: Mask | None = None) -> float:
    """Blur of an image's sharpest edges in pixels, in [SHARPEST, BLURREST]; of those in `part` (H, W) alone.

    Returns:
        nan where nothing is an edge: a gradient of two hundredths of the range a pixel.
    """
    grey = luminance(image)
    narrow, wide = (
        ndimage.gaussian_gradient_magnitude(grey, sigma, mode="nearest") for sigma in (_NARROW, _WIDE)
    )
    chosen = np.ones(grey.shape, bool) if part is None else part
    bound = max(0.02, float(np.quantile(narrow[chosen], 0.95))) if chosen.any() else np.inf
    edges = chosen & (narrow >= bound)
    if edges.sum() < 8:
        return float("nan")
    ratio = np.maximum(narrow[edges] / np.maximum(wide[edges], 1e-9), 1.001) ** 2
    squares = (_WIDE**2 - ratio * _NARROW**2) / (ratio - 1)
    return float(np.clip(np.sqrt(max(float(np.median(squares)), 0.0)), SHARPEST, BLURREST))


def noise(image: Tensor, part: Mask | None = None) -> float:
    """Standard deviation of the noise of the luminance, in [0, 1]; of the pixels in `part` (H, W) alone."""
    grey = luminance(image)
    if min(grey.shape) < 2:
        return 0.0
    diagonal = (grey[:-1, :-1] - grey[:-1, 1:] - grey[1:, :-1] + grey[1:, 1:]) / 2
    values = diagonal if part is None else diagonal[part[:-1, :-1]]
    return float(np.median(np.abs(values))) / 0.6745 if values.size else 0.0


def spread(image: Tensor, part: Mask | None = None) -> float:
    """Range of the luminance without its darkest and lightest twentieth, in [0, 1]."""
    grey = luminance(image) if part is None else luminance(image)[part]
    low, high = np.quantile(grey, [0.05, 0.95]) if grey.size else (0.0, 0.0)
    return float(high - low)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image (3, H, W) through a Gaussian of `sigma` pixels."""
    if sigma <= 0:
        return image
    out = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.asarray(out, dtype=np.float32))


def noisy(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """An image (3, H, W) with noise of the luminance of this standard deviation, clipped to [0, 1]."""
    if sigma <= 0:
        return image
    grain = torch.from_numpy(rng.normal(0, sigma, tuple(image.shape[1:])).astype(np.float32))
    return (image + grain).clamp(0, 1)


def rim(mask: Mask, reach: int, apart: int = 2) -> Mask:
    """The pixels around a mask (H, W): from `apart` to `reach` pixels away."""
    distance = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    return np.asarray((distance > apart) & (distance <= max(reach, apart + 2)))


def mean_and_spread(lab: Array, part: Mask) -> tuple[Array, Array]:
    """Mean and standard deviation (3,) of Lab (H, W, 3) over a part; of all of it where that is empty."""
    values = lab[part] if part.any() else lab.reshape(-1, 3)
    return values.mean(0), values.std(0)


def gap(one: Sequence[float] | Array, two: Sequence[float] | Array) -> float:
    """Euclidean distance."""
    return float(np.linalg.norm(np.asarray(one) - np.asarray(two)))
