"""Vectors of boxes from a detector's own features.

In: prepared images u (B, 3, h, w), their pins, boxes in stored-image pixels. Out: per image and view float32
vectors. The detector looks at the image once; every box is then a weighted mean over feature cells, so that
hundreds of boxes of an image cost little more than one.

Views, one vector per box each (per image for "image"):
    object   inside the box
    context  the ring between the box and the box enlarged twice
    sides    the strips left and right of the box: their mean and their absolute difference, which is large
             where something stands beside the object, whichever side it stands on
    image    the whole image

Each holds, for the finest levels of the detector, the mean of every channel and (finest level) its standard
deviation, since textures and grounds differ in spread more than in mean; then statistics of the pixels
themselves (colour, chroma, contrast, edges), which later layers learn to ignore, although a colour cast or a
dark ground is made of nothing else; "object" adds the box's size and shape. A level wider than its share is
reduced by a fixed orthonormal projection.

What may be compared: a failure's box, a success's box and an unexplained pool box are pooled by the same
rule, so their vectors compare in every view. An attribution exists for explained outcomes only: `masks` weigh
the cells by its density instead of the box. Such a vector is laid out like "object" and compares with pool
boxes that *are* what the region is (the post, the look-alike), not with boxes that hold the failing object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector, FeatureMap
from curator.errors import ConfigError
from curator.registry import Spec
from curator.tensors import generator
from store.records import Floats, Pin

BOX_VIEWS = ("object", "context", "sides")
_PIXEL_SIDE = 128  # pixel statistics are taken at no more than this many cells per side
PIXEL_STATISTICS = 19
_GEOMETRY = 3


class Embedder(Protocol):
    """Turns boxes of images into vectors.

    Attributes:
        views: names of the views, "image" among them if the embedder has one.
    """

    views: tuple[str, ...]

    def embed(
        self,
        u: Tensor,
        pins: Sequence[Pin],
        boxes: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.float32]] | None = None,
    ) -> list[dict[str, Floats]]:
        """Embed boxes of a batch.

        Args:
            u: (B, 3, h, w) RGB [0, 1], in the input frame of all `pins`.
            boxes: per image (N, 4) stored-image pixels.
            masks: per image (R, a, b) non-negative densities on a grid over the input frame, or None.
        Returns:
            per image {view: (N, D), "image": (1, D)}, and "region": (R, D) with `masks`.
        """


class DetectorEmbedder:
    """Vectors from the detector's feature levels.

    Args:
        spec: `detector:?levels=NAME,NAME&dimension=N`; default: the three finest levels, at most 224 numbers
            per view.
        detector: the detector; it must offer feature levels.

    Raises:
        ConfigError: a black-box detector, unknown levels, or a dimension outside 32 to 256.
    """

    def __init__(self, spec: Spec, detector: Detector) -> None:
        spec.only(("levels", "dimension"))
        levels = tuple(filter(None, spec.options.get("levels", "").split(","))) or detector.levels[:3]
        unknown = [level for level in levels if level not in detector.levels]
        if not levels or unknown:
            known = ", ".join(detector.levels) or "it has none"
            raise ConfigError(
                f"embedder {spec.text!r}: expected feature levels of the detector ({known}), "
                f"got {', '.join(unknown) or 'none'}"
            )
        dimension = spec.options.get("dimension", "224")
        if not dimension.isdecimal() or not 32 <= int(dimension) <= 256:
            raise ConfigError(f"embedder {spec.text!r}: expected a dimension of 32 to 256, got {dimension!r}")
        self._detector, self._levels, self._dimension = detector, levels, int(dimension)
        self._projections: dict[tuple[str, int], Tensor | None] = {}
        self.views: tuple[str, ...] = (*BOX_VIEWS, "image")

    @torch.inference_mode()
    def embed(
        self,
        u: Tensor,
        pins: Sequence[Pin],
        boxes: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.float32]] | None = None,
    ) -> list[dict[str, Floats]]:
        """See `Embedder.embed`."""
        nothing = torch.zeros(0, dtype=torch.int64, device=u.device)
        features = self._detector.candidates(u, pins[0], index=nothing, levels=self._levels).features
        pixels = pixel_maps(u)
        frame = torch.from_numpy(image_frames(pins)).to(u)[:, None]  # (B, 1, 4): the image within the input
        inner = _padded([pin.to_input(b) for pin, b in zip(pins, boxes, strict=True)]).to(u)  # (B, N, 4)
        left, right = (_clipped(strip, frame) for strip in _strips(inner))
        inner, twice = (_clipped(_expanded(inner, factor), frame) for factor in (1.0, 2.0))
        described = self._boxes(features, pixels, inner, None)
        vectors = {
            "object": torch.cat([described, _geometry(inner, u.shape)], dim=-1),
            "context": self._boxes(features, pixels, twice, inner),
            "sides": self._sides(features, pixels, left, right),
        }
        whole = self._boxes(features, pixels, frame, None)  # (B, 1, D)
        result = []
        for i, own in enumerate(boxes):
            views = {view: _array(values[i, : len(own)]) for view, values in vectors.items()}
            views["image"] = _array(whole[i])
            if masks is not None:
                density = torch.from_numpy(np.ascontiguousarray(masks[i], dtype=np.float32)).to(u)
                views["region"] = _array(self._masks(features, pixels, density, i, u.shape))
            result.append(views)
        return result

    def _boxes(
        self, features: Mapping[str, FeatureMap], pixels: FeatureMap, outer: Tensor, hole: Tensor | None
    ) -> Tensor:
        """Statistics within `outer` less `hole` (both (B, N, 4), input frame) -> (B, N, D)."""

        def pool(level: FeatureMap, values: Tensor) -> Tensor:
            return box_mean(level, values, outer, hole)

        return self._layout(features, pixels, pool)

    def _sides(
        self, features: Mapping[str, FeatureMap], pixels: FeatureMap, left: Tensor, right: Tensor
    ) -> Tensor:
        """Mean and absolute difference of what lies in two strips (B, N, 4) -> (B, N, D)."""
        fine = self._levels[:2]
        width = (self._dimension // 2 - PIXEL_STATISTICS) // len(fine)
        described = []
        for strip in (left, right):
            parts = [_pixel_statistics(box_mean(pixels, pixels.values, strip))]
            parts += [
                self._reduced(f"{name}/sides", box_mean(features[name], features[name].values, strip), width)
                for name in fine
            ]
            described.append(torch.cat(parts, dim=-1))
        return torch.cat([(described[0] + described[1]) / 2, (described[0] - described[1]).abs()], dim=-1)

    def _masks(
        self,
        features: Mapping[str, FeatureMap],
        pixels: FeatureMap,
        density: Tensor,
        i: int,
        shape: torch.Size,
    ) -> Tensor:
        """Statistics of image i weighted by densities (R, h, w) -> (R, D), laid out like "object"."""

        def pool(level: FeatureMap, values: Tensor) -> Tensor:
            return _mask_mean(level, values[i : i + 1], density, shape)

        stated = self._layout(features, pixels, pool)[0]
        boxes = density.new_zeros((len(density), 4))
        for row, mask in zip(boxes, density, strict=True):
            row[:] = _mask_box(mask, shape)
        return torch.cat([stated, _geometry(boxes, shape)], dim=-1)

    def _layout(self, features: Mapping[str, FeatureMap], pixels: FeatureMap, pool: _Pool) -> Tensor:
        parts = [_pixel_statistics(pool(pixels, pixels.values))]
        share = (self._dimension - parts[0].shape[-1] - _GEOMETRY) // (len(self._levels) + 1)
        for number, name in enumerate(self._levels):
            level = features[name]
            mean = pool(level, level.values)
            parts.append(self._reduced(f"{name}/mean", mean, share))
            if number == 0:
                spread = (pool(level, level.values.square()) - mean.square()).clamp_min(0).sqrt()
                parts.append(self._reduced(f"{name}/spread", spread, share))
        return torch.cat(parts, dim=-1)

    def _reduced(self, name: str, values: Tensor, width: int) -> Tensor:
        key = (name, values.shape[-1])
        if key not in self._projections:
            self._projections[key] = None
            if values.shape[-1] > width:
                normal = torch.randn(values.shape[-1], width, generator=generator("embed", *key, width))
                self._projections[key] = torch.linalg.qr(normal).Q.to(values)
        matrix = self._projections[key]
        return values if matrix is None else values @ matrix


class _Pool(Protocol):
    def __call__(self, level: FeatureMap, values: Tensor) -> Tensor: ...


def pixel_maps(u: Tensor) -> FeatureMap:
    """Maps of the pixels themselves: u (B, 3, h, w) -> (B, 19, h', w').

    Channels: colour (3), log chroma (2), log tone (1); squares of colour and chroma (5); absolute differences
    of grey at distances 1 and 3 along four directions (8), which tell grain and direction of a pattern.
    """
    grey = u.mean(dim=1, keepdim=True)
    tone = (u + 0.02).log()
    chroma = torch.cat([tone[:, :1] - tone[:, 1:2], tone[:, 2:] - tone[:, 1:2]], dim=1)
    edges = [
        _difference(grey, x * step, y * step) for step in (1, 3) for x, y in ((1, 0), (0, 1), (1, 1), (1, -1))
    ]
    maps = torch.cat([u, chroma, tone.mean(dim=1, keepdim=True), u.square(), chroma.square(), *edges], dim=1)
    step = max(1, -(-max(u.shape[-2:]) // _PIXEL_SIDE))
    maps = F.avg_pool2d(maps, step, ceil_mode=True, count_include_pad=False)
    return FeatureMap(maps, (float(step), float(step)), (step / 2, step / 2))


def contrast_maps(pixels: FeatureMap) -> Tensor:
    """Of `pixel_maps`: chroma, tone and the finest edges (B, 5, h', w'); what stands out does so in these."""
    return pixels.values[:, [3, 4, 5, 11, 12]]


def _difference(grey: Tensor, x: int, y: int) -> Tensor:
    """|g(p + (x, y)) - g(p)|, 0 where p + (x, y) lies outside."""
    moved = torch.roll(grey, (-y, -x), dims=(2, 3))
    result = (moved - grey).abs()
    if x:
        result[..., -x:] = 0
    if y:
        result[..., slice(-y, None) if y > 0 else slice(None, -y), :] = 0
    return result


def _pixel_statistics(means: Tensor) -> Tensor:
    """Means of `pixel_maps` (..., 19) -> (..., 19): colour, chroma, tone, spreads, log edges."""
    first, square, edges = means[..., :6], means[..., 6:11], means[..., 11:]
    spread = (square - means[..., :5].square()).clamp_min(0).sqrt()
    return torch.cat([first, spread, (edges + 1e-3).log()], dim=-1)


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
    hole_columns, hole_rows = _overlaps(level, values, hole)
    hole_columns, hole_rows = torch.minimum(hole_columns, columns), torch.minimum(hole_rows, rows)
    beside, rest = columns - hole_columns, rows - hole_rows
    ring = _area(beside, rows) + _area(hole_columns, rest)  # (B, N, 1)
    left = ring > 1e-3 * _area(columns, rows)
    beside, above = torch.where(left, beside, columns), torch.where(left, hole_columns, 0.0)
    total = _weighted_sum(values, beside, rows) + _weighted_sum(values, above, rest)
    return total / (_area(beside, rows) + _area(above, rest))


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
    """Sums (B, N, C) of the map (B, C, h, w) weighted by rows (B, N, h) times columns (B, N, w): two matrix
    products."""
    batch, channels, height, width = values.shape
    along = values.reshape(batch, channels * height, width) @ columns.transpose(1, 2)  # (B, C*h, N)
    along = along.reshape(batch, channels, height, -1)
    return torch.einsum("bchn,bnh->bnc", along, rows)


def _overlap(low: Tensor, high: Tensor, cells: int, scale: float, offset: float) -> Tensor:
    """Length of [low, high] (...) within each cell -> (..., cells); beyond the grid, the border cell."""
    first, last = offset - scale / 2, offset + scale * (cells - 0.5)
    least = 1e-2 * scale
    low = low.clamp(first, last - least)
    high = torch.maximum(high.clamp(first, last), low + least)
    edges = first + scale * torch.arange(cells, device=low.device, dtype=low.dtype)
    return (torch.minimum(high[..., None], edges + scale) - torch.maximum(low[..., None], edges)).clamp_min(0)


def _mask_mean(level: FeatureMap, values: Tensor, density: Tensor, shape: torch.Size) -> Tensor:
    """Mean of values (1, C, h', w') weighted by densities (R, a, b) over the input frame -> (1, R, C)."""
    rows = _cells_of_grid(level, 1, values.shape[2], density.shape[1], shape[-2]).to(density)  # (h', a)
    columns = _cells_of_grid(level, 0, values.shape[3], density.shape[2], shape[-1]).to(density)  # (w', b)
    weights = rows @ density @ columns.T + 1e-12  # (R, h', w')
    return torch.einsum("rhw,chw->rc", weights, values[0])[None] / weights.sum((1, 2))[None, :, None]


def _cells_of_grid(level: FeatureMap, axis: int, cells: int, parts: int, side: int) -> Tensor:
    """Overlap (cells, parts) of feature cells with a frame of `side` pixels cut into equal parts."""
    edge = torch.arange(parts, dtype=torch.float32) * (side / parts)
    return _overlap(edge, edge + side / parts, cells, level.scale[axis], level.offset[axis]).T


def _mask_box(mask: Tensor, shape: torch.Size) -> Tensor:
    """Bounding box (4,), input frame, of a density (a, b)'s support; the whole frame where it is empty."""
    rows, columns = mask.sum(1).nonzero()[:, 0], mask.sum(0).nonzero()[:, 0]
    unit = mask.new_tensor([shape[-1] / mask.shape[1], shape[-2] / mask.shape[0]]).repeat(2)
    if not len(rows):
        return mask.new_tensor([0.0, 0.0, shape[-1], shape[-2]])
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).to(mask) * unit


