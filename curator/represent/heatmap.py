"""An attribution as a picture: red raises the score, blue lowers it.

In: stored pixels, a density in the input frame (of segments: phi_i / |S_i|) and the pin. Out: the pixels with
the density laid over them, in the stored frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from store.records import Floats, Pin

RED = (214, 39, 40)
BLUE = (31, 90, 200)
_OPACITY = 0.65  # of the strongest place
_CONTRAST = 0.6  # exponent: below 1, weaker places stay visible


def density(labels: NDArray[np.uint16], phi: Floats) -> NDArray[np.float64]:
    """phi_i / |S_i| (M,), in units of the target per input pixel."""
    return np.asarray(phi, dtype=np.float64) / np.bincount(labels.ravel(), minlength=len(phi))


def overlay(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint16], phi: Floats, pin: Pin
) -> NDArray[np.uint8]:
    """Lay a segment map over an image.

    Args:
        pixels: (H, W, 3) RGB of the stored image.
        labels: (h, w) segments in the pin's input frame. phi: (M,).
    Returns:
        (H, W, 3).
    """
    return overlay_density(pixels, density(labels, phi)[labels], pin)


def overlay_density(
    pixels: NDArray[np.uint8], values: NDArray[np.float64], pin: Pin, *, opacity: float = _OPACITY
) -> NDArray[np.uint8]:
    """Lay any density over an image: red above 0, blue below, the strongest place the most opaque.

    Args:
        pixels: (H, W, 3) RGB of the stored image.
        values: (h, w) in the pin's input frame, e.g. `curator.represent.pixel_maps.map_pixels`.
        opacity: of the strongest place, in [0, 1].
    Returns:
        (H, W, 3).
    """
    height, width = pixels.shape[:2]
    h, w = values.shape
    columns = np.floor(pin.scale[0] * (np.arange(width) + 0.5) + pin.offset[0]).astype(int).clip(0, w - 1)
    rows = np.floor(pin.scale[1] * (np.arange(height) + 0.5) + pin.offset[1]).astype(int).clip(0, h - 1)
    strongest = np.abs(values).max(initial=0.0)
    share = np.abs(values) / strongest if strongest > 0 else np.zeros_like(values)
    alpha = (opacity * share**_CONTRAST).astype(np.float32)[rows[:, None], columns[None, :], None]
    above = (values >= 0)[rows[:, None], columns[None, :], None]
    colour = np.where(above, np.array(RED, np.float32), np.array(BLUE, np.float32))
    mixed: NDArray[np.uint8] = np.rint(pixels * (1 - alpha) + colour * alpha).astype(np.uint8)
    return mixed


def heat_layer(values: NDArray[np.float64], pin: Pin, *, most: int = 1024) -> NDArray[np.uint8]:
    """A density as a picture of its own, to lie over the image: as transparent as it is weak.

    Args:
        values: (h, w) in the pin's input frame. most: pixels of the longer side.
    Returns:
        (H', W', 4) RGBA in the shape of the stored image.
    """
    height, width = pin.image_size
    shrunk = min(1.0, most / max(height, width))
    h, w = values.shape
    rows, columns = (
        np.floor(scale * (np.arange(max(1, round(n * shrunk))) + 0.5) / shrunk + offset)
        .astype(int)
        .clip(0, cells - 1)
        for n, scale, offset, cells in (
            (height, pin.scale[1], pin.offset[1], h),
            (width, pin.scale[0], pin.offset[0], w),
        )
    )
    strongest = np.abs(values).max(initial=0.0)
    share = np.abs(values) / strongest if strongest > 0 else np.zeros_like(values)
    layer = np.empty((h, w, 4), np.uint8)
    layer[..., :3] = np.where((values >= 0)[..., None], np.array(RED), np.array(BLUE))
    layer[..., 3] = np.rint(255 * share**_CONTRAST)
    return np.asarray(layer[rows[:, None], columns[None, :]], dtype=np.uint8)
