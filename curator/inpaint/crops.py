"""Crop around the hole, paint at the painter's own size, paste back: what all inpainters share.

In: images with holes, and compositions to start from. Out: the images with their holes painted. Below a
strength of 1 the painting is only trusted as far as the painter's size goes: what the composition holds of
finer detail is added again, `1 - strength` of it, so that strength 0 is the composition itself and there is
no jump between the two ends of the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBatch:
    """What a painter is asked for.

    Attributes:
        crops: (B, 3, size, size) RGB [0, 1]. holes: (B, 1, size, size) bool, True = repaint.
        initial: (B, 3, size, size), the crops with the composition in their holes; None: paint from noise.
        strength: in (0, 1]; 1 where `initial` is None.
        prompts, negative_prompts: one per crop. exemplars: one (3, h, w) per crop.
        seeds: one per crop.
    """

    crops: Tensor
    holes: Tensor
    initial: Tensor | None
    strength: float
    prompts: Sequence[str] | None
    negative_prompts: Sequence[str] | None
    exemplars: Sequence[Tensor] | None
    seeds: Sequence[int]


class CropInpainter:
    """Paints each hole in a square crop around it; everything outside the hole stays bit-identical.

    Args:
        size: side of the crops that `paint` takes, pixels.
        feather: pixels over which the painting fades into the original *inside* the hole's border.
        pads: are crops painted in batches of always equal size?
    """

    fingerprint: str
    size: int
    feather: float = 1.0
    pads = True

    def inpaint(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        initial: Tensor | None = None,
        strength: float = 1.0,
        prompts: Sequence[str] | None = None,
        negative_prompts: Sequence[str] | None = None,
        exemplars: Sequence[Tensor] | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Repaint; see `curator.inpaint.base.Inpainter`. An image with an empty mask comes back as it is, and
        at strength 0 every hole shows `initial` bit for bit, whatever the painter.

        Raises:
            InputError: shapes that do not fit together, or a strength below 1 without an `initial`.
        """
        check_request(
            images,
            masks,
            initial=initial,
            strength=strength,
            prompts=prompts,
            negative_prompts=negative_prompts,
            exemplars=exemplars,
            seeds=seeds,
        )
        composed = None if initial is None or strength == 1 else compose(images, masks, initial)
        if composed is not None and strength == 0:
            return composed
        out = images.clone()
        todo = [i for i in range(len(images)) if bool(masks[i].any())]
        windows = {i: crop_window(masks[i]) for i in todo}
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            padded = chunk + [chunk[-1]] * (_CHUNK - len(chunk)) if self.pads else chunk
            started = None
            if composed is not None:
                started = torch.stack([self._resize(composed[i][:, *windows[i]]) for i in padded])
            painted = self.paint(
                CropBatch(
                    crops=torch.stack([self._resize(images[i][:, *windows[i]]) for i in padded]),
                    holes=torch.stack([self._resize(masks[i][windows[i]][None].float()) > 0 for i in padded]),
                    initial=started,
                    strength=strength,
                    prompts=_of(prompts, padded),
                    negative_prompts=_of(negative_prompts, padded),
                    exemplars=_of(exemplars, padded),
                    seeds=[seeds[i] for i in padded],
                )
            ).to(images)
            for number, i in enumerate(chunk):
                native = self._native(painted[number], windows[i])
                if composed is not None and started is not None:
                    shown = composed[i][:, *windows[i]]
                    lost = shown - self._native(started[number].to(images), windows[i])
                    native = (native + (1 - strength) * lost).clamp(0, 1)
                _paste(out[i], native, masks[i], windows[i], self.feather)
        return out

    def paint(self, batch: CropBatch) -> Tensor:
        """Paint; returns (B, 3, size, size) in [0, 1]."""
        raise NotImplementedError

    def _resize(self, crop: Tensor) -> Tensor:
        return F.interpolate(crop[None], (self.size, self.size), mode="bilinear", antialias=True)[0].clamp(
            0, 1
        )

    @staticmethod
    def _native(crop: Tensor, window: tuple[slice, slice]) -> Tensor:
        """A crop (3, s, s) at its window's own size."""
        size = (window[0].stop - window[0].start, window[1].stop - window[1].start)
        return F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def check_request(
    images: Tensor,
    masks: Tensor,
    *,
    initial: Tensor | None,
    strength: float,
    **per_image: Sequence[object] | None,
) -> None:
    """Refuse what does not fit together.

    Raises:
        InputError: masks that are not bool (B, H, W); a strength outside [0, 1], or below 1 without an
            `initial`; an `initial` of another shape than the images; a sequence of another length than B;
            an exemplar that is not (3, h, w).
    """
    n = len(images)
    if masks.shape != (n, *images.shape[2:]) or masks.dtype != torch.bool:
        raise InputError(
            f"expected bool masks {(n, *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}"
        )
    if not 0 <= strength <= 1:
        raise InputError(f"strength: expected 0 <= strength <= 1, got {strength:g}")
    if initial is None and strength < 1:
        raise InputError(
            f"strength {strength:g}: expected an initial composition to start from, got none; give one, or "
            "strength 1"
        )
    if initial is not None and initial.shape != images.shape:
        raise InputError(f"expected initial {tuple(images.shape)}, got {tuple(initial.shape)}")
    for name, given in per_image.items():
        if given is not None and len(given) != n:
            raise InputError(f"expected {n} {name}, one per image, got {len(given)}")
    exemplars = per_image.get("exemplars")
    for exemplar in () if exemplars is None else exemplars:
        if not isinstance(exemplar, Tensor) or exemplar.ndim != 3 or len(exemplar) != 3:
            shape = tuple(exemplar.shape) if isinstance(exemplar, Tensor) else type(exemplar).__name__
            raise InputError(f"expected exemplars (3, h, w), got {shape}")


def compose(images: Tensor, masks: Tensor, initial: Tensor) -> Tensor:
    """`initial` where a mask is True, the image elsewhere; (B, 3, H, W) in [0, 1]."""
    return torch.where(masks[:, None], initial.to(images).clamp(0, 1), images)


def _of(given: Sequence[Any] | None, numbers: Sequence[int]) -> list[Any] | None:
    return None if given is None else [given[i] for i in numbers]


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


def _paste(image: Tensor, native: Tensor, mask: Tensor, window: tuple[slice, slice], feather: float) -> None:
    """Write a painted crop (3, h, w) into `image` (3, H, W) where `mask` is True, fading within the mask."""
    hole = mask[window]
    weight = hole.to(image)
    if feather and not bool(hole.all()):
        # The window's own border counts as outside only where the image goes on there.
        depth = ndimage.distance_transform_edt(np.pad(hole.cpu().numpy(), 1, mode="edge"))[1:-1, 1:-1]
        weight = torch.from_numpy(np.clip(depth / (feather + 1), 0, 1)).to(image)
    view = image[:, *window]
    blended = view + weight * (native - view)
    view[:, hole] = blended[:, hole]
