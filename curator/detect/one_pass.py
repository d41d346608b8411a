"""All that an image offers, from one forward pass of the network: candidates and feature levels.

In: a detector, a stored image. Out: its pin, its input, every candidate's box and class scores, the levels.
`predict` and a second pass for features see the image twice; where the pin is plain geometry
(`base.PlainDetector`) one pass gives both. Proposals are frozen by `predict`, so that two-stage detectors
take two passes, and a black box gives its detections alone.

What a detector answers is held to what `curator.detect.checking` asks of detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torchvision.ops import nms

from curator.detect.base import Detector, FeatureMap, PlainDetector
from curator.detect.checking import LEAST_SIDE, ROUNDING, predict_all, refuse_broken
from curator.errors import InputError
from store.records import CLASSES, Floats, Ints, Pin

FLOOR = 1e-4
"""Least score of a candidate that is kept: what a detector nearly sees is where its misses are."""
OVERLAP = 0.6
"""Candidates of a larger IoU describe the same thing."""

_POOL = 1000  # best candidates among which repeats are removed, more where that leaves too few


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePass:
    """What one look at an image gave, on the detector's device.

    Attributes:
        u: (3, h, w) RGB [0, 1], the input of the pin.
        boxes: (Q, 4) float32, stored-image pixels, within the image, none without area; where a box is
            decoded per class, that of the best class.
        scores: (Q, K) float32 probabilities per class without background.
        candidates: (Q,) int64, index of the candidate; a black box's are its detections by rank.
        features: the levels asked for, (1, C, h', w') each.
        dropped: candidates left out for want of area.
    """

    pin: Pin
    u: Tensor
    boxes: Tensor
    scores: Tensor
    candidates: Tensor
    features: Mapping[str, FeatureMap]
    dropped: int = 0


@torch.inference_mode()
def one_pass(detector: Detector, image: Tensor, levels: Sequence[str] = ()) -> OnePass:
    """Look at an image once.

    Args:
        image: stored image (3, H, W) float32 RGB [0, 1], on the detector's device or not.
        levels: of `detector.levels`.
    Raises:
        InputError: levels that the detector has not; candidates that are no boxes or no probabilities.
    """
    unknown = [level for level in levels if level not in detector.levels]
    if unknown:
        known = ", ".join(detector.levels) or "none: it is a black box"
        raise InputError(f"levels: expected some of {detector.spec}'s ({known}), got {', '.join(unknown)}")
    if detector.modules() is None:
        return _predicted(detector, image)
    if getattr(detector, "plain_pin", False):
        pin = cast(PlainDetector, detector).pin(image)
    else:
        pin = predict_all(detector, [image], score_threshold=1.0)[0].pin
    u = detector.prepare(image, pin)
    found = detector.candidates(u[None], pin, index=None, levels=levels)
    scores, boxes = found.scores[0], found.boxes[0]
    if boxes.ndim == 3:  # (Q, K, 4)
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), scores.argmax(1)]
    _refuse_broken(detector, boxes, scores)
    height, width = pin.image_size
    inside = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    kept = (inside[:, 2:] - inside[:, :2] >= LEAST_SIDE).all(1).nonzero()[:, 0]
    return OnePass(
        pin=pin,
        u=u,
        boxes=inside[kept],
        scores=scores[kept].clamp(0, 1),
        candidates=kept,
        features=found.features,
        dropped=len(boxes) - len(kept),
    )


def candidate_boxes(
    one: OnePass, most: int = 32, overlap: float = OVERLAP, floor: float = FLOOR
) -> tuple[Floats, Ints, Floats]:
    """The best candidates that do not repeat a better one, whatever their classes.

    Args:
        most: candidates. overlap: IoU above which a candidate repeats a better one.
        floor: least best score of a candidate.
    Returns:
        boxes (C, 4), C <= most, by falling best score; the five best classes of each, best first (C, 5), -1
        where there is none; their scores (C, 5), 0 where there is none.
    """
    best = one.scores.amax(1) if one.scores.numel() else one.scores.new_zeros(len(one.scores))
    values, order = best.sort(descending=True, stable=True)
    order = order[: int((values >= floor).sum())]
    pool = _POOL
    while True:
        chosen = order[:pool]
        chosen = chosen[nms(one.boxes[chosen].float(), best[chosen].float(), overlap)[:most]]
        if len(chosen) >= most or pool >= len(order):
            break
        pool *= 4
    top, classes = one.scores[chosen].sort(dim=1, descending=True, stable=True)
    count = min(CLASSES, top.shape[1])
    scores, labels = top.new_zeros(len(chosen), CLASSES), classes.new_full((len(chosen), CLASSES), -1)
    scores[:, :count] = top[:, :count]
    labels[:, :count] = torch.where(top > 0, classes, -1)[:, :count]
    return one.boxes[chosen].float().cpu().numpy(), labels.cpu().numpy(), scores.float().cpu().numpy()


def _predicted(detector: Detector, image: Tensor) -> OnePass:
    """A black box's detections; a detection's scores are 0 but for its own class."""
    answer = predict_all(detector, [image], score_threshold=FLOOR)[0]
    u, found = detector.prepare(image, answer.pin), answer.detections
    scores = torch.zeros(len(found), len(detector.classes))
    scores[torch.arange(len(found)), torch.from_numpy(found.labels)] = torch.from_numpy(found.scores)
    return OnePass(
        pin=answer.pin,
        u=u,
        boxes=torch.from_numpy(found.boxes).to(u.device),
        scores=scores.to(u.device),
        candidates=torch.from_numpy(found.candidates).to(u.device),
        features={},
        dropped=answer.dropped,
    )


def _refuse_broken(detector: Detector, boxes: Tensor, scores: Tensor) -> None:
    """As `checking.refuse_broken` does it, every class's score included; numbers move only to be named.

    Raises:
        InputError: names the broken candidates.
    """
    if not scores.numel():
        return
    low, high = scores.amin(1), scores.amax(1)  # nan where a score is none
    fine = torch.isfinite(boxes).all(1) & (low >= -ROUNDING) & (high <= 1 + ROUNDING)
    fine &= (boxes[:, 2:] >= boxes[:, :2] - ROUNDING).all(1)
    if bool(fine.all()):
        return
    worst = torch.where(low >= -ROUNDING, high, low)
    refuse_broken(
        boxes.float().cpu().numpy(),
        worst.float().cpu().numpy(),
        scores.argmax(1).cpu().numpy(),
        classes=detector.classes,
        who=f"{detector.spec}: candidates",
    )
