"""The check `changed`: the painting differs from what was there."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from curator.inpaint.masks import Mask
from curator.synthesize.gate.base import Bound, Evidence, Learnt, Plain
from curator.tensors import image_pixels, image_tensor

QUALITY = 75
SHARE = 0.95


class ChangedCheck(Plain):
    """Refuses a painting that left the scene almost as it was."""

    name = "changed"
    joint = False

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Mean absolute difference between scene and sample over the hole, in [0, 1]."""
        look = evidence.look
        return float("nan") if look.before is None else difference(look.image, look.before, look.mask)

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
