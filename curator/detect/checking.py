"""What a detector answers is checked here, once, before any stage sees it.

In: a detector, stored images. Out: per image its `Answer`, or the exception that says what was wrong with it.
Every stage asks a detector through `predict_each` or `predict_all`; a test holds them to it.

What has no area is left out and counted, whoever reports it (torchvision drops small boxes after decoding,
`torchvision.ops.remove_small_boxes`): clipping to the picture leaves such boxes of objects at its border.
What cannot be meant is refused with its box named: numbers that are none, corners in the wrong order, scores
that are no probabilities, labels outside the classes. Nothing of that image is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.boxes import clip
from curator.detect.base import Detector
from curator.errors import InputError
from store.records import Detections, Pin

LEAST_SIDE = 1.0
"""Pixels of the stored image: a box with a shorter side, once clipped to the image, has no area."""

ROUNDING = 1e-3  # by so many pixels corners may be reversed, by so much a score may exceed 1, in float32
_NAMED = 3  # broken boxes that a message lists


def check_asked(u: Tensor, index: Tensor | None, levels: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what `Detector.candidates` cannot be asked.

    Args:
        u: (B, 3, h, w) inputs. index: as there. known: the detector's levels.
    Raises:
        InputError: all candidates of several inputs, or an unknown level.
    """
    if index is None and len(u) != 1:
        raise InputError(f"candidates: expected one input or an index, got {len(u)} inputs and none")
    for name in levels:
        if name not in known:
            raise InputError(f"levels: expected some of {', '.join(known)}, got {name!r}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a detector found on one image, fit for use.

    Attributes:
        detections: best first, boxes within the image, none of them without area.
        dropped: number of boxes left out for want of area. clipped: boxes that reached a pixel or more beyond
            the image.
    """

    detections: Detections
    pin: Pin
    dropped: int = 0
    clipped: int = 0


def predict_each(
    detector: Detector, images: Sequence[Tensor], *, score_threshold: float
) -> list[Answer | Exception]:
    """Ask for the detections of images; what is wrong with one does not concern the others.

    A batch that raises is asked again image by image.

    Args:
        images: stored images (3, H, W) float32 RGB [0, 1], on the detector's device or not.
        score_threshold: detections below it are left out, also where the detector itself forgot to.
    Returns:
        per image, in order, the answer or why there is none (`InputError` for an answer that is broken).
    """
    if not images:
        return []
    try:
        found: Any = detector.predict(images, score_threshold=score_threshold)
        if not isinstance(found, Sequence) or len(found) != len(images):
            raise InputError(
                f"{detector.spec}: expected an answer for each of {len(images)} images, got "
                f"{len(found) if isinstance(found, Sequence) else type(found).__name__}"
            )
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [predict_each(detector, [image], score_threshold=score_threshold)[0] for image in images]
    return [
        _answer(detector, image, one, score_threshold) for image, one in zip(images, found, strict=True)
    ]


def predict_all(detector: Detector, images: Sequence[Tensor], *, score_threshold: float) -> list[Answer]:
    """`predict_each` where every image is needed.

    Raises:
        InputError: an answer that is broken; or whatever the detector raised.
    """
    answers = []
    for answer in predict_each(detector, images, score_threshold=score_threshold):
        if isinstance(answer, Exception):
            raise answer
        answers.append(answer)
    return answers


def _answer(detector: Detector, image: Tensor, found: Any, score_threshold: float) -> Answer | Exception:
    try:
        if not (
            isinstance(found, tuple)
            and len(found) == 2
            and isinstance(found[0], Detections)
            and isinstance(found[1], Pin)
        ):
            raise InputError(
                f"{detector.spec}: expected (Detections, Pin) for each image, got {type(found).__name__}"
            )
        size = (int(image.shape[-2]), int(image.shape[-1]))
        return usable(
            found[0],
            found[1],
            size=size,
            classes=detector.classes,
            score_threshold=score_threshold,
            who=detector.spec,
        )
    except InputError as error:
        return error


def usable(
    found: Detections,
    pin: Pin,
    *,
    size: tuple[int, int],
    classes: Sequence[str],
    score_threshold: float,
    who: str,
) -> Answer:
    """One image's detections: clipped to the image, those without area left out, best first.

    Args:
        size: (H, W) of the stored image. who: the detector, for messages.
    Raises:
        InputError: broken boxes, scores or labels (`refuse_broken`), or a pin of another image.
    """
    if tuple(pin.image_size) != size:
        raise InputError(f"{who}: expected a pin of the image {size} (height, width), got {pin.image_size}")
    refuse_broken(found.boxes, found.scores, found.labels, classes=classes, who=who)
    if len(found) and found.candidates.min() < 0:
        raise InputError(f"{who}: expected candidate indices from 0, got {found.candidates.min()}")
    kept = found.take(found.scores >= score_threshold)
    kept = kept.take(np.argsort(-kept.scores, kind="stable"))
    inside = clip(kept.boxes, size[1], size[0]).astype(np.float32)
    has_area = (inside[:, 2:] - inside[:, :2] >= LEAST_SIDE).all(1)
    moved = (np.abs(inside - kept.boxes) >= LEAST_SIDE).any(1)
    return Answer(
        Detections(
            boxes=inside[has_area],
            scores=np.clip(kept.scores[has_area], 0, 1),
            labels=kept.labels[has_area],
            candidates=kept.candidates[has_area],
        ),
        pin,
        dropped=int((~has_area).sum()),
        clipped=int((moved & has_area).sum()),
    )


def refuse_broken(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], *, classes: Sequence[str], who: str
) -> None:
    """Refuse what no detector can mean.

    Args:
        boxes: (N, 4). scores, labels: (N,).
    Raises:
        InputError: names each broken box by its place in the answer (from 0), with its numbers.
    """
    if not len(scores):
        return
    with np.errstate(invalid="ignore"):
        faults = (
            ("expected finite numbers", ~np.isfinite(boxes).all(1) | ~np.isfinite(scores)),
            (f"expected labels 0 to {len(classes) - 1}", ~((labels >= 0) & (labels < len(classes)))),
            ("expected whole numbers as labels", labels != np.floor(labels)),
            ("expected x1 <= x2 and y1 <= y2", (boxes[:, 2:] < boxes[:, :2] - ROUNDING).any(1)),
            ("expected scores in [0, 1]", ~((scores >= -ROUNDING) & (scores <= 1 + ROUNDING))),
        )
    named: dict[int, str] = {}
    for expected, broken in faults:
        for place in np.flatnonzero(broken).tolist():
            named.setdefault(place, expected)
    if not named:
        return
    listed = [
        f"box {place} {_numbers(boxes[place])}, score {scores[place]:.4g}, label {labels[place]:g}: "
        f"{named[place]}"
        for place in sorted(named)[:_NAMED]
    ]
    if len(named) > _NAMED:
        listed.append(f"and {len(named) - _NAMED} more")
    raise InputError(f"{who}: broken answer of the detector: {'; '.join(listed)}; nothing of it is used")


def _numbers(box: NDArray[Any]) -> str:
    return "[" + ", ".join(f"{float(value):.6g}" for value in box) + "]"
