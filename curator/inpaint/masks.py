"""Which pixels of a box belong to the thing in it, told from colour alone.

In: an image and a box. Out: a mask. Used on unlabelled crops in training and on failures' exemplars.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import slic

Mask = NDArray[np.bool_]
IntBox = tuple[int, int, int, int]


def superpixels(pixels: NDArray[np.uint8], segments: int = 200) -> NDArray[np.int64]:
    """SLIC labels (H, W) of an image (H, W, 3)."""
    return np.asarray(slic(pixels, n_segments=segments, compactness=8, start_label=0), dtype=np.int64)


def standing_out(pixels: NDArray[np.uint8], labels: NDArray[np.int64], box: IntBox) -> Mask:
    """Segments within `box` whose mean colour is far from the median colour of the box and its rim.

    Args:
        pixels: (H, W, 3). labels: (H, W) segments. box: (x1, y1, x2, y2) inside the image.
    Returns:
        (H, W) bool, False outside the box.
    """
    x1, y1, x2, y2 = box
    inside = labels[y1:y2, x1:x2]
    colours = pixels[y1:y2, x1:x2].astype(np.float32)
    rim = 4
    around = pixels[max(0, y1 - rim) : y2 + rim, max(0, x1 - rim) : x2 + rim]
    border = np.ones(around.shape[:2], bool)
    border[min(rim, y1) : min(rim, y1) + y2 - y1, min(rim, x1) : min(rim, x1) + x2 - x1] = False
    reference = np.median(around[border] if border.any() else around.reshape(-1, 3), axis=0)
    _, index = np.unique(inside, return_inverse=True)
    index = index.reshape(inside.shape)
    count = np.bincount(index.ravel())
    means = np.stack([np.bincount(index.ravel(), colours[..., c].ravel()) / count for c in range(3)], axis=1)
    distance = np.abs(means - reference).sum(axis=1)
    bound = max(float((distance * count).sum() / count.sum()), 1e-6)
    mask = np.zeros(labels.shape, bool)
    mask[y1:y2, x1:x2] = (distance >= bound)[index]
    return mask


def main_part(mask: Mask, near: tuple[float, float]) -> Mask:
    """The connected part of `mask` (H, W) that weighs most, size against distance to the point `near` (x,
    y)."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count <= 1:
        return mask
    best, best_weight = 1, -1.0
    for part in range(1, count + 1):
        rows, columns = np.nonzero(parts == part)
        away = np.hypot(columns.mean() - near[0], rows.mean() - near[1])
        weight = len(rows) / (1 + away / 8)
        if weight > best_weight:
            best, best_weight = part, weight
    return np.asarray(parts == best)


def bounds(mask: Mask) -> IntBox:
    """Bounding box (x1, y1, x2, y2) of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
