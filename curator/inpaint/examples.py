"""What the inpainter is trained on: crops with a hole, made from unlabelled images.

In: images, nothing else: no boxes, no classes, no detector. Out: numbered `Crop`s; crop n depends on the
images, the seed and n alone, so that a training that was killed goes on with the same ones.

Each is made from one image: a box around something that stands out from its surroundings, a square crop
around it, a hole (the box, the segments of the box that differ most from their surroundings, or a blob), and
as exemplar the hole's own content, to be distorted (flip, small rotation, colour, scale), so that copying it
is not enough (Paint by Example, arXiv:2211.13227, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError
from curator.inpaint.exemplar import UNKNOWN, squares
from curator.inpaint.masks import standing_out, superpixels
from curator.tensors import image_pixels, image_tensor

_SEGMENTS = 100  # of a crop, whatever the image's own size
SMALLEST = 32  # pixels a side
_FIRST = 128  # crops that a training begins with, so that it begins soon
_LONGEST = 640  # pixels: larger images are scaled down first, things stay larger than a crop


@dataclass(frozen=True, slots=True)
class Crop:
    """One training example: image (3, S, S) and hole (S, S) bool, exemplar (3, S/2, S/2); uint8 [0, 255]."""

    image: NDArray[np.uint8]
    hole: NDArray[np.bool_]
    exemplar: NDArray[np.uint8]


def stands_out(
    pixels: NDArray[np.uint8], rng: np.random.Generator, *, tries: int = 8
) -> tuple[int, int, int, int]:
    """Draw boxes and return the one whose content differs most from its surroundings, as (x1, y1, x2, y2)."""
    height, width = pixels.shape[:2]
    best, best_score = (0, 0, 1, 1), -1.0
    for _ in range(tries):
        long = rng.uniform(0.08, 0.4) * min(height, width)
        aspect = np.exp(rng.uniform(-1.4, 1.4))
        w, h = (
            int(np.clip(long * min(aspect, 1), 6, width - 2)),
            int(np.clip(long / max(aspect, 1), 6, height - 2)),
        )
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        inside = pixels[y : y + h, x : x + w].reshape(-1, 3).astype(np.float32)
        pad = max(3, min(w, h) // 3)
        around = (
            pixels[max(0, y - pad) : y + h + pad, max(0, x - pad) : x + w + pad]
            .reshape(-1, 3)
            .astype(np.float32)
        )
        score = float(np.abs(inside.mean(0) - around.mean(0)).sum() + 0.5 * inside.std(0).sum())
        if score > best_score:
            best, best_score = (x, y, x + w, y + h), score
    return best


def draw_hole(
    pixels: NDArray[np.uint8], box: tuple[int, int, int, int], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A hole (H, W) inside or around `box`: the box itself, its standing-out segments, or a blob."""
    x1, y1, x2, y2 = box
    hole = np.zeros(pixels.shape[:2], bool)
    kind = rng.random()
    if kind < 0.25:
        hole[y1:y2, x1:x2] = True
        return hole
    if kind < 0.8:
        hole = standing_out(pixels, superpixels(pixels, _SEGMENTS), box)
        hole = ndimage.binary_dilation(hole, iterations=int(rng.integers(1, 4)))
    else:
        yy, xx = np.mgrid[0 : y2 - y1, 0 : x2 - x1]
        radius = np.hypot((yy - (y2 - y1) / 2) / ((y2 - y1) / 2), (xx - (x2 - x1) / 2) / ((x2 - x1) / 2))
        angle = np.arctan2(yy - (y2 - y1) / 2, xx - (x2 - x1) / 2)
        waves = sum(rng.uniform(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5))
        hole[y1:y2, x1:x2] = radius < 0.85 + waves
    if hole.sum() < 12:
        hole[y1:y2, x1:x2] = True
    return hole


