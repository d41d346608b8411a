"""What the target does when the places that a map names are hidden or shown.

In: the detector's scores, an image x (3, h, w), a fill, maps. Out: deletion and insertion curves (Petsiuk et
al., BMVC 2018), the saliency metric (Dabkowski & Gal, NeurIPS 2017; the box is kept and the rest filled,
since a crop would change the anchors), box occlusion (VEBI, section 4.2). Masked images of all targets run in
shared batches; what is hidden shows the fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import InputError
from curator.explain.base import Fill
from curator.explain.measures.localisation import ALPHAS, Mask, box_at, box_mask
from curator.explain.target import Scores
from curator.represent.heatmap import density
from curator.represent.pixel_maps import Array, Labels, Map, map_pixels
from store.records import SegmentMap

STEPS = 28
"""Steps of deletion and insertion (METHODS.md)."""

Hide = Callable[[Mask], Tensor]
"""Hidden pixels (h, w), True = hidden, -> the image (3, h, w) with the fill there."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The target over the share of pixels hidden (deletion) or shown (insertion).

    Attributes:
        shares: (S + 1,) from 0 to 1. values: (S + 1,) in units of the target. area: under it.
    """

    shares: Array
    values: Array
    area: float


def hider(fill: Fill, image: Tensor, detector: Detector, *, seed: int) -> Hide:
    """How pixels of x (3, h, w) are hidden by either kind of fill."""
    if fill.continuous:
        baseline = fill.baseline(image, detector)
        return lambda hidden: torch.where(torch.from_numpy(hidden).to(image.device), baseline, image)
    return lambda hidden: fill.fill(image, torch.from_numpy(hidden).to(image.device), seed)


def removal_steps(explained: Map, labels: Labels, steps: int = STEPS) -> NDArray[np.int64]:
    """Step 1..S (h, w) at which each pixel goes, the densest first.

    Whole segments of a segment map go in nearly equal numbers per step; pixels of a grid likewise. Equal
    densities go in the order of their labels, or of rows and columns.

    Raises:
        InputError: fewer than one step, or labels that do not fit the map.
    """
    if steps < 1:
        raise InputError(f"deletion: expected at least 1 step, got {steps}")
    size = (labels.shape[0], labels.shape[1])
    pixels = map_pixels(explained, labels, size)  # checks the labels too
    parts = density(labels, explained.phi) if isinstance(explained, SegmentMap) else pixels.ravel()
    rank = np.empty(len(parts), dtype=np.int64)
    rank[np.argsort(-parts, kind="stable")] = np.arange(len(parts))
    step = rank * steps // len(parts) + 1
    return step[labels] if isinstance(explained, SegmentMap) else step.reshape(size)


def deletion_insertion(
    scores: Scores,
    hide: Hide,
    maps: Sequence[Map],
    labels: Labels,
    *,
    steps: int = STEPS,
    batch_size: int = 16,
) -> list[tuple[Curve, Curve]]:
    """Deletion and insertion curves of the maps of all targets of an image.

    Args:
        maps: one per target of `scores`. labels: (h, w) segments.
    Returns:
        per target (deletion, insertion); a faithful map has little area under the first and much under the
        second. The passes are 2 (S - 1) per target and 2 for both ends, which all share.
    Raises:
        InputError: not one map per target.
    """
    if len(maps) != len(scores):
        raise InputError(f"deletion: expected a map per target, got {len(maps)} for {len(scores)} targets")
    order = [removal_steps(explained, labels, steps) for explained in maps]

    def hidden() -> Iterator[Mask]:
        yield np.zeros(labels.shape, dtype=bool)
        yield np.ones(labels.shape, dtype=bool)
        for when in order:
            for s in range(1, steps):
                yield when <= s
                yield when > s

    values = hidden_scores(scores, hide, hidden(), batch_size=batch_size)  # (2 + 2 T (S - 1), T)
    full, empty, inner = values[0], values[1], values[2:].reshape(len(maps), steps - 1, 2, len(scores))
    curves = []
    for t, when in enumerate(order):
        shares = np.bincount(when.ravel(), minlength=steps + 1).cumsum() / when.size  # (S + 1,)
        deleted = np.concatenate([[full[t]], inner[t, :, 0, t], [empty[t]]])
        inserted = np.concatenate([[empty[t]], inner[t, :, 1, t], [full[t]]])
        curves.append((_curve(shares, deleted), _curve(shares, inserted)))
    return curves


def _curve(shares: Array, values: Array) -> Curve:
    return Curve(shares, values, float(trapezoid(values, shares)))


@torch.no_grad()
def hidden_scores(scores: Scores, hide: Hide, hidden: Iterable[Mask], *, batch_size: int) -> Array:
    """Targets (n, T) of images with hidden pixels, in batches that are made as they are needed."""
    masks, rows = iter(hidden), []
    while batch := list(islice(masks, batch_size)):
        rows.append(scores(torch.stack([hide(mask) for mask in batch])).double().cpu().numpy())
    return np.concatenate(rows)


SALIENCY_FLOOR = 0.05
"""Least share of the image that a box counts as (Dabkowski & Gal, NeurIPS 2017)."""
_LEAST_SCORE = 1e-6  # keeps the logarithm finite where a box loses everything


def saliency_metric(
    scores: Scores,
    hide: Hide,
    pixels: Sequence[Array],
    *,
    alphas: ArrayLike = ALPHAS,
    batch_size: int = 16,
) -> Array:
    """log max(a, 0.05) - log s(image with only the box kept) at each threshold; smaller is better.

    a is the box's share of the image, the box that of `localisation.box_at`; without one the whole image
    is kept. Scores below 1e-6 count as 1e-6. Choose the threshold by `localisation.chosen_on_held_out`.

    Args:
        pixels: per target a density (h, w). The targets are probabilities.
    Returns:
        (T, A).
    Raises:
        InputError: not one map per target, or log-odds targets.
    """
    if len(pixels) != len(scores) or any(target.kind != "probability" for target in scores.targets):
        raise InputError(
            f"saliency metric: expected a map per target and probabilities, got {len(pixels)} maps for "
            f"{', '.join(target.kind for target in scores.targets)}"
        )
    grid = np.asarray(alphas, dtype=np.float64)
    kept = []
    for density_map in pixels:
        size = (density_map.shape[0], density_map.shape[1])
        for alpha in grid:
            box = box_at(density_map, float(alpha))
            kept.append(np.ones(size, dtype=bool) if box is None else box_mask(box, size))
    values = hidden_scores(scores, hide, (~mask for mask in kept), batch_size=batch_size)
    own = values.reshape(len(pixels), len(grid), len(scores))[
        np.arange(len(pixels)), :, np.arange(len(pixels))
    ]
    area = np.array([mask.mean() for mask in kept]).reshape(own.shape)
    return np.asarray(np.log(np.maximum(area, SALIENCY_FLOOR)) - np.log(np.maximum(own, _LEAST_SCORE)))


def box_occlusion(
    scores: Scores,
    hide: Hide,
    pixels: Sequence[Array],
    *,
    patch: int = 9,
    limit: float = 0.3,
    steps: int = 10,
    batch_size: int = 16,
    keys: Sequence[int] = (0,),
) -> list[Curve]:
    """Targets as square patches drawn from each map's positive density hide ever more (VEBI, section 4.2).

    The paper occludes "up to covering the 30% most relevant part of the image". Here patches are drawn, with
    the map's positive density as the distribution of their centres, until they cover that share of the image,
    or until the positive density is all covered. The patch size is ours.

    Args:
        pixels: per target a density (h, w). patch: side in px. limit: share of the image in (0, 1].
        keys: of the random numbers, such as a seed; the same for every target.
    Returns:
        per target a curve over the share hidden, the first point the clean image; the area is under the
        curve over the shares it reached, divided by the last share: the mean score.
    Raises:
        InputError: not one map per target, or a limit outside (0, 1].
    """
    if len(pixels) != len(scores) or not 0 < limit <= 1:
        raise InputError(
            f"box occlusion: expected a map per target and a limit in (0, 1], got {len(pixels)} maps for "
            f"{len(scores)} targets and {limit}"
        )
    stages = [_occluded(density_map, patch, limit, steps, keys) for density_map in pixels]
    values = hidden_scores(scores, hide, (mask for masks in stages for mask in masks), batch_size=batch_size)
    curves, start = [], 0
    for t, masks in enumerate(stages):
        shares = np.array([mask.mean() for mask in masks])
        own = values[start : start + len(masks), t]
        start += len(masks)
        area = float(trapezoid(own, shares)) / shares[-1] if shares[-1] > 0 else math.nan
        curves.append(Curve(shares, own, float(area)))
    return curves


def _occluded(pixels: Array, patch: int, limit: float, steps: int, keys: Sequence[int]) -> list[Mask]:
    """Masks of ever more patches: none, then at least 1/S, 2/S, ... of the limit."""
    strength = np.clip(pixels, 0, None)
    numbers = np.random.default_rng(list(keys))
    hidden = np.zeros(pixels.shape, dtype=bool)
    masks = [hidden.copy()]
    left = strength.copy()
    for step in range(1, steps + 1):
        while hidden.mean() < limit * step / steps and left.any():
            cumulated = left.cumsum()  # centres already hidden would add nothing
            drawn = int(np.searchsorted(cumulated, numbers.random() * cumulated[-1], side="right"))
            row, column = divmod(min(drawn, int(np.flatnonzero(left.ravel())[-1])), pixels.shape[1])
            top, left_edge = max(0, row - patch // 2), max(0, column - patch // 2)
            window = np.s_[top : row - patch // 2 + patch, left_edge : column - patch // 2 + patch]
            hidden[window] = True
            left[window] = 0
        masks.append(hidden.copy())
    return masks
