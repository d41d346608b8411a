"""What a box looks like to people: brightness, contrast and colour of its pixels.

In: an image (H, W, 3) uint8 RGB and boxes (N, 4) in its pixels. Out: three numbers per box in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from store.records import BoxTuple

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
MEASURES = ("brightness", "contrast", "colour")


def look(pixels: NDArray[np.uint8], boxes: Sequence[BoxTuple]) -> list[dict[str, float]]:
    """Per box: mean luma, its standard deviation, and mean range of the channels; a box of no pixel gives {}.

    Args:
        pixels: (H, W, 3) RGB. boxes: stored-image pixels.
    """
    height, width = pixels.shape[:2]
    found: list[dict[str, float]] = []
    for x1, y1, x2, y2 in boxes:
        left, top = max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0)
        right, bottom = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
        if right <= left or bottom <= top:
            found.append({})
            continue
        inside = pixels[top:bottom, left:right].astype(np.float64) / 255
        luma = inside @ LUMA
        found.append(
            {
                "brightness": float(luma.mean()),
                "contrast": float(luma.std()),
                "colour": float((inside.max(-1) - inside.min(-1)).mean()),
            }
        )
    return found
