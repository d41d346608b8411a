"""The check `detector`: a sample must teach what it is labelled with.

    FN   the object can still be told: the detector finds a trace of it, or most of it was left as it was, or
         (where the failed object itself was painted, which the detector missed already) the painting is like
         its exemplar
    FP   the detector does mistake the thing that was painted, so that a sample without a label there teaches
         it something
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip, iou
from curator.inpaint.exemplar import UNKNOWN
from curator.synthesize.base import SamplePlan
from curator.synthesize.gate.base import Bounds, Evidence, Found, verdict
from store.records import BoxTuple, Verdict


class DetectorCheck:
    """Refuses an object that cannot be told any more, and a look-alike that deceives nobody."""

    name = "detector"

    def judge(self, plan: SamplePlan, sample: Tensor, evidence: Evidence, bounds: Bounds) -> Verdict:
        """Can the labelled object be told (FN), or does the detector mistake the look-alike (FP)?"""
        found, category = evidence.found, evidence.category
        if evidence.kind == "FP":
            value = best_score(found, category, plan.painted, 0.3)
            return verdict(
                self.name,
                value >= bounds.mistaken,
                value,
                bounds.mistaken,
                f"the detector mistakes the painted thing for {category}",
                f"the detector is not deceived by the painted thing, as {category}",
            )
        boxes = (
            [plan.details["object_box"]]
            if "object_box" in plan.details
            else [a.box for a in plan.annotations if a.category == category]
        )
        value = max((best_score(found, category, box, 0.5) for box in boxes), default=0.0)
        if value >= bounds.floor:
            good = f"the detector finds a trace of a {category}"
            return verdict(self.name, True, value, bounds.floor, good, "")
        if plan.rendered is not None:
            value = max((contrast(sample, box) for box in boxes), default=0.0)
            return verdict(
                self.name,
                value >= bounds.contrast,
                value,
                bounds.contrast,
                f"not detected, but the {category} keeps its contrast",
                f"not detected, and the {category} has no contrast left",
            )
        if plan.details.get("source") == "box":
            value = likeness(plan, sample)
            return verdict(
                self.name,
                value <= bounds.likeness,
                value,
                bounds.likeness,
                f"not detected, but the painting is like the failed {category}",
                f"not detected, and the painting is unlike the failed {category}",
            )
        value = float(plan.details.get("occlusion", 0.0))
        return verdict(
            self.name,
            value <= bounds.visible,
            value,
            bounds.visible,
            f"not detected, but most of the {category} was left as it was",
            f"not detected, and much of the {category} is covered",
        )


def likeness(plan: SamplePlan, sample: Tensor) -> float:
    """Mean absolute difference between the painting and its exemplar, where the exemplar shows something."""
    left, top, right, bottom = (int(v) for v in plan.painted)
    shown = F.interpolate(plan.exemplar[None], (bottom - top, right - left), mode="bilinear", antialias=True)[
        0
    ]
    known = ((shown - UNKNOWN).abs().sum(0) > 0.02) & plan.mask[top:bottom, left:right]
    if not bool(known.any()):
        return 1.0
    return float((sample[:, top:bottom, left:right] - shown).abs().mean(0)[known].mean())


def contrast(sample: Tensor, box: BoxTuple) -> float:
    """Spread of luminance in a box."""
    x1, y1, x2, y2 = clip(box, sample.shape[2], sample.shape[1]).round().astype(int)
    part = sample[:, y1 : max(y2, y1 + 2), x1 : max(x2, x1 + 2)].mean(0)
    return float(part.std())


def best_score(found: Found, category: str, box: BoxTuple, overlap: float) -> float:
    """Of the detections of a class that overlap a box, the best score; 0 where there is none."""
    return max(
        (
            score
            for name, score, other in found
            if name == category and float(iou([other], [box])[0, 0]) >= overlap
        ),
        default=0.0,
    )
