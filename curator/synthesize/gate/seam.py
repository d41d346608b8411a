"""The check `seam`: the hole's border shows no step that its surroundings do not have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from curator.synthesize.base import SamplePlan
from curator.synthesize.gate.base import Bounds, Evidence, verdict
from store.records import Verdict


class SeamCheck:
    """Refuses a painting whose border shows."""

    name = "seam"

    def judge(self, plan: SamplePlan, sample: Tensor, evidence: Evidence, bounds: Bounds) -> Verdict:
        """The median step across the hole's border, less that between neighbours just outside it."""
        value = 0.0 if plan.rendered is not None else seam_step(sample, plan.mask.numpy())
        return verdict(
            self.name,
            value <= bounds.seam,
            value,
            bounds.seam,
            "no visible seam",
            "the border of the painted part shows",
        )


def seam_step(sample: Tensor, mask: NDArray[np.bool_]) -> float:
    """Step over the border of `mask` (H, W) in `sample` (3, H, W), above that of the surroundings; >= 0."""
    image = sample.numpy()
    outside = ~mask & ndimage.binary_dilation(mask, iterations=5)
    across: list[NDArray[np.float32]] = []
    around: list[NDArray[np.float32]] = []
    for axis in (0, 1):
        step = np.abs(np.diff(image, axis=axis + 1)).mean(0)
        one = np.take(mask, range(mask.shape[axis] - 1), axis=axis)
        two = np.take(mask, range(1, mask.shape[axis]), axis=axis)
        across.append(step[one ^ two])
        beside = np.take(outside, range(mask.shape[axis] - 1), axis=axis)
        after = np.take(outside, range(1, mask.shape[axis]), axis=axis)
        around.append(step[beside & after])
    border, usual = np.concatenate(across), np.concatenate(around)
    if not border.size:  # the hole is the whole image
        return 0.0
    return max(float(np.median(border)) - (float(np.median(usual)) if usual.size else 0.0), 0.0)
