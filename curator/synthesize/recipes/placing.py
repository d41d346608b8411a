"""Placing: what recipes share to cut a thing out of an image and put it into a scene.

In: images, masks and boxes. Out: holes to paint, exemplars that fit them, the labels that a painted scene
keeps, and the `SamplePlan` of it all. A labelled object whose box is covered by more than 70% loses its
label; below that it keeps it, whole, as annotators label occluded objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import StageError
from curator.inpaint.exemplar import UNKNOWN
from curator.inpaint.masks import Mask, bounds
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from store.records import BoxTuple, NewAnnotation

LOSES_LABEL = 0.7


def shown_in(image: Tensor, region: Any, mask: Mask) -> Tensor:
    """The content of `region` in (3, H, W), `UNKNOWN` where `mask` (H, W) is False."""
    x1, y1, x2, y2 = (int(v) for v in region)
    inside = torch.from_numpy(mask[y1:y2, x1:x2].copy())
    return torch.where(inside, image[:, y1:y2, x1:x2], torch.full_like(image[:, y1:y2, x1:x2], UNKNOWN))


def place(shape: Mask, box: Any, size: Sequence[int], grow: int = 2) -> Tensor:
    """Scale a mask into `box` of an image (H, W) = `size`, grown by `grow` pixels so that the painting can
    blend."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    scaled = (
        F.interpolate(
            torch.from_numpy(shape.copy())[None, None].float(),
            (y2 - y1, x2 - x1),
            mode="bilinear",
            antialias=True,
        )[0, 0]
        >= 0.5
    )
    out = torch.zeros(tuple(size), dtype=torch.bool)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])
    if right > left and bottom > top:
        out[top:bottom, left:right] = scaled[top - y1 : bottom - y1, left - x1 : right - x1]
    if grow and out.any():
        out = torch.from_numpy(ndimage.binary_dilation(out.numpy(), iterations=grow))
    return out


def visible_part(shown: Tensor, placed: Any, mask: Tensor) -> Tensor:
    """Crop or pad an exemplar (3, h, w) that belongs at `placed`, so that it fills the mask's bounding
    box."""
    x1, y1, x2, y2 = (round(float(v)) for v in placed)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    at_scale = F.interpolate(shown[None], (y2 - y1, x2 - x1), mode="bilinear", antialias=True)[0]
    left, top, right, bottom = bounds(mask.numpy())
    out = torch.full((3, bottom - top, right - left), UNKNOWN)
    a, b, c, d = max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)
    if c > a and d > b:
        out[:, b - top : d - top, a - left : c - left] = at_scale[:, b - y1 : d - y1, a - x1 : c - x1]
    return out


def covered(mask: Tensor, box: Any) -> float:
    """Share of a box's pixels that a mask (H, W) covers, in [0, 1]."""
    x1, y1, x2, y2 = whole(np.asarray(box), mask.shape[1], mask.shape[0])
    inside = mask[y1:y2, x1:x2]
    return float(inside.float().mean()) if inside.numel() else 0.0


def kept_labels(annotations: Sequence[NewAnnotation], mask: Tensor) -> tuple[NewAnnotation, ...]:
    """The objects that keep their label when `mask` is painted over."""
    return tuple(a for a in annotations if covered(mask, a.box) <= LOSES_LABEL)


def make_plan(
    name: str,
    exemplar: Exemplar,
    scene: Scene,
    shown: Tensor,
    mask: Tensor,
    seed: int,
    details: dict[str, Any],
    annotations: tuple[NewAnnotation, ...] | None = None,
) -> SamplePlan:
    """The plan of a recipe that paints `shown` into `mask` (H, W).

    Args:
        annotations: of the painted scene; None means those of the scene that keep their label.
    Raises:
        StageError: the mask is empty.
    """
    if not mask.any():
        raise StageError(f"scene {scene.image_id}: nothing would be painted")
    kept = kept_labels(scene.annotations, mask) if annotations is None else annotations
    return SamplePlan(
        recipe=name,
        group=exemplar.group,
        scene=scene,
        exemplar=shown,
        exemplar_image_id=exemplar.image_id,
        outcome_id=exemplar.outcome_id,
        mask=mask,
        painted=box_tuple(bounds(mask.numpy())),
        annotations=kept,
        seed=seed,
        prompt=f"a photo of a {exemplar.category}" if exemplar.kind == "FN" else None,
        details=details,
    )


def whole(box: Any, width: int, height: int) -> tuple[int, int, int, int]:
    """A box on whole pixels, within the image."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return (
        max(int(np.floor(x1)), 0),
        max(int(np.floor(y1)), 0),
        min(int(np.ceil(x2)), width),
        min(int(np.ceil(y2)), height),
    )


def centre(box: Any) -> Any:
    """Centre (x, y) of a box."""
    return (np.asarray(box)[:2] + np.asarray(box)[2:]) / 2


def box_tuple(values: Any) -> BoxTuple:
    """Four numbers as a box of plain floats."""
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2
