"""Integrated gradients per pixel (Sundararajan et al., ICML 2017; "Explain to Fix", eq. 4).

    phi_p = (1/K) sum_k (x - b)_p ds/du_p at u = b + (k + 0.5)/K (x - b),  k = 0..K-1

In: an image and targets. Out: a grid of at most 128 cells a side per target; a cell holds the sum of phi_p
over its pixels and channels, so that the grid sums to what the pixels sum to and completeness holds: the gap
F(1) - F(0) - sum(phi) vanishes with K. Midpoints are captum's `riemann_middle`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.fills.fill import continuous_baseline
from curator.explain.game import segment_maps
from curator.explain.masked import MaskedImages
from curator.explain.methods.e2x import grid_values
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap

SIDE = 128
"""Most cells a side."""
_TILES = 12  # a side, over which evidence is judged: 144 tiles, about as many as there are segments


def cell_labels(height: int, width: int) -> tuple[NDArray[np.uint16], int]:
    """Labels (height, width) of square cells in row-major order and their side in pixels, the least for which
    no side of the grid exceeds `SIDE`; the last row and column may be cut."""
    side = math.ceil(max(height, width) / SIDE)
    columns = math.ceil(width / side)
    labels = (np.arange(height) // side)[:, None] * columns + np.arange(width) // side
    return labels.astype(np.uint16), side


class IntegratedGradients:
    """Integrated gradients per pixel; K = `samples` (the paper takes 32)."""

    name = "ig"
    takes: tuple[FillKind, ...] = ("continuous",)
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name)

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Segments play no part.

        Returns:
            a `GridMap` per target; `passes` counts K forwards, K backwards and the two ends. `evidence` is
            judged on sums over 12 x 12 tiles of the image, which are about as large as segments.
        Raises:
            ConfigError: a fill that only fills holes, or log-odds that the detector does not give.
            InputError: shapes that do not agree, or no target.
        """
        baseline = continuous_baseline(fill, image, detector, method=self.name)
        scores = TargetScores(detector, pin, targets)
        labels, side = cell_labels(*image.shape[1:])
        masked = MaskedImages(scores, image, baseline, labels, batch_size=self.options.batch_size)
        values = grid_values(self.options.samples, "midpoint")  # (K,)
        w = np.broadcast_to(values[:, None], (len(values), masked.count)).copy()
        precision = self.options.precision
        phi = masked.mean_products(w, precision)  # (T, cells)
        ends = np.stack([np.ones(masked.count), np.zeros(masked.count)]).astype(np.float32)
        full, empty = masked.evaluate(ends, precision)  # F(1), F(0): (T,) each
        extra = [{"bf16": 1.0} if precision == "bf16" else {}] * len(targets)
        maps = segment_maps(self.name, targets, phi, full, empty, passes=2 * len(w) + 2, extra=extra)
        columns = math.ceil(image.shape[2] / side)
        return [
            GridMap(
                values=found.phi.reshape(-1, columns),
                scale=(float(side), float(side)),
                offset=(side / 2, side / 2),
                full=found.full,
                empty=found.empty,
                gap=found.gap,
                passes=found.passes,
                evidence=_largest_tile(found.phi.reshape(-1, columns)) > EVIDENCE_FLOOR[target.kind],
                extra=found.extra,
            )
            for target, found in zip(targets, maps, strict=True)
        ]


def _largest_tile(values: NDArray[np.float32]) -> float:
    """The largest |sum| over tiles: `EVIDENCE_FLOOR` speaks of segments; a cell is far smaller than one."""
    for axis, side in enumerate(values.shape):
        starts = np.unique(np.arange(_TILES) * side // _TILES)
        values = np.add.reduceat(values, starts, axis=axis)
    return float(np.abs(values).max())
