"""Maps made by hand for the tests of faithfulness."""

from __future__ import annotations

import math

import numpy as np

from store.records import GridMap, SegmentMap


def segment_map(phi: list[float], gap: float = 0.0) -> SegmentMap:
    return SegmentMap(phi=np.array(phi, np.float32), full=1.0, empty=0.0, gap=gap, passes=1)


def grid_map(values: object, scale: float = 1.0, offset: float = 0.5) -> GridMap:
    return GridMap(
        values=np.array(values, np.float32),
        scale=(scale, scale),
        offset=(offset, offset),
        full=1.0,
        empty=0.0,
        gap=math.nan,
        passes=1,
    )
