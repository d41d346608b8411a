"""What a detector answers on a few fixed pictures: the fingerprint of one that cannot say which model it is.

In: a function that finds objects. Out: a digest of its answers. Equal digests do not prove equal models: a
change that shows on none of these pictures stays unseen. So results under such a fingerprint are kept
together, but `detect` does not count them as stored already (`BlackBox.versioned`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from curator.tensors import generator
from store.keys import content_key
from store.records import Detections

_SIZES = ((96, 128), (128, 96), (160, 160))


def probe_pictures() -> list[Tensor]:
    """Pictures (3, H, W) float32 RGB in [0, 1], the same on every machine, in steps of 1/255: coloured rings
    and bars over a smooth ground, with some noise."""
    pictures = []
    for number, (height, width) in enumerate(_SIZES):
        draw = generator("probe pictures", number)
        coarse = torch.rand(1, 3, 4, 5, generator=draw)
        picture = interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        for _ in range(4):
            y, x = (int(torch.randint(16, side - 16, (), generator=draw)) for side in (height, width))
            size = int(torch.randint(8, 30, (), generator=draw))
            colour = torch.rand(3, 1, 1, generator=draw)
            away = ((rows - y) ** 2 + (columns - x) ** 2).float().sqrt()
            ring = (away < size) & (away > size / 3)
            bar = ((rows - y).abs() < size / 4) & ((columns - x).abs() < size)
            picture = torch.where(ring | bar, colour, picture)
        picture = picture * 0.9 + torch.rand(picture.shape, generator=draw) * 0.1
        pictures.append(picture.mul(255).round().div(255))
    return pictures


def answers_key(answers: Sequence[Detections], *parts: Any) -> str:
    """Digest of the answers on the probe pictures, scores to .001 and boxes to a tenth of a pixel."""
    rounded = [
        sorted(
            [int(label), round(float(score), 3), *(round(float(side), 1) for side in box)]
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
        )
        for found in answers
    ]
    return content_key("probe", rounded, *parts)
