"""Means of feature maps over boxes, rings and densities.

In: maps (B, C, h, w) with the geometry of their cells, boxes in the input frame. Out: vectors. Every box is a
weighted mean over the cells, one matrix product for all boxes of an image, so that hundreds cost little more
than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import FeatureMap
from store.records import Floats, Pin

_MANY = 32  # channels
_LEAST_RING = 1e-3  # of the outer box: a hole that leaves less is ignored


@dataclass(frozen=True, slots=True)
class Places:
    """Where to pool, in the input frame.

    Attributes:
        inner: (B, N, 4) boxes, within the image. outer: (B, N, 4) the boxes enlarged twice, within the image.
        frame: (B, 1, 4) the image within the input.
        counts: boxes of each image; the rest of N fills up.
    """

    inner: Tensor
    outer: Tensor
    frame: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, pins: Sequence[Pin], boxes: Sequence[NDArray[np.float32]], like: Tensor) -> Places:
        """Of boxes (N_i, 4) in stored-image pixels, on the device and of the type of `like`."""
        frame = torch.from_numpy(image_frames(pins)).to(like)[:, None]
        inner = padded([pin.to_input(own) for pin, own in zip(pins, boxes, strict=True)]).to(like)
        return cls(
            clipped(inner, frame),
            clipped(expanded(inner, 2.0), frame),
            frame,
            tuple(len(own) for own in boxes),
        )


def place_means(level: FeatureMap, values: Tensor, places: Places) -> Tensor:
    """Means over every box, over the ring around it, and over the image.

    Args:
        level: gives the grid; values: (B, C, h, w) on it.
    Returns:
        (B, 2N + 1, C): boxes, rings, image.
    """
    count = places.inner.shape[1]
    whole = torch.cat([places.inner, places.frame], dim=1)
    columns, rows = _overlaps(level, values, whole)
    outer = _overlaps(level, values, places.outer)
    (beside, beside_rows), (above, above_rows) = _ring(*outer, columns[:, :count], rows[:, :count])
    columns = torch.cat([columns, beside, above], dim=1)
    rows = torch.cat([rows, beside_rows, above_rows], dim=1)
    sums, areas = _weighted_sum(values, columns, rows), _area(columns, rows)
    means, half = sums[:, : count + 1] / areas[:, : count + 1], 2 * count + 1
    rings = (sums[:, count + 1 : half] + sums[:, half:]) / (areas[:, count + 1 : half] + areas[:, half:])
    return torch.cat([means[:, :count], rings, means[:, count:]], dim=1)


def box_mean(level: FeatureMap, values: Tensor, outer: Tensor, hole: Tensor | None = None) -> Tensor:
    """Exact mean of the piecewise constant map over boxes, less a hole.

    A box is an outer product of its overlaps with columns c and rows r; the ring around a hole is two such
    products, r_o (c_o - c_h) + (r_o - r_h) c_h. None of their weights is negative, so that the mean of a
    non-negative map is not either: a difference of the two boxes' sums can be, by rounding, and is where a
    thin hole, widened to be seen at all, reaches beyond a thin box.

    Args:
        level: gives the grid; values: (B, C, h, w) on it.
        outer, hole: (B, N, 4) in the input frame, hole within outer; a hole that leaves nothing is ignored.
    Returns:
        (B, N, C).
    """
    columns, rows = _overlaps(level, values, outer)
    if hole is None:
        return _weighted_sum(values, columns, rows) / _area(columns, rows)
    beside, above = _ring(columns, rows, *_overlaps(level, values, hole))
    total = _weighted_sum(values, *beside) + _weighted_sum(values, *above)
    return total / (_area(*beside) + _area(*above))


def mask_mean(
    level: FeatureMap,
    values: Tensor,
    density: Tensor,
    size: tuple[int, int],
    part: tuple[float, float, float, float] | None = None,
) -> Tensor:
    """Mean of one image's map weighted by densities.

    Args:
        values: (1, C, h, w). density: (R, a, b). size: (height, width) of the frame of `level`.
        part: (x1, y1, x2, y2) of that frame which the density's grid covers (all of it); what of the grid
            lies beyond the frame is left out.
    Returns:
        (R, C).
    """
    x1, y1, x2, y2 = part or (0.0, 0.0, size[1], size[0])
    (_, _, h, w), (_, a, b) = values.shape, density.shape
    rows = _cells_of_grid(level, 1, h, a, y1, y2, size[0]).to(density)  # (h, a)
    columns = _cells_of_grid(level, 0, w, b, x1, x2, size[1]).to(density)  # (w, b)
    weights = rows @ density @ columns.T + 1e-12  # (R, h, w)
    return torch.einsum("rhw,chw->rc", weights, values[0].to(density)) / weights.sum((1, 2))[:, None]


def mask_boxes(density: Tensor, shape: torch.Size) -> Tensor:
    """Bounding boxes (R, 4), input frame of `shape` (..., h, w), of densities' (R, a, b) supports; the whole
    frame where one is empty."""
    unit = density.new_tensor([shape[-1] / density.shape[2], shape[-2] / density.shape[1]]).repeat(2)
    boxes = density.new_tensor([0.0, 0.0, shape[-1], shape[-2]]).repeat(len(density), 1)
    for row, mask in zip(boxes, density, strict=True):
        down, across = mask.sum(1).nonzero()[:, 0], mask.sum(0).nonzero()[:, 0]
        if len(down):
            row[:] = torch.stack([across[0], down[0], across[-1] + 1, down[-1] + 1]).to(mask) * unit
    return boxes


def geometry(boxes: Tensor, shape: torch.Size) -> Tensor:
    """log width, log height and log aspect of boxes (..., 4) relative to the input -> (..., 3)."""
    width = (boxes[..., 2] - boxes[..., 0]).clamp_min(1) / shape[-1]
    height = (boxes[..., 3] - boxes[..., 1]).clamp_min(1) / shape[-2]
    return torch.stack([width.log(), height.log(), (width / height).log()], dim=-1)


def image_frames(pins: Sequence[Pin]) -> Floats:
    """Where each stored image lies within the input frame -> (B, 4)."""
    return np.stack(
        [pin.to_input(np.array([0.0, 0.0, pin.image_size[1], pin.image_size[0]])) for pin in pins]
    )


def padded(boxes: Sequence[NDArray[np.float32]]) -> Tensor:
    """Boxes (N_i, 4) of images -> (B, max N, 4), filled up with unit boxes."""
    out = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(boxes), max(1, *(len(b) for b in boxes), 0), 1)
    for row, own in zip(out, boxes, strict=True):
        row[: len(own)] = torch.from_numpy(np.asarray(own, dtype=np.float32).reshape(-1, 4))
    return out


def expanded(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (..., 4) scaled about their centres by `factor` per side."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=-1)


def clipped(boxes: Tensor, frame: Tensor) -> Tensor:
    """Boxes (B, N, 4) within frames (B, 1, 4)."""
    return torch.maximum(torch.minimum(boxes, frame[..., 2:].repeat(1, 1, 2)), frame[..., :2].repeat(1, 1, 2))


def array(values: Tensor) -> Floats:
    """A tensor as float32 on the host."""
    return values.float().cpu().numpy()


def _ring(
    columns: Tensor, rows: Tensor, hole_columns: Tensor, hole_rows: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two products (columns, rows) that make a box less its hole; see `box_mean`."""
    hole_columns, hole_rows = torch.minimum(hole_columns, columns), torch.minimum(hole_rows, rows)
    beside, rest = columns - hole_columns, rows - hole_rows
    ring = _area(beside, rows) + _area(hole_columns, rest)  # (B, N, 1)
    left = ring > _LEAST_RING * _area(columns, rows)
    beside, above = torch.where(left, beside, columns), torch.where(left, hole_columns, 0.0)
    return (beside, rows), (above, rest)


