"""Masks of pixels instead of segments: windows on a regular grid, images in batches, maps on grids.

In: an image x (3, h, w) in the input frame, a fill, holes (h, w). Out: F of the painted images (n, T), and
`GridMap`s whose affine states where each value belongs. Coordinates are continuous: pixel i covers
[i, i + 1), a window that starts at s and is p wide is centred at s + p / 2. What sliding patches, PDA and
D-RISE share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import StageError
from curator.explain.base import EVIDENCE_FLOOR, Fill, Target
from curator.explain.fills.fill import fill_many
from curator.explain.target import Scores
from curator.precision import Precision, autocast
from store.records import GridMap

Region = tuple[int, int, int, int]
"""(x1, y1, x2, y2), whole pixels of the input frame, x2 and y2 exclusive."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Square windows whose starts form a regular grid.

    Attributes:
        rows, columns: starts (R,) and (C,) of the windows, input pixels; a window may overhang the region.
        size, stride: pixels.
        region: what the windows lie in; a window stands for its part inside.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    size: int
    stride: int
    region: Region

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels between centres, (x, y)."""
        return (float(self.stride), float(self.stride))

    @property
    def offset(self) -> tuple[float, float]:
        """Centre (x, y) of the first window, input frame."""
        return (float(self.columns[0] + self.size / 2), float(self.rows[0] + self.size / 2))

    def hole(self, row: int, column: int, like: Tensor) -> Tensor:
        """The window as a hole (h, w) bool, on the device of the image `like` (3, h, w)."""
        x1, y1, x2, y2 = self.region
        top, left = int(self.rows[row]), int(self.columns[column])
        hole = torch.zeros(like.shape[1:], dtype=torch.bool, device=like.device)
        hole[max(top, y1) : min(top + self.size, y2), max(left, x1) : min(left + self.size, x2)] = True
        return hole


def covering_grid(region: Region, size: int, stride: int) -> WindowGrid:
    """The fewest windows at `stride` that cover the region up to its edges.

    Where the stride does not divide what is left, the grid overhangs by less than a stride in all, half of it
    at either end; so it stays regular and its centres stay exact.
    """
    x1, y1, x2, y2 = region

    def starts(low: int, high: int) -> NDArray[np.int64]:
        count = 1 + max(0, math.ceil((high - low - size) / stride))
        overhang = stride * (count - 1) + size - (high - low)
        return np.asarray(low - overhang // 2 + stride * np.arange(count), dtype=np.int64)

    return WindowGrid(starts(y1, y2), starts(x1, x2), size, stride, region)


def inner_grid(region: Region, size: int, stride: int) -> WindowGrid:
    """The windows at `stride` that lie inside the region; what they leave over is split between both ends.

    The region must be at least `size` wide and high.
    """
    x1, y1, x2, y2 = region

    def starts(low: int, high: int) -> NDArray[np.int64]:
        count = 1 + (high - low - size) // stride
        rest = high - low - size - stride * (count - 1)
        return np.asarray(low + rest // 2 + stride * np.arange(count), dtype=np.int64)

    return WindowGrid(starts(y1, y2), starts(x1, x2), size, stride, region)


def overlaps(first: NDArray[np.float64], width: float, side: int) -> NDArray[np.float64]:
    """Length of each interval [first_i, first_i + width) inside pixel j: (n, side), 0 to 1."""
    pixels = np.arange(side)[None, :]
    ends = np.minimum(first[:, None] + width, pixels + 1) - np.maximum(first[:, None], pixels)
    return np.asarray(ends.clip(min=0.0), dtype=np.float64)


def painter(fill: Fill, image: Tensor, detector: Detector, seed: int) -> Callable[[Tensor], Tensor]:
    """The function that repaints holes (n, h, w) bool of x, each by itself, bit-exact outside: (n, 3, h, w).

    A continuous fill shows its baseline there, so that its mean and the hole fill `mean` give equal bits.
    """
    if not fill.continuous:
        return lambda holes: fill_many(fill, image, holes, [seed] * len(holes))
    baseline = fill.baseline(image, detector)
    return lambda holes: torch.where(holes[:, None], baseline, image)


@torch.no_grad()
def score_images(
    scores: Scores, images: Iterable[Tensor], *, batch_size: int, precision: Precision
) -> NDArray[np.float64]:
    """F (n, T) of images (3, h, w), `batch_size` at a time."""
    rows = [np.zeros((0, len(scores)))]
    pending = iter(images)
    while batch := list(itertools.islice(pending, batch_size)):
        u = torch.stack(batch).contiguous(memory_format=torch.channels_last)
        with autocast(precision, u.device):
            rows.append(scores(u).double().cpu().numpy())
    return np.concatenate(rows)


def grid_maps(
    name: str,
    targets: Sequence[Target],
    values: Sequence[NDArray[np.float64]],
    full: NDArray[np.float64],
    empty: NDArray[np.float64],
    *,
    scale: Sequence[tuple[float, float]],
    offset: Sequence[tuple[float, float]],
    passes: Sequence[int],
    floor: Sequence[float] | None = None,
    extra: Sequence[Mapping[str, float]] | None = None,
) -> list[GridMap]:
    """A map per target; the gap is nan, since none of these methods claims completeness.

    Args:
        values: per target (r, c). full, empty: F(1), F(0) (T,). scale, offset, passes: per target.
        floor: what |value| must exceed to count as evidence, per target; by default `EVIDENCE_FLOOR`.
        extra: per target.
    Raises:
        StageError: a number that is not finite.
    """
    finite = all(np.isfinite(found).all() for found in values)
    if not (finite and np.isfinite(full).all() and np.isfinite(empty).all()):
        raise StageError(
            f"{name}: expected finite scores, got nan or infinity; try --precision fp32 or "
            f"--target probability"
        )
    floors = floor or [EVIDENCE_FLOOR[target.kind] for target in targets]
    return [
        GridMap(
            values=values[t].astype(np.float32),
            scale=scale[t],
            offset=offset[t],
            full=float(full[t]),
            empty=float(empty[t]),
            gap=math.nan,
            passes=passes[t],
            evidence=bool(np.abs(values[t]).max() > floors[t]),
            extra=dict(extra[t]) if extra else {},
        )
        for t in range(len(targets))
    ]
