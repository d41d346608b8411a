"""Segmentations, attributions and regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.records.boxes import BoxTuple, Floats

RegionKind = Literal["object", "support", "culprit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Segments of one image in the detector's input frame.

    Attributes:
        labels: (h, w) uint16, 0..M-1, every label present.
        key: content key of (image, pin geometry, segmentation configuration).
    """

    image_id: int
    labels: NDArray[np.uint16]
    key: str
    id: int | None = None

    @property
    def count(self) -> int:
        """Number of segments M."""
        return int(self.labels.max()) + 1 if self.labels.size else 0


LOG_ODDS = "log_odds"
"""In a map's `extra`: its numbers are log-odds, not probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMap:
    """Signed attribution per segment, in units of the target.

    Attributes:
        phi: (M,) float32.
        full: F(1), the target on the clean image. empty: F(0), on the baseline.
        gap: F(1) - F(0) - sum(phi); never hidden by rescaling.
        passes: forward-equivalents spent (a backward counts one more forward).
        evidence: False when the map carries no evidence (max |phi| near 0): a result to report.
        extra: a method's further numbers, and `LOG_ODDS`.
    """

    phi: Floats
    full: float
    empty: float
    gap: float
    passes: int
    evidence: bool = True
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMap:
    """Attribution on a regular grid (pixel-, patch- and mask-shaped methods).

    Attributes:
        values: (h, w) float32 (stored as float16).
        scale, offset: grid cell (column, row) -> input frame: x = scale[0] * column + offset[0], the
            centre of the cell.
        full, empty, gap, passes, evidence, extra: as in `SegmentMap`; gap is nan where no
            completeness is claimed.
    """

    values: Floats
    scale: tuple[float, float]
    offset: tuple[float, float]
    full: float
    empty: float
    gap: float
    passes: int
    evidence: bool = True
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """A stored explanation of one outcome."""

    outcome_id: int
    method: str
    map: SegmentMap | GridMap
    key: str
    segmentation_id: int | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionKey:
    """Which attribution an outcome has, without its map. `evidence` as in the map."""

    id: int
    outcome_id: int
    method: str
    key: str
    evidence: bool
    segmentation_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Part of an image that an explanation singles out.

    Attributes:
        kind: "object" (the box itself), "support" (segments that raise the score), "culprit" (segments
            that lower it, or for a false positive those that raise it: what to blame).
        box: bounding box, stored-image pixels.
        segments: labels in the segmentation; () for "object".
        weight: sum of |phi| over the segments (object: 1).
    """

    attribution_id: int
    outcome_id: int
    image_id: int
    kind: RegionKind
    box: BoxTuple
    segments: tuple[int, ...]
    weight: float
    key: str
    id: int | None = None
