"""Do the initial weights of another program answer as the diagnosed detector does?

Without that, `verify` would compare trainings that began elsewhere with a base that they never were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curator.detect.base import Detector
from curator.detect.checking import predict_each
from curator.errors import InputError, one_line
from curator.page import Pixels
from curator.progress import say
from curator.tensors import image_tensor
from store.records import Detections

FLOOR = 0.1  # detections that score lower are not compared
PIXELS = 1.0  # a side of a box may differ by this much,
SCORES = 1e-3  # and a score by this
SHARE = 0.98  # of the detections must agree: ties in NMS fall either way


def check_agreement(diagnosed: Detector, initial: Detector, images: Sequence[Pixels], *, init: str) -> None:
    """Compare what both detect.

    Args:
        images: (H, W, 3) uint8 RGB each. init: what the user calls the initial weights.
    Raises:
        InputError: other classes, a broken answer, or other detections; says how many.
    """
    if sorted(diagnosed.classes) != sorted(initial.classes):
        raise InputError(
            f"--init {init}: expected the diagnosed detector's classes {', '.join(diagnosed.classes)}, "
            f"got {', '.join(initial.classes)}"
        )
    total = agreeing = 0
    for pixels in images:
        first, second = (_detect(detector, pixels) for detector in (diagnosed, initial))
        names = [
            [detector.classes[k] for k in found.labels]
            for detector, found in ((diagnosed, first), (initial, second))
        ]
        sure = (first.scores >= FLOOR + SCORES, second.scores >= FLOOR + SCORES)
        total += int(sure[0].sum() + sure[1].sum())
        agreeing += found_in(first, second, names, sure[0]) + found_in(second, first, names[::-1], sure[1])
    if not total:
        say(
            f"--init {init}: neither detector finds anything on {len(images)} images, so nothing was compared"
        )
    if total and agreeing < SHARE * total:
        raise InputError(
            f"--init {init}: {total - agreeing} of {total} detections on {len(images)} images differ from "
            f"the diagnosed detector's by more than {PIXELS:g} px or {SCORES:g} in score; verify "
            "compares with the diagnosed one, so run `curator detect` and `diagnose` with these weights"
        )


def found_in(
    first: Detections, second: Detections, names: Sequence[Sequence[str]], asked: NDArray[np.bool_]
) -> int:
    """How many of the `asked` of `first` have a detection of the same class, box and score in `second`."""
    if not len(first.scores) or not len(second.scores):
        return 0
    boxes: list[NDArray[np.float64]] = [np.asarray(d.boxes, np.float64) for d in (first, second)]
    near = np.abs(boxes[0][:, None] - boxes[1][None]).max(2) <= PIXELS
    near &= np.abs(first.scores[:, None] - second.scores[None]) <= SCORES
    near &= np.array(names[0])[:, None] == np.array(names[1])[None]
    return int((near.any(1) & asked).sum())


def _detect(detector: Detector, pixels: Pixels) -> Detections:
    module = detector.modules()
    parameter = next(module.parameters(), None) if module is not None else None
    image = image_tensor(pixels)
    if parameter is not None:
        image = image.to(parameter.device)
    (answer,) = predict_each(detector, [image], score_threshold=FLOOR)
    if isinstance(answer, Exception):
        raise InputError(f"{detector.spec}: {one_line(answer)}") from answer
    return answer.detections
