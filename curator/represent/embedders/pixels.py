"""Statistics of the pixels themselves: colour, chroma, contrast, edges.

In: prepared images u (B, 3, h, w). Out: maps whose means over any region describe it, and these statistics.
Later layers of a network learn to ignore them, although a colour cast or a dark ground is made of nothing
else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curator.detect.base import FeatureMap

PIXELS = "pixels"
"""Name under which an embedder takes `pixel_maps` that were computed already."""

STATISTICS = 19
_SIDE = 128  # no more than this many cells per side
_DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))


def pixel_maps(u: Tensor) -> FeatureMap:
    """Maps of the pixels themselves: u (B, 3, h, w) -> (B, 19, h', w').

    Channels: colour (3), log chroma (2), log tone (1); squares of colour and chroma (5); absolute differences
    of grey at distances 1 and 3 along four directions (8), which tell grain and direction of a pattern.
    """
    step = max(1, -(-max(u.shape[-2:]) // _SIDE))
    grey = u.mean(dim=1, keepdim=True)
    tone = (u + 0.02).log()
    chroma = tone[:, 0::2] - tone[:, 1:2]
    edges = [_difference(grey, x * far, y * far) for far in (1, 3) for x, y in _DIRECTIONS]
    parts = (u, chroma, tone, u.square(), chroma.square(), torch.cat(edges, dim=1))
    colour, tint, tones, squares, spread, rest = (_pooled(part, step) for part in parts)
    maps = torch.cat([colour, tint, tones.mean(dim=1, keepdim=True), squares, spread, rest], dim=1)
    return FeatureMap(maps, (float(step), float(step)), (step / 2, step / 2))


def contrast_maps(pixels: FeatureMap) -> Tensor:
    """Of `pixel_maps`: chroma, tone and the finest edges (B, 5, h', w'); what stands out does so in these."""
    return pixels.values[:, [3, 4, 5, 11, 12]]


def pixel_statistics(means: Tensor) -> Tensor:
    """Means of `pixel_maps` (..., 19) -> (..., 19): colour, chroma, tone, spreads, log edges."""
    first, square, edges = means[..., :6], means[..., 6:11], means[..., 11:]
    spread = (square - means[..., :5].square()).clamp_min(0).sqrt()
    return torch.cat([first, spread, (edges + 1e-3).log()], dim=-1)


def _pooled(values: Tensor, step: int) -> Tensor:
    """Means (B, C, h', w') of blocks of step x step; those at the border may be cut."""
    batch, channels, height, width = values.shape
    if height % step or width % step:
        return F.avg_pool2d(values, step, ceil_mode=True, count_include_pad=False)
    rows = values.reshape(-1, step, width).sum(1)  # twice as fast as pooling
    sums = rows.reshape(-1, step).sum(1).reshape(batch, channels, height // step, width // step)
    return sums / step**2


def _difference(grey: Tensor, x: int, y: int) -> Tensor:
    """|g(p + (x, y)) - g(p)| with x >= 0, 0 where p + (x, y) lies outside."""
    height, width = grey.shape[-2:]
    result = torch.zeros_like(grey)
    across, down = max(0, width - x), max(0, height - abs(y))
    here, there = max(0, -y), max(0, y)
    result[..., here : here + down, :across] = (
        grey[..., there : there + down, x : x + across] - grey[..., here : here + down, :across]
    ).abs()
    return result
