"""The check `near-duplicate`: the painted crop is not one that was accepted already.

Whole images would always be alike: many samples share a scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image
from torch import Tensor

from curator.boxes import clip, expand
from curator.synthesize.gate.base import Bound, Evidence, verdict
from curator.tensors import image_pixels
from store.records import BoxTuple, Verdict

SHARE = 0.01
_BITS = 64


class DuplicateCheck:
    """Refuses a painted part that an accepted sample has nearly the same."""

    name = "near-duplicate"

    def signature(self, sample: Tensor, painted: BoxTuple) -> imagehash.ImageHash:
        """64-bit perceptual hash of the painted box with a little context, from the sample (3, H, W)."""
        height, width = sample.shape[1:]
        x1, y1, x2, y2 = clip(expand(painted, 1.3), width, height).round().astype(int)
        pixels = image_pixels(sample[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
        return imagehash.phash(Image.fromarray(pixels))

    def bound(self, real: Sequence[Evidence]) -> Bound:
        """Bits within which an untouched part has its nearest neighbour in `SHARE` of cases."""
        own = [self.signature(e.look.image, e.look.part) for e in real]
        nearest = (
            [min(a - b for j, b in enumerate(own) if j != i) for i, a in enumerate(own)] if own[1:] else []
        )
        return Bound(float(np.quantile(nearest, SHARE)) if nearest else 0.0, {}, len(own), SHARE)

    def judge(
        self, signature: imagehash.ImageHash, accepted: Sequence[imagehash.ImageHash], bound: Bound
    ) -> Verdict:
        """Bits by which the hash differs from the nearest accepted one (64 where there is none)."""
        value = min((signature - other for other in accepted), default=_BITS)
        return verdict(
            self.name,
            value > bound.value,
            float(value),
            bound.value,
            "the painted part is new",
            "an accepted sample has nearly the same painted part",
        )