def _overlaps(level: FeatureMap, values: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """How far boxes (B, N, 4) reach into each column (B, N, w) and row (B, N, h) of the map, in pixels."""
    height, width = values.shape[-2:]
    return (
        _overlap(boxes[..., 0], boxes[..., 2], width, level.scale[0], level.offset[0]),
        _overlap(boxes[..., 1], boxes[..., 3], height, level.scale[1], level.offset[1]),
    )


def _area(columns: Tensor, rows: Tensor) -> Tensor:
    """The sum of rows (B, N, h) times columns (B, N, w) -> (B, N, 1)."""
    return columns.sum(-1, keepdim=True) * rows.sum(-1, keepdim=True)


def _weighted_sum(values: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Sums (B, N, C) of the map (B, C, h, w) weighted by rows (B, N, h) times columns (B, N, w).

    One matrix product with the weights of all cells; for few channels these would cost more than the sums, so
    columns go first.
    """
    batch, channels, height, width = values.shape
    values = values.to(columns)
    if channels >= _MANY:
        weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # (B, N, h * w)
        return weights @ values.flatten(2).transpose(1, 2)
    along = values.reshape(batch, channels * height, width) @ columns.transpose(1, 2)
    along = along.reshape(batch, channels, height, -1)  # (B, C, h, N)
    return (along * rows.transpose(1, 2)[:, None]).sum(2).transpose(1, 2)


def _overlap(low: Tensor, high: Tensor, cells: int, scale: float, offset: float) -> Tensor:
    """Length of [low, high] (...) within each cell -> (..., cells); beyond the grid, the border cell."""
    first, last = offset - scale / 2, offset + scale * (cells - 0.5)
    least = 1e-2 * scale
    low = low.clamp(first, last - least)
    high = torch.maximum(high.clamp(first, last), low + least)
    edges = first + scale * torch.arange(cells, device=low.device, dtype=low.dtype)
    return (torch.minimum(high[..., None], edges + scale) - torch.maximum(low[..., None], edges)).clamp_min(0)


def _cells_of_grid(
    level: FeatureMap, axis: int, cells: int, parts: int, low: float, high: float, side: float
) -> Tensor:
    """Overlap (cells, parts) of feature cells with [low, high] cut into equal parts; 0 beyond [0, side]."""
    edges = torch.linspace(low, high, parts + 1, dtype=torch.float64).float()
    found = _overlap(edges[:-1], edges[1:], cells, level.scale[axis], level.offset[axis])
    within = (edges[1:] > 0) & (edges[:-1] < side)
    return (found * within[:, None]).T
