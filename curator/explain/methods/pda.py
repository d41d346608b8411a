"""Prediction difference analysis, PDA (Zintgraf et al., "Visualizing deep neural network decisions", 2017).

    symbol      here
    x_w         a window of `patch` x `patch` px (the paper: 10 for ImageNet)
    x_hat_w     the square around it, `pad` px more at each side (2)
    S           `samples` draws of x_w given the rest of x_hat_w (10), from a `PatchGaussian`
    F_w         mean over the draws of F(x with x_w drawn): the score without what x_w holds
    N, K        training instances, classes and background: p <- (p N + 1) / (N + K) keeps odds finite
    WE_w        log2 odds(F(x)) - log2 odds(F_w), in bits; for log-odds targets F(x) - F_w, in log-odds

In: an image, targets with their boxes. Out: a map per target of its analysis window, four times its box's
area (E2X, section 4.2; the whole picture for a target without a box). As in the paper a pixel gets the mean
of all windows over it. Windows slide by `stride` (E2X: 4, 8, 16; the paper: 1): the map's cells are `stride`
wide, centred where the windows are, and hold the means of the pixels under windows. Local by construction:
PDA sees one window at a time. Costs S passes a window, shared by all targets whose windows overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.patch_gaussian import PatchGaussian, fit_patches
from curator.explain.pixel_masks import (
    Region,
    WindowGrid,
    grid_maps,
    inner_grid,
    overlaps,
    painter,
    score_images,
)
from curator.explain.segments import picture_box
from curator.explain.target import scores_of
from curator.tensors import generator
from store.records import GridMap, Pin, SegmentMap

__all__ = ["PDA", "PatchGaussian", "fit_patches", "smoothed_log2_odds", "window_means"]

_AREA = 4.0  # of the analysis window, in areas of the box
_INSTANCES = 1_200_000  # the paper's N, ImageNet's


def smoothed_log2_odds(p: NDArray[np.float64], instances: int, classes: int) -> NDArray[np.float64]:
    """log2(p / (1 - p)) after the Laplace correction p <- (p N + 1) / (N + K)."""
    smoothed = (p * instances + 1) / (instances + classes)
    return np.asarray(np.log2(smoothed) - np.log2(1 - smoothed), dtype=np.float64)


def window_means(count: int, size: int, stride: int) -> NDArray[np.float64]:
    """What turns values of windows into values of cells, along one axis.

    Returns:
        (count, count): row i averages, over the pixels of [c_i - stride/2, c_i + stride/2) that windows cover
        (c_i the centre of window i), the mean of the windows over each pixel. The identity where size is at
        most stride.
    """
    starts = stride * np.arange(count, dtype=np.float64)
    side = stride * (count - 1) + size
    covers = overlaps(starts, size, side)  # (windows, pixels)
    times = covers.sum(0)
    per_pixel = np.divide(covers, times, out=np.zeros_like(covers), where=times > 0)
    cells = overlaps(starts + (size - stride) / 2, stride, side) * (times > 0)  # (cells, pixels)
    return np.asarray((cells / cells.sum(1, keepdims=True)) @ per_pixel.T, dtype=np.float64)


class PDA:
    """PDA; `model` names the fitted patches.

    Settings: `model`, a file that `curator fit-patches` wrote, fitted on training images alone; `patch`
    and `pad`, the model's (given, they must agree with it); `samples` S (10); `stride` (8); `instances` N
    (1,200,000). The options' `samples` play no part.
    Raises:
        ConfigError: no model, or one of another size.
    """

    name = "pda"
    takes: tuple[FillKind, ...] = ("continuous", "hole")  # shown in F(0) alone
    gradients = False

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("model", "patch", "pad", "samples", "stride", "instances"))
        path = self.options.settings.get("model")
        if not path:
            raise ConfigError(
                "--method pda: expected pda?model=PATH, patches fitted on training images; write them with "
                "curator fit-patches --out PATH"
            )
        self.model = PatchGaussian.load(Path(path))
        for name, own in (("patch", self.model.patch), ("pad", self.model.pad)):
            if self.options.whole(name, own) != own:
                raise ConfigError(
                    f"--method pda: {path} holds {name}={own}, got {name}={self.options.settings[name]}; "
                    f"leave it out, or fit others with curator fit-patches --{name}"
                )
        self.samples = self.options.whole("samples", 10, low=1)
        self.stride = self.options.whole("stride", 8, low=1)
        self.instances = self.options.whole("instances", _INSTANCES, low=1)

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
            a `GridMap` over its analysis window per target, in bits (log-odds targets: in log-odds). Segments
            play no part, and the fill only in F(0). `passes`: S a window, and the two ends.
        Raises:
            ConfigError: a picture smaller than a padded patch.
            InputError: no target, or one that the detector does not have.
        """
        scores = scores_of(detector, pin, targets)
        region = picture_box(pin)
        square = self.model.patch + 2 * self.model.pad
        if min(region[2] - region[0], region[3] - region[1]) < square:
            raise ConfigError(
                f"--method pda: expected a picture of at least {square} px a side, got {region}; "
                f"fit smaller patches with curator fit-patches --patch"
            )
        grid = inner_grid(region, self.model.patch, self.stride)
        spans = [_span(grid, pin, target) for target in targets]
        wanted = np.zeros((len(grid.rows), len(grid.columns)), dtype=bool)
        for rows, columns in spans:
            wanted[rows, columns] = True
        places = [(int(i), int(j)) for i, j in np.argwhere(wanted)]

        def drawn(some: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
            for i, j in some:
                top, left = int(grid.rows[i]), int(grid.columns[j])
                numbers = generator("pda", seed, image_key, top, left)
                yield from self._redrawn(image, region, top, left, numbers)

        batch_size = self.options.batch_size
        precision = self.options.precision
        everything = torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
        blank = painter(fill, image, detector, seed)(everything[None])[0]
        full, empty = score_images(scores, [image, blank], batch_size=batch_size, precision=precision)
        without = np.full((len(targets), *wanted.shape), np.nan)  # F_w (T, R, C)
        found = score_images(scores, drawn(places), batch_size=batch_size, precision=precision)
        without[:, wanted] = found.reshape(len(places), self.samples, -1).mean(1).T

        values = []
        for t, (target, (rows, columns)) in enumerate(zip(targets, spans, strict=True)):
            evidence = self._difference(full[t], without[t, rows, columns], target, len(detector.classes) + 1)
            down, across = (window_means(size, self.model.patch, self.stride) for size in evidence.shape)
            values.append(down @ evidence @ across.T)
        return [
            *grid_maps(
                self.name,
                targets,
                values,
                full,
                empty,
                scale=[grid.scale] * len(targets),
                offset=[
                    (
                        grid.offset[0] + self.stride * columns.start,
                        grid.offset[1] + self.stride * rows.start,
                    )
                    for rows, columns in spans
                ],
                passes=[self.samples * found.size + 2 for found in values],
                floor=[_floor(target) for target in targets],
            )
        ]

    def _difference(
        self, full: float, without: NDArray[np.float64], target: Target, classes: int
    ) -> NDArray[np.float64]:
        """WE_w of windows (r, c)."""
        if target.kind == "log_odds":
            return np.asarray(full - without)
        before = smoothed_log2_odds(np.asarray(full), self.instances, classes)
        return np.asarray(before - smoothed_log2_odds(without, self.instances, classes))

    def _redrawn(
        self, image: Tensor, region: Region, top: int, left: int, numbers: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield S images with the window at (top, left) drawn anew.

        At the picture's edge the padded square is moved inside, so that the window is not in its middle.
        """
        patch, pad = self.model.patch, self.model.pad
        square = patch + 2 * pad
        y = min(max(top - pad, region[1]), region[3] - square)
        x = min(max(left - pad, region[0]), region[2] - square)
        around = image[:, y : y + square, x : x + square].double().cpu().numpy()
        noise = torch.randn(self.samples, 3 * patch * patch, generator=numbers, dtype=torch.float64)
        for window in self.model.draw(around, top - y, left - x, noise.numpy()):  # (3, patch, patch)
            u = image.clone()
            u[:, top : top + patch, left : left + patch] = torch.from_numpy(window).to(u)
            yield u


def _floor(target: Target) -> float:
    """Evidence in bits is a difference of log-odds over ln 2: one percent of the odds either way."""
    floor = EVIDENCE_FLOOR["log_odds"]
    return floor if target.kind == "log_odds" else floor / float(np.log(2))


def _span(grid: WindowGrid, pin: Pin, target: Target) -> tuple[slice, slice]:
    """Rows and columns of the windows centred in the target's analysis window; at least one each."""
    if target.box is None:
        return slice(0, len(grid.rows)), slice(0, len(grid.columns))
    x1, y1, x2, y2 = pin.to_input(np.array(target.box)).tolist()

    def near(starts: NDArray[np.int64], low: float, high: float) -> slice:
        middle, reach = (low + high) / 2, (high - low) / 2 * _AREA**0.5
        distance = np.abs(starts + grid.size / 2 - middle)
        inside = np.flatnonzero((distance <= reach) | (distance == distance.min()))
        return slice(int(inside[0]), int(inside[-1]) + 1)

    return near(grid.rows, y1, y2), near(grid.columns, x1, x2)
