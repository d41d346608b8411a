"""The independent judge: crops become vectors in which classes and whole objects can be told.

In: an image and boxes. Out: a float32 vector per box. `pixels:` needs no weights: histograms of oriented
gradients (Dalal & Triggs, CVPR 2005) and of colours. Any embedder of `curator.registry.EMBEDDERS` does better
where one is at hand (`safetensors:FILE?layout=...`, `torchvision:NAME?weights=FILE`, `transformers:FOLDER`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.feature import hog
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip, expand
from curator.detect.base import Detector
from curator.detect.one_pass import pin_of
from curator.represent.embedders.backbone import BackboneEmbedder
from curator.represent.embedders.load import load_embedder
from curator.synthesize.gate.base import Array, Vectors
from store.keys import content_key
from store.records import BoxTuple, Pin

MARGIN = 1.15
"""A box is looked at with so much around it."""
SIDE = 128
_PIXELS_SIDE = 64
_BINS = (4, 6, 6)  # of lightness and the two colour axes
_BATCH = 32
_CELLS = 3
_PLACES = (
    (0.0, 0.0, 1.0, 1.0),
    *(
        (x / _CELLS, y / _CELLS, (x + 1) / _CELLS, (y + 1) / _CELLS)
        for y in range(_CELLS)
        for x in range(_CELLS)
    ),
)
"""Parts of a crop that are looked at: the whole, and where in it something lies, so that half an object is
told from a whole one."""
VERSION = 3
"""Of the gate: of what is looked at, learnt and bounded. It enters the judge's fingerprint and so the keys of
samples: verdicts of another version are not taken for this one's."""


class Judge:
    """Looks at crops.

    Args:
        spec: `pixels:` or an embedder's. detector: for embedders that use its features.
    Attributes:
        fingerprint: equal ones give comparable vectors.
    """

    def __init__(self, spec: str, detector: Detector, device: torch.device) -> None:
        self._device, self._detector = device, detector
        self._embedder = None if spec == "pixels:" else load_embedder(spec, detector)
        if isinstance(self._embedder, BackboneEmbedder) and not self._embedder.backbone.square:
            self._embedder.side = SIDE  # what it looks at here are crops
        self.fingerprint = content_key(
            "judge", spec if self._embedder is None else self._embedder.fingerprint, MARGIN, SIDE, VERSION
        )

    def vectors(self, places: Sequence[tuple[Tensor, BoxTuple]]) -> Vectors:
        """(image (3, H, W), box) each -> (N, D) float32."""
        crops = [crop(image, box) for image, box in places]
        if not crops:
            return np.zeros((0, 0), np.float32)
        if self._embedder is None:
            return np.stack([pixels_vector(c) for c in crops]).astype(np.float32)
        found = []
        for start in range(0, len(crops), _BATCH):
            found.append(self._embedded(crops[start : start + _BATCH]))
        return np.concatenate(found)

    @torch.inference_mode()
    def _embedded(self, crops: Sequence[Tensor]) -> Vectors:
        assert self._embedder is not None
        view = next(iter(self._embedder.views))
        square = torch.stack([_square(c, SIDE) for c in crops]).to(self._device)
        boxes = np.array(_PLACES, np.float32) * SIDE
        if not self._embedder.levels:
            pin = Pin(image_size=(SIDE, SIDE), input_size=(SIDE, SIDE), scale=(1.0, 1.0))
            raw = self._embedder.embed(square, [pin] * len(crops), [boxes] * len(crops))
        else:
            pins = [pin_of(self._detector, one) for one in square]
            u = torch.stack([self._detector.prepare(one, pin) for one, pin in zip(square, pins, strict=True)])
            raw = self._embedder.embed(u, pins, [boxes] * len(crops))
        return np.stack([one[view].astype(np.float32).ravel() for one in raw])


def crop(image: Tensor, box: BoxTuple) -> Tensor:
    """The box with a little around it, at least two pixels a side."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = clip(expand(box, MARGIN), width, height).round().astype(int)
    x1, y1 = min(x1, width - 2), min(y1, height - 2)
    return image[:, max(y1, 0) : max(y2, y1 + 2), max(x1, 0) : max(x2, x1 + 2)]


def pixels_vector(part: Tensor) -> Array:
    """Oriented gradients and colours of a crop (3, h, w)."""
    image = _square(part, _PIXELS_SIDE).permute(1, 2, 0).numpy()
    lab = np.asarray(rgb2lab(image), np.float64)
    shape = hog(lab[..., 0] / 100, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
    low, high = np.array([0, -60, -60]), np.array([100, 60, 60])
    colours = []
    for rows in (slice(0, 32), slice(32, 64)):
        for columns in (slice(0, 32), slice(32, 64)):
            values = np.clip(lab[rows, columns].reshape(-1, 3), low, high)
            counts, _ = np.histogramdd(values, bins=_BINS, range=list(zip(low, high, strict=True)))
            colours.append(np.sqrt(counts.ravel() / counts.sum()))
    return np.concatenate([shape / max(float(np.linalg.norm(shape)), 1e-9) * 2, *colours])


def _square(part: Tensor, side: int) -> Tensor:
    return F.interpolate(part[None], (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)
