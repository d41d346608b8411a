"""E: what the detector itself says about a box, relative to the class that is asked for.

In: boxes of images with their five best classes. Out: 22 numbers per box. A window has no classes of its
own: what the candidates say that overlap it is its evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Asked, Images
from store.records import BoxRows, Floats

FLOOR = 1e-4  # a probability below counts as this one
EVIDENT = 0.4  # IoU at which a candidate's score is evidence about another box
CHUNK = 512  # images at a time
NAMES = (
    "asked", "other", "margin", "entropy", "own", "asked2", "other2", "margin2", "detection",
    "asked_detection", "overlapping", "near_own", "near_asked", "near_asked_sum", "near_other", "area",
    "aspect", "x", "y", "window", "image_asked", "image_detections",
)  # fmt: skip


def log_odds(scores: NDArray[np.floating]) -> Floats:
    """log(p / (1 - p)) of probabilities, clipped to 1e-4 from 0 and 1."""
    p = np.clip(scores, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(p / (1 - p)), np.float32)


def class_scores(rows: BoxRows, labels: Sequence[int]) -> tuple[Floats, Floats]:
    """Probabilities (N,) of the best asked class and of the best other one.

    A class that is not among a candidate's five best has at most the fifth's probability: half of it counts.
    """
    present = rows.labels >= 0
    asked = np.isin(rows.labels, np.array(list(labels), np.int64)) & present
    best = np.where(asked, rows.scores, 0).max(1, initial=0)
    full = present.all(1)
    tail = np.where(full, rows.scores.min(1, initial=1.0) / 2, FLOOR)
    known = asked.any(1) | ~present.any(1)
    return (
        np.asarray(np.where(known, best, tail)),
        np.asarray(np.where(present & ~asked, rows.scores, 0).max(1, initial=0)),
    )


def evidence(rows: BoxRows, asked: Asked) -> Floats:
    """Evidence (N, 22) float32 about boxes whose images are complete; columns as `NAMES`."""
    images = Images.of(rows.image_ids)
    result = np.zeros((len(rows), len(NAMES)), np.float32)
    for start in range(0, len(images.ids), CHUNK):
        stop = min(start + CHUNK, len(images.ids))
        first = int(images.starts[start])
        last = int(images.starts[stop - 1] + images.counts[stop - 1])
        part = slice(first, last)
        result[part] = _evidence(rows.take(np.arange(first, last)), asked)
    return result


def _evidence(rows: BoxRows, asked: Asked) -> Floats:
    images = Images.of(rows.image_ids)
    width = int(images.counts.max())
    within = np.arange(len(rows)) - images.starts[images.places]
    at = (images.places, within)

    def padded(values: NDArray[np.generic], fill: float = 0.0) -> Floats:
        out = np.full((len(images.ids), width, *values.shape[1:]), fill, np.float32)
        out[at] = values
        return out

    candidate = rows.labels[:, 0] >= 0
    score, other = class_scores(rows, asked.labels)
    odds, rival = log_odds(score), log_odds(other)
    best = rows.scores[:, 0]
    both = _iou(padded(rows.boxes)) * padded(candidate.astype(np.float32))[:, None, :]
    both[:, np.arange(width), np.arange(width)] = 0
    near = both >= EVIDENT  # (M, box, candidate that overlaps it)
    lowest = float(log_odds(np.zeros(1))[0])

    def of_near(values: Floats) -> Floats:
        return np.asarray(np.where(near, padded(values, lowest)[:, None, :], lowest).max(2)[at], np.float32)

    near_asked, near_other = of_near(odds), of_near(rival)
    odds = np.where(candidate, odds, near_asked)
    rival = np.where(candidate, rival, near_other)
    parts = np.where(rows.labels >= 0, np.clip(rows.scores, FLOOR, 1), 0)
    share = parts / np.maximum(parts.sum(1, keepdims=True), FLOOR)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1)
    sides = np.maximum(rows.boxes[:, 2:] - rows.boxes[:, :2], 1.0)
    height, wide = rows.sizes[:, 0].astype(np.float32), rows.sizes[:, 1].astype(np.float32)
    centre = (rows.boxes[:, :2] + rows.boxes[:, 2:]) / 2
    detected = candidate & (best >= asked.threshold)
    asked_detected = candidate & (score >= asked.threshold)
    near_sum = (near * padded(np.where(candidate, score, 0))[:, None, :]).sum(2)[at]
    return np.stack(
        [
            odds, rival, odds - rival, entropy, best,
            odds**2 / 10, rival**2 / 10, (odds - rival) ** 2 / 10,
            detected, asked_detected,
            np.log1p(near.sum(2)[at]), of_near(log_odds(best)), near_asked, near_sum, near_other,
            np.log(sides.prod(1) / (height * wide)), np.log(sides[:, 0] / sides[:, 1]),
            centre[:, 0] / wide, centre[:, 1] / height, ~candidate,
            np.log1p(images.sums(np.where(candidate, score, 0)))[images.places],
            np.log1p(images.sums(detected.astype(np.float32)))[images.places],
        ],
        axis=1,
    ).astype(np.float32)  # fmt: skip


def _iou(boxes: Floats) -> Floats:
    """IoU (M, n, n) of boxes (M, n, 4) with each other."""
    low = np.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = np.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    side = np.maximum(high - low, 0)
    both = side[..., 0] * side[..., 1]
    area = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1)
    return np.asarray(both / np.maximum(area[:, :, None] + area[:, None, :] - both, 1e-9))
