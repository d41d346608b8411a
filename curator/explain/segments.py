"""Segments of one image and their content hashes.

In: x (3, h, w) in the detector's input frame and its pin. Out: labels (h, w) uint16, 0..M-1, by SLIC
(Achanta et al., TPAMI 2012) inside the picture; letterbox padding is one segment of its own, the last.
SLIC draws no random numbers, so equal images give equal segments.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor

from curator.errors import InputError
from store.records import Pin

VERSION = 1
_COMPACTNESS = 10.0  # of colour distance in Lab against distance in space; scikit-image's default
_SMOOTHING = 1.0  # standard deviation in px of the blur before clustering
_ITERATIONS = 5  # ten change no count by more than 5% and take twice the time
_SMALLEST = 4  # px per segment at least


def picture_box(pin: Pin) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2), whole pixels of the input frame that the stored image covers; the rest is padding."""
    height, width = pin.image_size
    x1, y1, x2, y2 = pin.to_input(np.array([0.0, 0.0, width, height])).tolist()
    h, w = pin.input_size
    return (
        max(0, math.floor(x1 + 0.5)),
        max(0, math.floor(y1 + 0.5)),
        min(w, math.floor(x2 + 0.5)),
        min(h, math.floor(y2 + 0.5)),
    )


def slic_segments(image: Tensor, pin: Pin, count: int) -> NDArray[np.uint16]:
    """Segment x into about `count` segments.

    Args:
        image: (3, h, w) RGB [0, 1] in the pin's input frame.
        count: wanted number; within a tenth of it wherever the image's size allows.
    Returns:
        (h, w) labels 0..M-1, every one present.
    Raises:
        InputError: the image is not of the pin's input size.
    """
    if tuple(image.shape[1:]) != pin.input_size:
        raise InputError(f"segments: expected an image of {pin.input_size}, got {tuple(image.shape[1:])}")
    x1, y1, x2, y2 = picture_box(pin)
    pixels = image.detach()[:, y1:y2, x1:x2].permute(1, 2, 0).contiguous().cpu().numpy().astype(np.float32)
    wanted = min(count, max(1, pixels.shape[0] * pixels.shape[1] // _SMALLEST))
    inner = _slic(pixels, wanted)
    found = int(inner.max()) + 1
    if abs(found - wanted) > 0.1 * wanted:  # SLIC's regular start grid seldom gives the number asked for
        inner = min(
            (inner, _slic(pixels, max(1, round(wanted * wanted / found)))),
            key=lambda labels: abs(int(labels.max()) + 1 - wanted),
        )
    labels = np.full(pin.input_size, inner.max() + 1, dtype=np.uint16)
    labels[y1:y2, x1:x2] = inner
    return labels


def _slic(pixels: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    if count == 1:
        return np.zeros(pixels.shape[:2], dtype=np.int64)
    labels = slic(
        pixels,
        n_segments=count,
        compactness=_COMPACTNESS,
        sigma=_SMOOTHING,
        max_num_iter=_ITERATIONS,
        start_label=0,
        channel_axis=-1,
    )
    compact: NDArray[np.int64] = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return compact


def segment_sizes(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Pixels |S_i| of each segment (M,)."""
    return np.bincount(labels.ravel())


def segment_centres(labels: NDArray[np.uint16]) -> tuple[NDArray[np.float64], float]:
    """Centroids (M, 2) as (x, y) px, and the side in px of a square as large as the median segment."""
    sizes = segment_sizes(labels)
    y, x = np.indices(labels.shape)
    sums = [np.bincount(labels.ravel(), weights=v.ravel().astype(np.float64)) for v in (x, y)]
    return np.stack(sums, axis=1) / sizes[:, None], float(np.sqrt(np.median(sizes)))


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014): uint64 -> uint64, a scrambling bijection."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return result


def segment_hashes(labels: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Hash (M,) of which pixels a segment holds, whatever its label.

    The sum modulo 2^64 of one random number per pixel (Zobrist), so that the order of pixels does not matter.
    """
    flat = labels.ravel()
    numbers = mix(np.arange(flat.size, dtype=np.uint64))
    order = np.argsort(flat, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat))[:-1]])
    return mix(np.add.reduceat(numbers[order], starts))


def keyed_draws(labels: NDArray[np.uint16], samples: int, *keys: object) -> NDArray[np.uint64]:
    """Random numbers (K, M) by a counter-based generator keyed by (`keys`, a segment's pixels, k).

    Neither labels nor the number of samples enter: relabelling permutes the columns, more samples add rows.
    """
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()
    start = np.uint64(int.from_bytes(digest[:8], "big"))
    per_segment = mix(segment_hashes(labels) ^ start)  # (M,)
    return mix(per_segment[None, :] ^ mix(np.arange(samples, dtype=np.uint64))[:, None])
