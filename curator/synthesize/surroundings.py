"""Surroundings: figures of what lies around boxes of an image.

In: an image and boxes. Out: colour, light and texture of the strips around them, by integral images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip, expand
from curator.synthesize.photometry import lab_of

_COARSE = 160  # pixels of the longer side at which surroundings are looked at
_STRIP, _GAP = 0.35, 0.1  # of the box's sides; of the square root of its area
_PIXELS = (4.0, 2.0)  # strip and gap at least
Array = NDArray[np.float64]


class Surroundings:
    """Figures of what lies around boxes of an image (3, H, W) RGB [0, 1]; by sums over integral images."""

    def __init__(self, image: Tensor) -> None:
        self.size = tuple(image.shape[:0:-1])  # (W, H)
        scale = min(_COARSE / max(self.size), 1.0)
        if scale < 1:
            size = [max(round(side * scale), 2) for side in image.shape[1:]]
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        lab = lab_of(image)
        light = lab[..., 0]
        across, down = (
            ndimage.gaussian_filter(light, 1.0, order=order, mode="nearest") for order in ((0, 1), (1, 0))
        )
        fine = np.abs(light - ndimage.gaussian_filter(light, 1.5, mode="nearest"))
        steep = np.hypot(across, down)
        maps = [*np.moveaxis(lab, -1, 0), light**2, steep, abs(across), abs(down), fine, np.ones(light.shape)]
        self._sums = np.pad(np.stack(maps).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
        self._scale = np.tile(np.array(light.shape[::-1]) / self.size, 2)

    def around(self, boxes: Any) -> Array:
        """Mean L, a, b, spread of L and mean gradient (N, 5), in units of Lab, of a frame of a quarter of
        each side around boxes (N, 4); of the whole image where a box leaves nothing around it."""
        inner = clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), *self.size)
        outer = clip(expand(inner, 1.5) + np.array([-4.0, -4.0, 4.0, 4.0]), *self.size)
        total = self._within(outer) - self._within(inner)
        none = total[:, -1] < 1
        total[none] = self._sums[:, -1, -1]
        return _figures(total)[:, :5]

    def figures(self, boxes: Any) -> Array:
        """(N, F) of boxes (N, 4): see above; NaN where the image ends before a strip."""
        x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
        (width, height), w, h = self.size, x2 - x1, y2 - y1
        gap = np.maximum(_GAP * np.sqrt(w * h), _PIXELS[1])
        dx, dy = (np.maximum(_STRIP * side, _PIXELS[0]) + gap for side in (w, h))
        left, right, above, below = (
            self._strip(np.stack(strip, axis=1))
            for strip in (
                (x1 - dx, y1, x1 - gap, y2),
                (x2 + gap, y1, x2 + dx, y2),
                (x1 - dx, y1 - dy, x2 + dx, y1 - gap),
                (x1 - dx, y2 + gap, x2 + dx, y2 + dy),
            )
        )
        whole = _looks(self._sums[:, -1, -1][None])
        beside = np.where(np.isnan(left), right, np.where(np.isnan(right), left, (left + right) / 2))
        middle = (x1 + x2) / 2 / width
        stands = [
            y2 / height,
            y1 / height,
            middle,
            np.abs(middle - 0.5),
            np.log(np.maximum(np.sqrt(w * h / (width * height)), 1e-6)),
            np.log(np.maximum(w, 1e-6) / np.maximum(h, 1e-6)),
            *(edge.astype(float) for edge in (x1 < 2, x2 > width - 2, y1 < 2, y2 > height - 2)),
        ]
        differences = (np.abs(left - right), beside - below, above - below, beside - whole, below - whole)
        return np.concatenate([np.stack(stands, axis=1), beside, above, below, *differences], axis=1)

    def _strip(self, boxes: Array) -> Array:
        total = self._within(clip(boxes, *self.size))
        return np.where(total[:, -1:] < 1, np.nan, _looks(total))

    def _within(self, boxes: Array) -> Array:
        x1, y1, x2, y2 = np.rint(boxes * self._scale).astype(int).T
        s = self._sums
        return np.asarray((s[:, y2, x2] - s[:, y1, x2] - s[:, y2, x1] + s[:, y1, x1]).T)


def unlikeness(image: Tensor, box: Any, around: Surroundings, places: Any) -> Array:
    """(N,) Lab distance of what lies around places (N, 4) from what lies around a box of another image."""
    home = Surroundings(image).around(box)
    return np.asarray(np.linalg.norm(around.around(places) - home, axis=1))


def neighbours(boxes: Any, others: Any, alike: Any) -> Array:
    """(N, 8) of boxes (N, 4): of the nearest labelled object of the class, and of any class, its distance
    and how much lower its feet stand, both in sides (square roots of areas) of the box, the log of its side
    over the box's, and whether it overlaps in x; NaN where there is none.

    Args:
        others: (M, 4) labelled boxes. alike: (M,) bool, of the class.
    """
    own = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    all_others = np.asarray(others, dtype=np.float64).reshape(-1, 4)
    parts = []
    for chosen in (all_others[np.asarray(alike, dtype=bool)], all_others):
        if not len(chosen):
            parts.append(np.full((len(own), 4), np.nan))
            continue
        side = np.sqrt(np.maximum((own[:, 2:] - own[:, :2]).prod(1), 1.0))[:, None]
        apart = np.maximum(
            np.maximum(chosen[None, :, :2] - own[:, None, 2:], own[:, None, :2] - chosen[None, :, 2:]), 0
        )
        distance = np.hypot(apart[..., 0], apart[..., 1]) / side
        lower = (chosen[None, :, 3] - own[:, None, 3]) / side
        sides = np.sqrt(np.maximum((chosen[:, 2:] - chosen[:, :2]).prod(1), 1.0))[None]
        nearest = (distance + np.abs(lower)).argmin(1)
        rows = np.arange(len(own))
        across = apart[..., 0] == 0
        together = (distance, lower, np.log(sides / side), across)
        parts.append(np.stack([values[rows, nearest] for values in together], axis=1).astype(np.float64))
    return np.concatenate(parts, axis=1)


def _figures(total: Array) -> Array:
    """Mean L, a, b, spread of L, mean gradient, gradients across and down, texture, of sums (N, 9)."""
    means = total[:, :-1] / np.maximum(total[:, -1:], 1e-9)
    deviation = np.sqrt(np.maximum(means[:, 3] - means[:, 0] ** 2, 0))
    return np.concatenate([means[:, :3], deviation[:, None], means[:, 4:]], axis=1)


def _looks(total: Array) -> Array:
    return np.delete(_figures(total), 4, axis=1)  # the gradient is there as two
