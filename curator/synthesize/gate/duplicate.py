"""The check `near-duplicate`: the painted crop is not one that was accepted already.

Whole images would always be alike: many samples share a scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
from PIL import Image
from torch import Tensor

from curator.boxes import clip, expand
from curator.synthesize.gate.base import Bounds, verdict
from curator.tensors import image_pixels
from store.records import BoxTuple, Verdict


class DuplicateCheck:
    """Refuses a painted part that an accepted sample has nearly the same."""

    name = "near-duplicate"

    def signature(self, sample: Tensor, painted: BoxTuple) -> imagehash.ImageHash:
        """64-bit perceptual hash of the painted box with a little context, from the sample (3, H, W)."""
        height, width = sample.shape[1:]
        x1, y1, x2, y2 = clip(expand(painted, 1.3), width, height).round().astype(int)
        pixels = image_pixels(sample[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
        return imagehash.phash(Image.fromarray(pixels))

    def judge(
        self, signature: imagehash.ImageHash, accepted: Sequence[imagehash.ImageHash], bounds: Bounds
    ) -> Verdict:
        """Bits by which the hash differs from the nearest accepted one (64 where there is none)."""
        value = min((signature - other for other in accepted), default=64)
        return verdict(
            self.name,
            value > bounds.distance,
            float(value),
            float(bounds.distance),
            "the painted part is new",
            "an accepted sample has nearly the same painted part",
        )
