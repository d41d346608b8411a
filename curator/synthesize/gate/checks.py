"""The gate: which samples may enter the training set, each check with its measure, bound and reason.

In: a plan, the painted image, the detector as a callable, and the crops accepted so far. Out: `Verdict`s,
which are stored with the sample; it is accepted when every check passed.

    changed         the painting differs from what was there
    seam            the hole's border shows no step that its surroundings do not have
    detector        FN: the object can still be told: the detector finds a trace of it, or most of it was left
                    as it was, or (where the failed object itself was painted, which the detector missed
                    already) the painting is like its exemplar. FP: the detector does mistake the thing that
                    was painted, so that a sample without a label there teaches it something
    near-duplicate  the painted crop is not one that was accepted already (whole images would always be alike)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.boxes import clip, expand, iou
from curator.inpaint.exemplar import UNKNOWN
from curator.synthesize.base import Plan
from curator.tensors import image_pixels
from store.records import BoxTuple, Verdict

Found = list[tuple[str, float, BoxTuple]]
"""Detections of one image as (class name, score, box), low scores included."""
Detect = Callable[[Sequence[Tensor]], list[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The gate's bounds.

    Attributes:
        changed: least mean absolute change over the hole, in [0, 1].
        seam: most that the step across the border may exceed the texture around it, in [0, 1].
        floor: score that a labelled object must reach, unless most of it was left as it was.
        visible: share of the object covered up to which it needs no score. contrast: spread of luminance that
            an object keeps under a global change to need none. likeness: mean absolute difference between
            painting and exemplar up to which a painted object needs none.
        mistaken: score that a look-alike needs.
        distance: perceptual-hash bits (of 64) up to which two painted crops are the same.
    """

    changed: float = 0.03
    seam: float = 0.12
    floor: float = 0.03
    visible: float = 0.45
    contrast: float = 0.04
    likeness: float = 0.1
    mistaken: float = 0.15
    distance: int = 4


def check_changed(plan: Plan, sample: Tensor, bounds: Bounds) -> Verdict:
    """Mean absolute difference between scene and sample over the hole."""
    value = float((sample - plan.scene.image).abs().mean(0)[plan.mask].mean())
    return _verdict(
        "changed",
        value >= bounds.changed,
        value,
        bounds.changed,
        "the painting differs from what was there",
        "the painting left the scene almost as it was",
    )


def check_seam(plan: Plan, sample: Tensor, bounds: Bounds) -> Verdict:
    """The median step across the hole's border, less the median step between neighbours just outside it."""
    value = 0.0 if plan.rendered is not None else seam_step(sample, plan.mask.numpy())
    return _verdict(
        "seam",
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


def check_detector(
    plan: Plan, sample: Tensor, found: Found, kind: str, category: str, bounds: Bounds
) -> Verdict:
    """Can the labelled object be told (FN), or does the detector mistake the look-alike (FP)?"""
    if kind == "FP":
        value = _best_score(found, category, plan.painted, 0.3)
        return _verdict(
            "detector",
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
    value = max((_best_score(found, category, box, 0.5) for box in boxes), default=0.0)
    if value >= bounds.floor:
        return _verdict(
            "detector", True, value, bounds.floor, f"the detector finds a trace of a {category}", ""
        )
    if plan.rendered is not None:
        value = max((_contrast(sample, box) for box in boxes), default=0.0)
        return _verdict(
            "detector",
            value >= bounds.contrast,
            value,
            bounds.contrast,
            f"not detected, but the {category} keeps its contrast",
            f"not detected, and the {category} has no contrast left",
        )
    if plan.details.get("source") == "box":
        value = likeness(plan, sample)
        return _verdict(
            "detector",
            value <= bounds.likeness,
            value,
            bounds.likeness,
            f"not detected, but the painting is like the failed {category}",
            f"not detected, and the painting is unlike the failed {category}",
        )
    value = float(plan.details.get("occlusion", 0.0))
    return _verdict(
        "detector",
        value <= bounds.visible,
        value,
        bounds.visible,
        f"not detected, but most of the {category} was left as it was",
        f"not detected, and much of the {category} is covered",
    )


def likeness(plan: Plan, sample: Tensor) -> float:
    """Mean absolute difference between the painting and its exemplar, where the exemplar shows something."""
    left, top, right, bottom = (int(v) for v in plan.painted)
    shown = F.interpolate(plan.exemplar[None], (bottom - top, right - left), mode="bilinear", antialias=True)[
        0
    ]
    known = ((shown - UNKNOWN).abs().sum(0) > 0.02) & plan.mask[top:bottom, left:right]
    if not bool(known.any()):
        return 1.0
    return float((sample[:, top:bottom, left:right] - shown).abs().mean(0)[known].mean())


def _contrast(sample: Tensor, box: BoxTuple) -> float:
    x1, y1, x2, y2 = clip(box, sample.shape[2], sample.shape[1]).round().astype(int)
    part = sample[:, y1 : max(y2, y1 + 2), x1 : max(x2, x1 + 2)].mean(0)
    return float(part.std())


def check_duplicate(
    crop_hash: imagehash.ImageHash, accepted: Sequence[imagehash.ImageHash], bounds: Bounds
) -> Verdict:
    """Distance of the painted crop's perceptual hash to the nearest accepted one (64 where there is none)."""
    value = min((crop_hash - other for other in accepted), default=64)
    return _verdict(
        "near-duplicate",
        value > bounds.distance,
        float(value),
        float(bounds.distance),
        "the painted part is new",
        "an accepted sample has nearly the same painted part",
    )


def painted_hash(sample: Tensor, painted: BoxTuple) -> imagehash.ImageHash:
    """64-bit perceptual hash of the painted box with a little context, from the sample (3, H, W)."""
    height, width = sample.shape[1:]
    x1, y1, x2, y2 = clip(expand(painted, 1.3), width, height).round().astype(int)
    pixels = image_pixels(sample[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
    return imagehash.phash(Image.fromarray(pixels))


def _best_score(found: Found, category: str, box: BoxTuple, overlap: float) -> float:
    return max(
        (
            score
            for name, score, other in found
            if name == category and float(iou([other], [box])[0, 0]) >= overlap
        ),
        default=0.0,
    )


def _verdict(check: str, accepted: bool, value: float, bound: float, good: str, bad: str) -> Verdict:
    return Verdict(
        check=check, accepted=accepted, value=round(value, 4), bound=bound, reason=good if accepted else bad
    )