def make_crop(pixels: NDArray[np.uint8], size: int, rng: np.random.Generator, fit: str = "pad") -> Crop:
    """One example from an image (H, W, 3) of at least 32 pixels a side; `fit` as in `squares`."""
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = stands_out(pixels, rng)
    side = int(min(max(y2 - y1, x2 - x1) * rng.uniform(1.4, 2.4), height, width))
    side = max(side, min(24, height, width), min(max(y2 - y1, x2 - x1), height, width))
    left = int(np.clip((x1 + x2 - side) / 2 + rng.uniform(-0.1, 0.1) * side, 0, width - side))
    top = int(np.clip((y1 + y2 - side) / 2 + rng.uniform(-0.1, 0.1) * side, 0, height - side))
    image = _resize(pixels[top : top + side, left : left + side], size)  # (S, S, 3)
    box = np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * size / side
    low, high = np.clip(np.floor(box[:2]), 0, size - 4), np.clip(np.ceil(box[2:]), 4, size)
    high = np.maximum(high, low + 4)
    hole = draw_hole(image, (int(low[0]), int(low[1]), int(high[0]), int(high[1])), rng)
    if hole.all():
        hole[:2] = False  # something must be known
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    within = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    content = image[within].copy()
    if rng.random() < 0.75:  # mostly the thing alone, as a culprit's segments give it
        content[~hole[within]] = round(UNKNOWN * 255)
    exemplar = squares([image_tensor(content)], size // 2, fit)[0]
    return Crop(image.transpose(2, 0, 1), hole, image_pixels(exemplar).transpose(2, 0, 1))


class Crops:
    """Crops by number; only so many are kept at a time.

    Args:
        images: (H, W, 3) uint8 RGB each; may decode when asked. size: side of a crop, pixels.
        per_image: crops made of an image whenever it is its turn; images take turns in an order of the seed.
        kept: crops that a batch is drawn from. fresh: how many of them are replaced at every step.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        size: int,
        fit: str,
        seed: int,
        per_image: int = 4,
        kept: int = 512,
        fresh: int = 2,
    ) -> None:
        self.images, self.size, self.fit, self.seed = images, size, fit, seed
        self.per_image, self.kept, self.fresh = per_image, kept, fresh
        self._made: dict[int, Crop] = {}
        self._image = lru_cache(maxsize=1)(self._read)

    def crop(self, number: int) -> Crop:
        """Crop `number` >= 0."""
        return make_crop(
            self._image(number // self.per_image),
            self.size,
            np.random.default_rng([self.seed, number]),
            self.fit,
        )

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S) and exemplars (B, 3, S/2, S/2) in [0, 1], holes (B, 1, S, S) in {0, 1}."""
        crops = [self._made.get(n) or self.crop(n) for n in numbers]
        image, hole, exemplar = (
            torch.from_numpy(np.stack(arrays)).float()
            for arrays in (
                [crop.image for crop in crops],
                [crop.hole[None] for crop in crops],
                [crop.exemplar for crop in crops],
            )
        )
        return image / 255, hole, exemplar / 255

    def draw(self, step: int, size: int, drawing: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of a step, out of the crops kept then; as `batch`."""
        last = min(self.kept, _FIRST, self.per_image * len(self.images)) + step * self.fresh
        first = max(0, last - self.kept)
        for number in [n for n in self._made if n < first]:
            del self._made[number]
        for number in range(first, last):
            if number not in self._made:
                self._made[number] = self.crop(number)
        return self.batch([first + int(n) for n in torch.randint(last - first, (size,), generator=drawing)])

    def _read(self, visit: int) -> NDArray[np.uint8]:
        turn, place = divmod(visit, len(self.images))
        order = np.random.default_rng([self.seed, 1, turn]).permutation(len(self.images))
        pixels = self.images[int(order[place])]
        if min(pixels.shape[:2]) < SMALLEST:
            raise InputError(
                f"expected images of at least {SMALLEST} pixels a side to train on, got {pixels.shape[:2]}"
            )
        longest = max(pixels.shape[:2])
        if longest <= _LONGEST:
            return pixels
        sides = [max(SMALLEST, round(side * _LONGEST / longest)) for side in pixels.shape[:2]]
        return _scaled(pixels, sides)


def _resize(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return _scaled(pixels, (side, side))


def _scaled(pixels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (h, w, 3), antialiased."""
    scaled = F.interpolate(image_tensor(pixels)[None], tuple(size), mode="bilinear", antialias=True)[0]
    return image_pixels(scaled)


def distort(exemplar: Tensor, noise: torch.Generator) -> Tensor:
    """Distort exemplars (B, 3, h, w) in [0, 1]: flip, rotation up to 8 degrees, scale, shift, colour."""
    n = len(exemplar)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=noise).to(exemplar.device) * (high - low) + low

    angle, scale = uniform(-0.14, 0.14), uniform(0.88, 1.12)
    flip = torch.where(uniform(0, 1) < 0.1, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([scale * flip * angle.cos(), -scale * angle.sin(), uniform(-0.06, 0.06)], -1),
            torch.stack([scale * flip * angle.sin(), scale * angle.cos(), uniform(-0.06, 0.06)], -1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, list(exemplar.shape), align_corners=False)
    moved = F.grid_sample(exemplar - UNKNOWN, grid, padding_mode="zeros", align_corners=False) + UNKNOWN
    known = ((moved - UNKNOWN).abs().sum(1, keepdim=True) > 0.02).to(moved.dtype)
    coloured = moved * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.04, 0.04, 1, 1, 1)
    return (known * coloured + (1 - known) * UNKNOWN).clamp(0, 1)


def recompose(image: Tensor, hole: Tensor, noise: torch.Generator) -> Tensor:
    """Crops as compositions would show them: what lies in the hole's inner part in another light.

    The rest of the hole shows the crop itself, as the rim of a composition shows its scene. From such a
    start the inpainter learns to harmonise (as image harmonisation is trained: Tsai et al., CVPR 2017).

    Args:
        image: (B, 3, S, S) in [0, 1]. hole: (B, 1, S, S), 1 = hole.
    Returns:
        (B, 3, S, S) in [0, 1]; outside the hole the image.
    """
    n = len(image)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=noise).to(image.device) * (high - low) + low

    reach = 1 + 2 * int(torch.randint(1, 4, (1,), generator=noise))
    inner = 1 - F.max_pool2d(1 - hole, reach, stride=1, padding=reach // 2)
    gain, offset = uniform(0.7, 1.35, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1), uniform(-0.12, 0.12, 1, 1, 1)
    blurred = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    shown = torch.where(uniform(0, 1, 1, 1, 1) < 0.3, blurred, image)
    return torch.where(inner > 0.5, (shown * gain + offset).clamp(0, 1), image)
