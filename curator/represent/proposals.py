"""Boxes that stand out from their surroundings, whatever the detector thinks of them.

In: prepared images u (B, 3, h, w). Out: per image the windows of highest centre-surround contrast (Itti, Koch
and Niebur 1998), box-shaped. A detector that misses an object altogether, because it is too small or unlike
all it knows, offers no candidate there; something that can be queried must stand there all the same.

contrast(window) = mean over channels of (mean inside - mean of the ring around)^2, channels standardised per
image: chroma, tone and edge strength of `curator.represent.embedders.detector.pixel_maps`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curator.boxes import iou
from store.records import Floats

SIDES = (0.095, 0.135, 0.19, 0.27, 0.385)  # of the shorter side of the input
ASPECTS = (0.5, 1.0, 2.0)  # height over width
STEP = 0.3  # of a window's side
RING = 1.7  # the surround's side over the window's
POOL = 600  # best windows among which repeats are removed


@torch.inference_mode()
def salient(
    maps: Tensor, scale: float, size: tuple[int, int], frames: Floats, most: int, *, overlap: float = 0.3
) -> list[Floats]:
    """Salient windows.

    Args:
        maps: (B, C, h', w') channels to compare. scale: pixels of the input frame per cell.
        size: (h, w) of the input frame. frames: (B, 4) the image within it; padding is left out.
        most: windows per image.
        overlap: IoU above which a window repeats a better one.
    Returns:
        per image (N <= most, 4) boxes in the input frame, best first.
    """
    windows = _windows(size)
    centre, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2:] - windows[:, :2]) / 2
    rings = np.concatenate([centre - RING * half, centre + RING * half], axis=1).astype(np.float32)
    standard = (maps - maps.mean((2, 3), keepdim=True)) / (maps.std((2, 3), keepdim=True) + 1e-6)
    table = F.pad(standard.cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    inside, area = _sums(table, windows / scale)
    around, whole = _sums(table, rings / scale)
    contrast = (
        (inside / area - (around - inside) / (whole - area).clamp_min(1)).square().mean(1)
    )  # (B, windows)
    chosen = []
    for score, frame in zip(contrast.cpu().numpy(), frames, strict=True):
        order = np.argsort(-score, kind="stable")
        within = (windows[:, :2] >= frame[:2] - 1).all(1) & (windows[:, 2:] <= frame[2:] + 1).all(1)
        best = windows[order[within[order]][:POOL]]
        chosen.append(best[distinct(best, most, overlap)])
    return chosen


def distinct(boxes: Floats, most: int, overlap: float) -> list[int]:
    """Indices of the first `most` boxes (best first) that do not repeat an earlier one."""
    if not len(boxes):
        return []
    left = np.ones(len(boxes), bool)
    chosen: list[int] = []
    while len(chosen) < most and left.any():
        first = int(left.argmax())
        chosen.append(first)
        left &= iou(boxes[first], boxes)[0] <= overlap
        left[first] = False
    return chosen


@lru_cache(maxsize=8)
def _windows(size: tuple[int, int]) -> Floats:
    """All windows (N, 4) of an input frame (h, w)."""
    height, width = size
    found = []
    for side in SIDES:
        for aspect in ASPECTS:
            w = side * min(size) / aspect**0.5
            h = side * min(size) * aspect**0.5
            if w <= width and h <= height:
                x, y = np.meshgrid(_places(width - w, w), _places(height - h, h))
                found.append(np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def _places(room: float, side: float) -> NDArray[np.float64]:
    return np.linspace(0, room, max(1, int(np.ceil(room / max(STEP * side, 2.0)))) + 1)


def _sums(table: Tensor, boxes: Floats) -> tuple[Tensor, Tensor]:
    """Sums (B, C, N) over boxes (N, 4), in cells and rounded, from a summed-area table; areas (N,)."""
    height, width = table.shape[-2:]
    corners = torch.from_numpy(np.rint(boxes).astype(np.int64)).to(table.device)
    x1, y1 = corners[:, 0].clamp(0, width - 2), corners[:, 1].clamp(0, height - 2)
    x2 = torch.maximum(corners[:, 2].clamp(max=width - 1), x1 + 1)
    y2 = torch.maximum(corners[:, 3].clamp(max=height - 1), y1 + 1)
    flat = table.flatten(2)

    def at(y: Tensor, x: Tensor) -> Tensor:
        return flat[:, :, y * width + x]

    total = at(y2, x2) - at(y1, x2) - at(y2, x1) + at(y1, x1)
    return total, ((x2 - x1) * (y2 - y1)).float()
