"""D-RISE (Petsiuk et al., "Black-box explanation of object detectors via saliency maps", CVPR 2021).

    symbol        paper       here
    N             N           `samples`, the number of masks (the paper: 5,000)
    p             p           `probability` that a cell is shown (0.5)
    h = w         h, w        `cells` of a low-resolution mask (16)
    C_H x C_W     C_H, C_W    a cell's size, ceil(H / h) x ceil(W / w) so that a crop always fits
    M_i           M_i         mask (H, W) in [0, 1]
    s_i           w_i         similarity of the masked image's predictions to the target

In: an image, targets with their boxes; any detector, black box or not. Out: a signed map in units of the
target,
    S(q) = 1/(N p) sum_i (s_i - mean(s)) M_i(q),
which for a mask of zeros and ones is E[s | q shown] - E[s]. It is RISE's map (1/(N p) sum_i s_i M_i) less the
constant mean(s) that it has everywhere in expectation; so it is 0 for a score that does not move, and the
number of masks at a place adds no noise. D-RISE shows sum_i s_i M_i scaled to [0, 1], which loses the units.
s_i = max_j IoU(B_j, box) p_j[class] (METHODS.md; the paper compares whole class distributions).
Masks span the picture; letterbox padding stays as it is. Masked images are b + M (x - b).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from curator.detect.base import Detector
from curator.explain.base import AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import continuous_baseline
from curator.explain.pixel_masks import Region, grid_maps, overlaps, score_images
from curator.explain.segments import picture_box
from curator.explain.target import PredictionScores
from curator.tensors import generator
from store.records import GridMap, Pin, SegmentMap

SIDE = 64
"""Most cells per side of the stored map; each is the exact mean of the map's pixels in it."""


def random_mask(height: int, width: int, cells: int, probability: float, numbers: torch.Generator) -> Tensor:
    """One mask (height, width) float32 in [0, 1], E[M] = probability at every pixel.

    Cells of zeros and ones, enlarged bilinearly to (cells + 1) times a cell's size, then a random crop.
    """
    tall, wide = math.ceil(height / cells), math.ceil(width / cells)  # C_H, C_W
    coarse = (torch.rand(1, 1, cells, cells, generator=numbers) < probability).float()
    top, left = (int(torch.randint(side, (), generator=numbers)) for side in (tall, wide))
    size = ((cells + 1) * tall, (cells + 1) * wide)
    fine = interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0, 0]
    return fine[top : top + height, left : left + width]


def pooling(side: int) -> NDArray[np.float64]:
    """Matrix (n, side), n = min(64, side), that takes means over n equal intervals of a side."""
    count = min(SIDE, side)
    width = side / count
    return overlaps(width * np.arange(count, dtype=np.float64), width, side) / width


class DRISE:
    """D-RISE. Settings: `cells` (16) and `probability` (0.5)."""

    name = "drise"
    takes: tuple[FillKind, ...] = ("continuous",)
    gradients = False
    by_prediction = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("cells", "probability"))
        self.cells = self.options.whole("cells", 16, low=1)
        self.probability = self.options.number("probability", 0.5, low=0.01, high=0.99)

    def masks(self, region: Region, *, seed: int, image_key: str) -> Iterator[Tensor]:
        """Yield the N masks of the region; the k-th is keyed by (seed, image_key, k) alone."""
        x1, y1, x2, y2 = region
        for k in range(self.options.samples):
            numbers = generator("drise", seed, image_key, k)
            yield random_mask(y2 - y1, x2 - x1, self.cells, self.probability, numbers)

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Returns:
            a `GridMap` of at most 64 x 64 cells over the picture per target; segments play no part.
            `extra["standard_error"]`: of a value where the map is truly 0. `passes` is N + 2.
        Raises:
            ConfigError: a fill that only fills holes, or a log-odds target.
            InputError: no target, or one without its box.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = PredictionScores(detector, pin, targets)
        region = picture_box(pin)
        x1, y1, x2, y2 = region
        rows, columns = pooling(y2 - y1), pooling(x2 - x1)  # (r, H), (c, W)

        def shown(mask: Tensor) -> Tensor:
            u = image.clone()
            inside = (..., slice(y1, y2), slice(x1, x2))
            u[inside] = baseline[inside] + mask.to(image.device) * (image[inside] - baseline[inside])
            return u

        batch_size = self.options.batch_size
        precision = self.options.precision
        ends = score_images(scores, [image, baseline], batch_size=batch_size, precision=precision)
        full, empty = ends  # F(1), F(0): (T,) each

        samples, count, shape = self.options.samples, len(targets), (len(rows), len(columns))
        products = np.zeros((count, *shape))  # sum_i (s_i - F(1)) M_i
        total, squares = np.zeros(shape), np.zeros(shape)  # sum_i M_i, sum_i M_i^2
        moved = []
        pending = self.masks(region, seed=seed, image_key=image_key)
        while batch := list(itertools.islice(pending, batch_size)):
            s = score_images(scores, map(shown, batch), batch_size=batch_size, precision=precision) - full
            cells = rows @ torch.stack(batch).double().numpy() @ columns.T  # (B, r, c)
            products += np.einsum("bt,brc->trc", s, cells)
            total += cells.sum(0)
            squares += (cells**2).sum(0)
            moved.append(s)
        similarity = np.concatenate(moved)  # (N, T)
        mean = similarity.mean(0)
        values = (products - mean[:, None, None] * total) / (samples * self.probability)
        spread = math.sqrt((squares / samples - (total / samples) ** 2).clip(min=0).mean())
        error = similarity.std(0) * spread / (self.probability * math.sqrt(samples))
        scale = ((x2 - x1) / shape[1], (y2 - y1) / shape[0])
        offset = (x1 + scale[0] / 2, y1 + scale[1] / 2)
        return [
            *grid_maps(
                self.name,
                targets,
                list(values),
                full,
                empty,
                scale=[scale] * count,
                offset=[offset] * count,
                passes=[samples + 2] * count,
                extra=[{"standard_error": float(e)} for e in error],
            )
        ]
