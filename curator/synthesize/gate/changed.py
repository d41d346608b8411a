"""The check `changed`: the painting differs from what was there."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from curator.inpaint.masks import Mask
from curator.synthesize.gate.base import Bound, Evidence, Learnt, Plain
from curator.synthesize.gate.looks import corners
from curator.tensors import image_pixels, image_tensor

QUALITY = 75
SHARE = 0.95


class ChangedCheck(Plain):
    """Refuses a painting that left the scene almost as it was."""

    name = "changed"
    joint = False

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Mean absolute difference between scene and sample, in [0, 1], over the hole, or over the objects
        made where that is more: surroundings that came along may be like those that were there."""
        look = evidence.look
        if look.before is None:
            return float("nan")
        parts = [look.mask]
        for _, box in look.made:
            x1, y1, x2, y2 = corners(box, look.mask.shape[1], look.mask.shape[0])
            inside = np.zeros_like(look.mask)
            inside[y1:y2, x1:x2] = look.mask[y1:y2, x1:x2]
            parts += [inside] if inside.any() else []
        return max(difference(look.image, look.before, part) for part in parts)

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """What saving untouched pictures as JPEG changes in them, in `SHARE` of cases."""
        found = [difference(e.look.image, compressed(e.look.image), e.look.mask) for e in real]
        return Bound(float(np.quantile(found, SHARE)) if found else float("nan"), {}, len(found))

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        return "the painting differs from what was there", "the painting left the scene almost as it was"


def difference(one: Tensor, two: Tensor, mask: Mask) -> float:
    """Mean absolute difference of two images (3, H, W) over a mask."""
    return float((one - two).abs().mean(0).numpy()[mask].mean())


def compressed(image: Tensor) -> Tensor:
    """An image (3, H, W) after JPEG at `QUALITY`."""
    buffer = io.BytesIO()
    Image.fromarray(image_pixels(image)).save(buffer, format="JPEG", quality=QUALITY)
    return image_tensor(np.asarray(Image.open(buffer).convert("RGB")))
