"""What tells a painted part of a picture from its surroundings: figures of light, sharpness, noise and seam.

In: an image and the mask of a part. Out: a vector of `NAMES`, NaN where a figure cannot be had (a mask that
fills the picture has no surroundings). No weights and no constants of a data set are in it: `realism` learns
on the user's own pictures which values are usual.

Of the coefficients of naturalness (MSCN, mean-subtracted contrast-normalised luminance) follow Mittal et al.,
"Making a 'Completely Blind' Image Quality Analyzer" (NIQE), IEEE Signal Processing Letters 2013.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from torch import Tensor

from curator.inpaint.masks import Mask, bounds

Array = NDArray[np.float64]

_SCALES = (0, 1, 2)  # octaves at which sharpness is compared
_SHIFTS = (-3, -1, 0, 1, 3)  # pixels from the border, inwards negative
SIDE = 96.0
"""A part is looked at at no more than about so many pixels a side, so that figures compare."""
_EPS = 1e-3

NAMES = (
    *(f"{channel} inside less outside" for channel in ("lightness", "green-red", "blue-yellow")),
    *(f"spread of {channel} inside to outside" for channel in ("lightness", "green-red", "blue-yellow")),
    *(f"spread of {channel} inside" for channel in ("lightness", "green-red", "blue-yellow")),
    *(f"sharpness at octave {octave} inside to outside" for octave in _SCALES),
    *(f"sharpness at octave {octave} inside" for octave in _SCALES),
    "noise inside to outside",
    "noise inside",
    "chroma inside less outside",
    "most chroma inside less outside",
    "clipped pixels inside less outside",
    "MSCN spread inside to outside",
    "MSCN spread inside",
    "MSCN peakedness inside",
    "MSCN neighbours inside",
    *(f"step {shift:+d} pixels from the border" for shift in _SHIFTS),
    "step over the border to steps beside it",
    "edges along the border to edges inside",
    "grain of one pixel to two",
    "flat pixels inside less outside",
)


def describe(image: Tensor, mask: Mask) -> Array:
    """Figures of a part.

    Args:
        image: (3, H, W) RGB in [0, 1]. mask: (H, W) bool, True in the part; at least one pixel.
    Returns:
        (len(NAMES),), NaN where a figure cannot be had.
    """
    pixels, inside, outside = window(image, mask)
    lab = np.asarray(rgb2lab(pixels), np.float64)
    light: Array = lab[..., 0]
    found: list[float] = []
    bare = not outside.any()

    def less(values: Array) -> float:
        return np.nan if bare else float(values[inside].mean() - values[outside].mean())

    def ratio(values: Array) -> float:
        return np.nan if bare else _log(values[inside]) - _log(values[outside])

    found += [less(np.asarray(lab[..., c])) for c in range(3)]
    spreads = [
        (float(lab[..., c][inside].std()), np.nan if bare else float(lab[..., c][outside].std()))
        for c in range(3)
    ]
    found += [float(np.log(a + 0.5) - np.log(b + 0.5)) for a, b in spreads]
    found += [float(np.log(a + 0.5)) for a, _ in spreads]
    sharp = [np.abs(_band(light, octave)) for octave in _SCALES]
    found += [ratio(band) for band in sharp]
    found += [_log(band[inside]) for band in sharp]
    grain = np.abs(light - ndimage.median_filter(light, 3))
    found += [ratio(grain), _log(grain[inside])]
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    found.append(less(chroma))
    found.append(
        np.nan if bare else float(np.percentile(chroma[inside], 95) - np.percentile(chroma[outside], 95))
    )
    clipped = np.asarray(((pixels < 0.01) | (pixels > 0.99)).any(-1), np.float64)
    found.append(less(clipped))
    normal = _mscn(light)
    spread = float(normal[inside].std())
    found.append(
        np.nan if bare else float(np.log(spread + 0.05) - np.log(float(normal[outside].std()) + 0.05))
    )
    found.append(spread)
    found.append(float(np.mean(np.abs(normal[inside])) / max(spread, 0.02)))
    pair = normal[:, 1:] * normal[:, :-1]
    both = inside[:, 1:] & inside[:, :-1]
    found.append(float(pair[both].mean()) / max(spread, 0.02) ** 2 if both.any() else np.nan)
    found += _steps(lab, inside)
    fine = float(sharp[0][inside].mean()) + _EPS
    found.append(float(np.log(fine) - np.log(float(sharp[1][inside].mean()) + _EPS)))
    still = ndimage.maximum_filter(light, 3) - ndimage.minimum_filter(light, 3) < 0.5
    flat = np.asarray(still, np.float64)
    found.append(less(flat))
    return np.asarray(found, np.float64)


def window(image: Tensor, mask: Mask) -> tuple[Array, Mask, Mask]:
    """The part with a margin of half its size, brought to at most `SIDE` pixels of the part's longer side.

    Returns:
        pixels (h, w, 3), the part (h, w), and its surroundings (h, w), two pixels away from it.
    """
    height, width = mask.shape
    x1, y1, x2, y2 = bounds(mask)
    margin = max((max(y2 - y1, x2 - x1)) // 2, 6)
    top, bottom = max(y1 - margin, 0), min(y2 + margin, height)
    left, right = max(x1 - margin, 0), min(x2 + margin, width)
    pixels = np.asarray(image[:, top:bottom, left:right].permute(1, 2, 0).numpy(), np.float64)
    inside = mask[top:bottom, left:right]
    step = max(1, int(max(y2 - y1, x2 - x1) // SIDE))  # whole pixels, so that no resampling blurs
    if step > 1:
        pixels, inside = pixels[::step, ::step], inside[::step, ::step]
        if not inside.any():
            inside = inside.copy()
            inside[inside.shape[0] // 2, inside.shape[1] // 2] = True
    return pixels, inside, ~ndimage.binary_dilation(inside, iterations=2)


def _log(values: Array) -> float:
    return float(np.log(float(values.mean()) + 0.05))


def _band(light: Array, octave: int) -> Array:
    """A band of detail: what a Gaussian of twice the width takes away."""
    sigma = 0.7 * 2**octave
    narrow = light if octave == 0 else ndimage.gaussian_filter(light, sigma)
    return np.asarray(narrow - ndimage.gaussian_filter(light, 2 * sigma))


def _mscn(light: Array) -> Array:
    mean = ndimage.gaussian_filter(light, 7 / 6)
    spread = np.sqrt(np.maximum(ndimage.gaussian_filter(light**2, 7 / 6) - mean**2, 0))
    return np.asarray((light - mean) / (spread + 1.0))


def _steps(lab: Array, inside: Mask) -> list[float]:
    """Mean step of colour over the border and over lines beside it, log; and two comparisons of them."""
    if inside.all():  # no border
        return [np.nan] * (len(_SHIFTS) + 2)
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    across = np.concatenate([np.linalg.norm(np.diff(lab, axis=axis), axis=-1).ravel() for axis in (0, 1)])
    middle = np.concatenate(
        [(0.5 * (depth[1:] + depth[:-1])).ravel(), (0.5 * (depth[:, 1:] + depth[:, :-1])).ravel()]
    )
    # Only steps along the way out of the part: those that run along the border say nothing of a seam.
    crosses = np.concatenate([(np.abs(np.diff(depth, axis=axis)) > 0.7).ravel() for axis in (0, 1)])

    def at(distance: float) -> float:
        near = (np.abs(middle - distance) <= 0.5) & crosses
        return float(np.log(float(across[near].mean()) + 0.3)) if near.any() else np.nan

    steps = [at(-shift) for shift in _SHIFTS]
    beside = [steps[i] for i in (0, 1, 3, 4)]
    known = [value for value in beside if not np.isnan(value)]
    over = steps[2] - float(np.mean(known)) if known else np.nan
    deep = (middle > 4) & crosses
    edges = np.nan if not deep.any() else steps[2] - float(np.log(float(across[deep].mean()) + 0.3))
    return [*steps, over, edges]
