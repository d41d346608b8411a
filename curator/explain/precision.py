"""Whether bfloat16 explains as float32 does: what `--precision auto` asks where the hardware is fast in it.

In: maps of the same targets in both. Out: yes or no, the same at every call: no stopwatch decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from store.records import GridMap, SegmentMap

FAITHFUL = 0.99
"""Least Pearson correlation between bf16's and fp32's map of each target."""


def faithful(exact: Sequence[SegmentMap | GridMap], fast: Sequence[SegmentMap | GridMap]) -> bool:
    """True where every map of `fast` (bf16) is that of `exact` (fp32), but for rounding; maps that are flat
    show nothing, so that they do not count as equal."""
    for one, other in zip(exact, fast, strict=True):
        a, b = (np.asarray(m.phi if isinstance(m, SegmentMap) else m.values).ravel() for m in (one, other))
        if not np.isfinite(b).all() or a.std() == 0 or b.std() == 0 or np.corrcoef(a, b)[0, 1] < FAITHFUL:
            return False
    return bool(exact)
