"""Crop around the hole, paint at the painter's own size, paste back: what all inpainters share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError

_CONTEXT = 1.8
"""Side of the crop relative to the longer side of the hole's bounding box."""
_CHUNK = 4
"""Crops painted at once, always exactly so many (padded), since batch sizes change the last bits of a
result."""


class CropInpainter:
    """Paints each hole in a square crop around it; everything outside the hole stays bit-identical.

    Args:
        size: side of the crops that `paint` takes, pixels.
        feather: pixels over which the painting fades into the original *inside* the hole's border.
    """

    fingerprint: str
    size: int
    feather: float = 1.0

    def inpaint(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        prompts: Sequence[str] | None = None,
        exemplars: Tensor | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Repaint; see `curator.inpaint.base.Inpainter`. An image with an empty mask comes back as it is.

        Raises:
            InputError: shapes that do not fit together.
        """
        n = len(images)
        if masks.shape != (n, *images.shape[2:]) or masks.dtype != torch.bool:
            raise InputError(
                f"expected bool masks {(n, *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}"
            )
        for name, given in (("prompts", prompts), ("exemplars", exemplars), ("seeds", seeds)):
            if given is not None and len(given) != n:
                raise InputError(f"expected {n} {name}, one per image, got {len(given)}")
        out = images.clone()
        todo = [i for i in range(n) if bool(masks[i].any())]
        windows = {i: crop_window(masks[i]) for i in todo}
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            padded = chunk + [chunk[-1]] * (_CHUNK - len(chunk)) if self.pads else chunk
            crops = torch.stack([self._resize(images[i][:, *windows[i]]) for i in padded])
            holes = torch.stack([self._resize(masks[i][windows[i]][None].float()) > 0 for i in padded])
            painted = self.paint(
                crops,
                holes,
                prompts=None if prompts is None else [prompts[i] for i in padded],
                exemplars=None if exemplars is None else exemplars[padded],
                seeds=[seeds[i] for i in padded],
            ).to(images)
            for i, crop in zip(chunk, painted[: len(chunk)], strict=True):
                _paste(out[i], crop, masks[i], windows[i], self.feather)
        return out

    pads = True

    def paint(
        self,
        crops: Tensor,
        holes: Tensor,
        *,
        prompts: Sequence[str] | None,
        exemplars: Tensor | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Paint crops (B, 3, size, size) in [0, 1] with holes (B, 1, size, size) bool; returns the like."""
        raise NotImplementedError

    def _resize(self, crop: Tensor) -> Tensor:
        return F.interpolate(crop[None], (self.size, self.size), mode="bilinear", antialias=True)[0].clamp(
            0, 1
        )


def crop_window(mask: Tensor, context: float = _CONTEXT) -> tuple[slice, slice]:
    """The square window (rows, columns) around a mask (H, W), shifted into the image; a rectangle only where
    the image is smaller than the square."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    height, width = mask.shape
    side = max(round(max(y2 - y1, x2 - x1) * context), 16)
    top = min(max((y1 + y2 - side) // 2, 0), max(height - side, 0))
    left = min(max((x1 + x2 - side) // 2, 0), max(width - side, 0))
    return slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _paste(image: Tensor, crop: Tensor, mask: Tensor, window: tuple[slice, slice], feather: float) -> None:
    """Write a painted crop (3, s, s) into `image` (3, H, W) where `mask` is True, fading within the mask."""
    hole = mask[window]
    native = F.interpolate(crop[None], tuple(hole.shape), mode="bilinear", antialias=True)[0].clamp(0, 1)
    # The window's own border counts as outside only where the image goes on there.
    depth = ndimage.distance_transform_edt(np.pad(hole.cpu().numpy(), 1, mode="edge"))[1:-1, 1:-1]
    weight = torch.from_numpy(np.clip(depth / (feather + 1), 0, 1)).to(image) if feather else hole.to(image)
    view = image[:, *window]
    blended = view + weight * (native - view)
    view[:, hole] = blended[:, hole]
