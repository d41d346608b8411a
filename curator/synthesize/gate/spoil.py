"""Faults that a picture's part is given on purpose, so that a critic learns what bad paintings look like.

In: an untouched image, the mask of a part, other images. Out: the image with a fault in the part. Each fault
stands for a way in which painting fails; strengths are drawn, from hardly visible to gross.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv

from curator.inpaint.masks import Mask, bounds

Array = NDArray[np.float32]
Rng = np.random.Generator


def spoil(pixels: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> tuple[str, Array]:
    """Give a part a fault.

    Args:
        pixels: (H, W, 3) RGB in [0, 1]. mask: (H, W) bool. others: images to take strange pixels from.
    Returns:
        the fault's name and the image; equal to `pixels` where `mask` is False.
    """
    names = tuple(FAULTS)
    name = names[int(rng.integers(len(names)))]
    x1, y1, x2, y2 = bounds(mask)
    pad = 4
    window = (
        slice(max(y1 - pad, 0), min(y2 + pad, mask.shape[0])),
        slice(max(x1 - pad, 0), min(x2 + pad, mask.shape[1])),
    )
    made = FAULTS[name](pixels[window].copy(), mask[window], others, rng)
    out = pixels.copy()
    soft = mask[window].astype(np.float32)
    if rng.random() < 0.5:  # a feathered border hides no fault
        soft = soft * np.clip(ndimage.distance_transform_edt(mask[window]) / rng.uniform(1.5, 4), 0, 1)
    out[window] += soft[..., None].astype(np.float32) * (np.clip(made, 0, 1) - out[window])
    return name, out


def smear(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Soft blobs of the part's and of strange colours, as an untrained or small painter leaves."""
    size = part.shape[:2]
    cells = tuple(int(rng.integers(2, 7)) for _ in range(2))
    colours = part.reshape(-1, 3)[rng.integers(part.shape[0] * part.shape[1], size=cells)]
    strange = colours + rng.normal(0, rng.uniform(0.02, 0.3), (*cells, 3))
    field = _stretch(strange, size)
    return np.asarray(field + rng.normal(0, rng.uniform(0, 0.02), part.shape), np.float32)


def blur(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Out of focus while its surroundings are not."""
    sigma = max(rng.uniform(0.03, 0.15) * max(part.shape[:2]), 1.2)
    return np.asarray(ndimage.gaussian_filter(part, (sigma, sigma, 0)), np.float32)


def coarse(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Enlarged from a thumbnail."""
    factor = rng.uniform(2.5, 8)
    small = tuple(max(int(side / factor), 2) for side in part.shape[:2])
    return _stretch(_stretch(part, small), part.shape[:2])


def recolour(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Another hue, saturation or gain."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.asarray(part * rng.uniform(0.4, 1.7, 3) + rng.normal(0, 0.08, 3), np.float32)
    hsv = rgb2hsv(np.clip(part, 0, 1))
    if kind == 1:
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(0.12, 0.88)) % 1
        hsv[..., 1] = np.clip(hsv[..., 1] + rng.uniform(0.1, 0.4), 0, 1)
    else:
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(1.5, 4) + 0.1, 0, 1)
        hsv[..., 2] = np.clip(hsv[..., 2] * rng.uniform(0.5, 1.5), 0, 1)
    return np.asarray(hsv2rgb(hsv), np.float32)


def noise(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Grain that the picture does not have."""
    grain = rng.normal(0, rng.uniform(0.05, 0.25), part.shape)
    if rng.random() < 0.5:
        grain = ndimage.gaussian_filter(grain, (0.8, 0.8, 0)) * 2
    return np.asarray(part + grain, np.float32)


def strange(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """A piece of another picture, neither cut out nor matched."""
    other = others[int(rng.integers(len(others)))]
    h, w = min(part.shape[0], other.shape[0]), min(part.shape[1], other.shape[1])
    y = int(rng.integers(0, other.shape[0] - h + 1))
    x = int(rng.integers(0, other.shape[1] - w + 1))
    return _stretch(other[y : y + h, x : x + w], part.shape[:2])


def shuffled(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Its own pieces in disorder: the right colours without the right shape."""
    cells = int(rng.integers(2, 6))
    h, w = max(part.shape[0] // cells, 1), max(part.shape[1] // cells, 1)
    out = part.copy()
    for y in range(0, part.shape[0] - h + 1, h):
        for x in range(0, part.shape[1] - w + 1, w):
            a = int(rng.integers(0, part.shape[0] - h + 1))
            b = int(rng.integers(0, part.shape[1] - w + 1))
            out[y : y + h, x : x + w] = part[a : a + h, b : b + w]
    sigma = rng.uniform(0, 1.5)
    return np.asarray(ndimage.gaussian_filter(out, (sigma, sigma, 0)), np.float32)


def warped(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Molten: every pixel moved along a wavy field."""
    size = part.shape[:2]
    strength = rng.uniform(0.08, 0.25) * max(size)
    moves = [_stretch(rng.normal(0, 1, (4, 4, 1)), size)[..., 0] * strength for _ in range(2)]
    grid = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    places = [place + move for place, move in zip(grid, moves, strict=True)]
    return np.stack(
        [ndimage.map_coordinates(part[..., c], places, order=1, mode="reflect") for c in range(3)], axis=-1
    ).astype(np.float32)


def ghost(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Half of it shines through something else."""
    share = rng.uniform(0.35, 0.65)
    return np.asarray(share * part + (1 - share) * strange(part, mask, others, rng), np.float32)


def filled(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """One flat or softly shaded colour."""
    ring = part[~mask] if (~mask).any() else part.reshape(-1, 3)
    colour = ring[int(rng.integers(len(ring)))] + rng.normal(0, rng.uniform(0, 0.3), 3)
    ramp = _stretch(rng.normal(0, rng.uniform(0, 0.1), (2, 2, 3)), part.shape[:2])
    return np.asarray(colour + ramp + rng.normal(0, rng.uniform(0, 0.015), part.shape), np.float32)


def ringing(part: Array, mask: Mask, others: Sequence[Array], rng: Rng) -> Array:
    """Sharpened until it rings."""
    sigma = rng.uniform(1, 3)
    soft = ndimage.gaussian_filter(part, (sigma, sigma, 0))
    return np.asarray(part + rng.uniform(2, 5) * (part - soft), np.float32)


FAULTS: dict[str, Callable[[Array, Mask, Sequence[Array], Rng], Array]] = {
    "smear": smear,
    "blur": blur,
    "coarse": coarse,
    "recolour": recolour,
    "noise": noise,
    "strange": strange,
    "shuffled": shuffled,
    "warped": warped,
    "ghost": ghost,
    "filled": filled,
    "ringing": ringing,
}


def _stretch(values: NDArray[np.floating], size: tuple[int, ...]) -> Array:
    """(h, w, c) -> (H, W, c), linear."""
    zoom = (size[0] / values.shape[0], size[1] / values.shape[1])
    rows = np.clip((np.arange(size[0]) + 0.5) / zoom[0] - 0.5, 0, values.shape[0] - 1)
    columns = np.clip((np.arange(size[1]) + 0.5) / zoom[1] - 0.5, 0, values.shape[1] - 1)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.stack(
        [
            ndimage.map_coordinates(np.asarray(values[..., c], np.float64), grid, order=1, mode="nearest")
            for c in range(values.shape[2])
        ],
        axis=-1,
    ).astype(np.float32)
