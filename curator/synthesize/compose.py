"""Putting a cut-out into a scene so that it looks as if it had been there.

In: a `Cutout`, the image that it comes from, a scene, a place. Out: `Pasted`: the composed image, the hole in
which a generator may harmonise it, and what of it is to be seen. This is Cut, Paste and Learn (Dwibedi, Misra
& Hebert, ICCV 2017) with light, sharpness and noise brought to the scene's, which Ghiasi et al. (Simple
Copy-Paste, CVPR 2021) leave out:

    edge       the colours of the soft edge are the thing's own, continued from inside: no halo
    light      Lab moved by a share of the difference between the scene's surroundings there and the thing's
               own, so that its own colour survives. The shares are measured: by so much do objects of one
               class differ for each unit that their surroundings differ (`benchmarks/cutouts.py`, "light")
    sharpness  the thing is blurred where its edges are sharper than the scene's; a scene is never touched
    noise      the scene's, where it has more

Colours beside the hole come back bit-identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip
from curator.errors import StageError
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.cutout import FEATHER, Cutout
from curator.synthesize.photometry import (
    blur,
    blurred,
    lab_of,
    mean_and_spread,
    noise,
    noisy,
    rgb_of,
    rim,
)
from store.records import BoxTuple

RIM = 3
"""Pixels around what was pasted that a generator may repaint too."""
LIGHT = (0.6, 0.5, 0.5)
"""Change of an object's mean L, a, b for each unit of change of its surroundings' (slopes within class)."""
CONTRAST = 0.4
"""The same for the logarithm of the standard deviation of L."""
MOST = (25.0, 12.0, 12.0)
"""L, a, b: the most that a thing is moved; further, the measured slopes are extrapolated."""
FEWEST = 4
"""Pixels of the pasted thing that must be seen, per side."""
_CORE = 0.98  # alpha above which a pixel is the thing's own
_SOFTER = 0.5  # pixels; a narrower kernel is hardly more than one pixel
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """A thing in a scene.

    Attributes:
        image: (3, H, W) float32 RGB [0, 1]. hole: (H, W) bool, the pixels that may differ from the scene:
            alpha above 0, and `RIM` pixels around.
        thing: (H, W) bool, where the alpha is at least 0.5. extent: its bounding box, within the image.
        box: the thing's annotated box, scaled and clipped; the extent, unless the cut-out is a soft box.
        details: what was matched.
    """

    image: Tensor
    hole: Tensor
    thing: Tensor
    extent: BoxTuple
    box: BoxTuple
    details: dict[str, Any]


def paste(
    scene: Tensor,
    source: Tensor,
    cutout: Cutout,
    *,
    centre: Sequence[float],
    scale: float,
    mirrored: bool = False,
    rng: np.random.Generator,
    match: bool = True,
    bands: bool = False,
) -> Pasted:
    """Put `cutout`, taken from `source` (3, h, w), into `scene` (3, H, W).

    Args:
        centre: (x, y) in the scene of the centre of the cut-out's extent. scale: of its pixels.
        match: light, sharpness and noise are matched; else the thing stays as it is.
        bands: a wide soft edge mixes coarse structure alone, and grain and edges change over within a pixel
            or two (a multiresolution spline of two bands: Burt & Adelson, ACM TOG 1983): a mixture of two
            grains is smoother than either, and shows.
    Raises:
        StageError: less than `FEWEST` pixels a side of the thing would be seen.
    """
    pixels, alpha = _own_colours(cutout), cutout.alpha
    x1, y1 = cutout.window[:2]
    middle = np.array([cutout.extent[0] + cutout.extent[2], cutout.extent[1] + cutout.extent[3]]) / 2
    middle = middle - [x1, y1]
    if mirrored:
        pixels, alpha = pixels.flip(-1), alpha.flip(-1)
        middle[0] = alpha.shape[1] - middle[0]
    height, width = (max(round(side * scale), 1) for side in alpha.shape)
    pixels, alpha = (_resized(part, (height, width)) for part in (pixels, alpha[None]))
    factor = np.array([width, height]) / cutout.alpha.shape[::-1]
    left, top = (round(float(v)) for v in np.asarray(centre) - middle * factor)
    canvas, layer = scene.clone(), torch.zeros(scene.shape[1:])
    window = _overlap(left, top, (height, width), scene.shape[1:])
    if window is None:
        raise StageError("the thing would be outside the scene")
    (a, b, c, d), (e, f, g, h) = window
    layer[b:d, a:c] = alpha[0, f:h, e:g]
    thing = layer >= 0.5
    if not thing.any() or min(_sides(thing.numpy())) < FEWEST:
        raise StageError(f"less than {FEWEST} pixels a side of the thing would be seen")
    details: dict[str, Any] = {"scale": round(float(scale), 3), "cut": cutout.source}
    details["quality"] = round(cutout.quality, 3)
    if match:
        pixels, matched = _matched(pixels, alpha[0], source, cutout, scene, thing.numpy(), rng)
        details |= matched
    blend = _two_bands if bands else torch.lerp
    canvas[:, b:d, a:c] = blend(canvas[:, b:d, a:c], pixels[:, f:h, e:g], layer[b:d, a:c])
    changed = layer > 1 / 512  # below: not a step of 8 bits
    hole = torch.from_numpy(ndimage.binary_dilation(changed.numpy(), iterations=RIM))
    image = torch.where(changed, canvas.clamp(0, 1), scene)
    extent = _box(bounds(thing.numpy()))
    box = extent
    if cutout.source == "box":
        known = np.asarray(cutout.box) - [x1, y1, x1, y1]
        if mirrored:
            known = np.array(
                [cutout.alpha.shape[1] - known[2], known[1], cutout.alpha.shape[1] - known[0], known[3]]
            )
        known = known * np.tile(factor, 2) + [left, top, left, top]
        box = _box(clip(known, scene.shape[2], scene.shape[1]))
    return Pasted(image=image, hole=hole, thing=thing, extent=extent, box=box, details=details)


def _two_bands(scene: Tensor, pixels: Tensor, alpha: Tensor) -> Tensor:
    """Mix two pictures (3, h, w): what is coarser than the edge of `alpha` (h, w) is wide, by it, the rest
    where it passes one half."""
    edge = float(((alpha > 0) & (alpha < 1)).sum()) / max(float(((alpha > 0.5).sum() ** 0.5) * 4), 1.0)
    sigma = max(edge / 4, 1.0)

    def coarse(picture: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(picture.numpy(), (0, sigma, sigma), mode="nearest"))

    low, high = coarse(scene), coarse(pixels)
    hard = torch.from_numpy(
        ndimage.gaussian_filter((alpha.numpy() >= 0.5).astype(np.float32), FEATHER, mode="nearest")
    )
    return torch.lerp(low, high, alpha) + torch.lerp(scene - low, pixels - high, hard)


def light_between(source: Tensor, thing: Mask, scene: Tensor, place: Mask) -> tuple[Array, float]:
    """By how much the Lab (3,) of a thing in `source` moves, and the factor of its contrast, when it is
    brought from its surroundings to those of `place` in `scene`; masks are (h, w) and (H, W)."""
    before = mean_and_spread(lab_of(source), rim(thing, _reach(thing)))
    after = mean_and_spread(lab_of(scene), rim(place, _reach(place)))
    moved = np.clip(np.asarray(LIGHT) * (after[0] - before[0]), -np.asarray(MOST), MOST)
    gain = (max(after[1][0], 1.0) / max(before[1][0], 1.0)) ** CONTRAST
    return moved, float(np.clip(gain, 0.6, 1.5))


def _matched(
    pixels: Tensor,
    alpha: Tensor,
    source: Tensor,
    cutout: Cutout,
    scene: Tensor,
    thing: Mask,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, Any]]:
    """The scaled pixels (3, h, w) in the scene's light, as sharp and as noisy as it; and what was done."""
    home = np.zeros(tuple(source.shape[1:]), bool)
    x1, y1, x2, y2 = cutout.window
    home[y1:y2, x1:x2] = cutout.alpha.numpy() >= 0.5
    moved, gain = light_between(source, home, scene, thing)
    lab, inside = lab_of(pixels), alpha.numpy() >= 0.5
    mean = mean_and_spread(lab, inside)[0]
    lab[..., 0] = mean[0] + gain * (lab[..., 0] - mean[0])
    pixels = rgb_of(lab + moved)
    soft, sharp = blur(scene), blur(pixels, ndimage.binary_erosion(inside, iterations=2))
    more = float(np.sqrt(max(soft**2 - sharp**2, 0.0))) if np.isfinite(soft + sharp) else 0.0
    if more > _SOFTER:
        pixels = blurred(pixels, more)
    wanted, own = noise(scene, rim(thing, _reach(thing))), noise(pixels, inside)
    grain = float(np.sqrt(max(wanted**2 - own**2, 0.0)))
    if grain > 1 / 255:
        pixels = noisy(pixels, grain, rng)
    return pixels, {
        "light": [round(float(v), 1) for v in moved],
        "contrast": round(gain, 2),
        "blur": round(more, 2) if more > _SOFTER else 0.0,
        "noise": round(grain, 4) if grain > 1 / 255 else 0.0,
    }


def _own_colours(cutout: Cutout) -> Tensor:
    """The pixels (3, h, w), those of the soft edge and beyond replaced by the nearest that are the thing's
    own: a mixture with its old background would shine around it. A soft box's edge is wide and stays."""
    core = cutout.alpha.numpy() > _CORE
    if cutout.source == "box" or not core.any():
        return cutout.pixels
    rows, columns = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    return cutout.pixels[:, torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _overlap(
    left: int, top: int, part: tuple[int, int], size: Sequence[int]
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]] | None:
    """Where a part (h, w) at (left, top) lies in an image (H, W), and which of it that is; xyxy."""
    a, b = max(left, 0), max(top, 0)
    c, d = min(left + part[1], size[1]), min(top + part[0], size[0])
    return ((a, b, c, d), (a - left, b - top, c - left, d - top)) if c > a and d > b else None


def _reach(mask: Mask) -> int:
    """How far the surroundings of a mask go: a third of the side of a square of its area."""
    return max(int(np.sqrt(mask.sum()) / 3), 6)


def _sides(mask: Mask) -> tuple[int, int]:
    x1, y1, x2, y2 = bounds(mask)
    return x2 - x1, y2 - y1


def _box(values: Sequence[float] | Array) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2