def _geometry(boxes: Tensor, shape: torch.Size) -> Tensor:
    """log width, log height and log aspect of boxes (..., 4) relative to the input -> (..., 3)."""
    width = (boxes[..., 2] - boxes[..., 0]).clamp_min(1) / shape[-1]
    height = (boxes[..., 3] - boxes[..., 1]).clamp_min(1) / shape[-2]
    return torch.stack([width.log(), height.log(), (width / height).log()], dim=-1)


def image_frames(pins: Sequence[Pin]) -> Floats:
    """Where each stored image lies within the input frame -> (B, 4)."""
    return np.stack(
        [pin.to_input(np.array([0.0, 0.0, pin.image_size[1], pin.image_size[0]])) for pin in pins]
    )


def _padded(boxes: Sequence[NDArray[np.float32]]) -> Tensor:
    """Boxes (N_i, 4) of images -> (B, max N, 4), filled up with unit boxes."""
    out = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(boxes), max(1, *(len(b) for b in boxes), 0), 1)
    for row, own in zip(out, boxes, strict=True):
        row[: len(own)] = torch.from_numpy(np.asarray(own, dtype=np.float32))
    return out


def _expanded(boxes: Tensor, factor: float) -> Tensor:
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=-1)


def _strips(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Strips left and right of boxes (..., 4), 0.4 of the longer side wide, a tenth shorter at both ends."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width = 0.4 * torch.maximum(x2 - x1, y2 - y1)
    top, bottom = y1 + 0.1 * (y2 - y1), y2 - 0.1 * (y2 - y1)
    return torch.stack([x1 - width, top, x1, bottom], dim=-1), torch.stack(
        [x2, top, x2 + width, bottom], dim=-1
    )


def _clipped(boxes: Tensor, frame: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(boxes, frame[..., 2:].repeat(1, 1, 2)), frame[..., :2].repeat(1, 1, 2))


def _array(values: Tensor) -> Floats:
    return values.float().cpu().numpy()
