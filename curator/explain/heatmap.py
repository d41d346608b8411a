"""An attribution as a picture: red raises the score, blue lowers it.

In: stored pixels, segment labels in the input frame, phi and the pin. Out: the pixels with the density
phi_i / |S_i| laid over them, in the stored frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from store.records import Floats, Pin

RED = (214, 39, 40)
BLUE = (31, 90, 200)
_OPACITY = 0.65  # of the strongest segment
_CONTRAST = 0.6  # exponent: below 1, weaker segments stay visible


def density(labels: NDArray[np.uint16], phi: Floats) -> NDArray[np.float64]:
    """phi_i / |S_i| (M,), in units of the target per input pixel."""
    return np.asarray(phi, dtype=np.float64) / np.bincount(labels.ravel(), minlength=len(phi))


def colours(labels: NDArray[np.uint16], phi: Floats) -> NDArray[np.float32]:
    """RGBA (M, 4) of each segment: RGB 0..255, alpha 0..1; the densest one is the most opaque."""
    values = density(labels, phi)
    strongest = np.abs(values).max(initial=0.0)
    rgba = np.zeros((len(values), 4), np.float32)
    rgba[:, :3] = np.where(values[:, None] >= 0, RED, BLUE)
    if strongest > 0:
        rgba[:, 3] = _OPACITY * (np.abs(values) / strongest) ** _CONTRAST
    return rgba


def overlay(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint16], phi: Floats, pin: Pin
) -> NDArray[np.uint8]:
    """Lay a density map over an image.

    Args:
        pixels: (H, W, 3) RGB of the stored image.
        labels: (h, w) segments in the pin's input frame. phi: (M,).
    Returns:
        (H, W, 3).
    """
    height, width = pixels.shape[:2]
    h, w = labels.shape
    columns = np.floor(pin.scale[0] * (np.arange(width) + 0.5) + pin.offset[0]).astype(int).clip(0, w - 1)
    rows = np.floor(pin.scale[1] * (np.arange(height) + 0.5) + pin.offset[1]).astype(int).clip(0, h - 1)
    rgba = colours(labels, phi)[labels[rows[:, None], columns[None, :]]]  # (H, W, 4)
    alpha = rgba[..., 3:]
    mixed: NDArray[np.uint8] = np.rint(pixels * (1 - alpha) + rgba[..., :3] * alpha).astype(np.uint8)
    return mixed
