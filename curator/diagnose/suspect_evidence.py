"""What speaks for a label error: evidence of every label, and of every detection that matches no label.

In: `Looked` images (labels and detections down to the floor, in the data set's classes). Out: `Evidence`,
one row a label (`LABEL_COLUMNS`) or a detection (`PLACE_COLUMNS`). Nothing here needs pixels, vectors or the
index, so that labels can be judged right after `curator diagnose`.

`Successes` is what the same data say of each class: how high its successes score, how well they lie, how
large its labels are, and for which class the detector takes it. A failure is judged by its likeness to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.boxes import area, iou
from curator.matching import ImageResult, match

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MATCH = 0.5  # IoU of a detection that found its object
NEAR = 0.1  # IoU below which a detection says nothing of a label (TIDE's background bound)
LEAST = 1e-3  # scores are clipped to [LEAST, 1 - LEAST] before their log-odds
LABEL_COLUMNS = (
    "own",  # log-odds of the best detection of its class on it (IoU >= .5)
    "own against its class",  # the same, less the mean of its class
    "other",  # log-odds of the best detection of another class on it
    "margin",  # other - own
    "confusion",  # how often the detector takes its class for that other one, log
    "near",  # score x IoU of the detection of its class that lies nearest
    "apart",  # score x (1 - IoU) of the same
    "overlap",  # how well it lies, against its class's successes, standard deviations
    "same label",  # greatest IoU with another label of its class
    "other label",  # greatest IoU with a label of another class
    "second",  # a duplicate's: the other label has the better detection, 0 or 1
    "anything",  # log-odds of the best detection of any class at IoU >= .3
    "size",  # log of its side over the image's
    "odd size",  # |log side| against its class's labels, standard deviations
    "odd shape",  # the same of its aspect
    "edge",  # it touches the image's border, 0 or 1
    "class",  # mean log-odds of its class
)
PLACE_COLUMNS = (
    "score",  # log-odds of the detection
    "score against successes",  # log-odds of the share of its class's successes that score no higher
    "class",  # log of true over false positives of its class at its score or above
    "same label",  # greatest IoU with a label of its class
    "other label",  # greatest IoU with a label of another class
    "inside",  # greatest share of it that lies in one label
    "taken",  # that nearest label of its class has a better detection, 0 or 1
    "rival",  # log-odds of the best higher-scored detection on it (IoU >= .5), another class's
    "repeat",  # greatest IoU with a higher-scored detection of its class
    "size",
    "odd size",
    "odd shape",
    "edge",
    "company",  # log(1 + other detections of the image that match no label, weighed by score)
)


@dataclass(frozen=True, slots=True)
class Looked:
    """One labelled image that a detector has looked at.

    Attributes:
        result: labels and detections in the data set's classes. size: (height, width) in pixels.
        name: what folds and draws go by, such as the image's sha256.
    """

    result: ImageResult
    size: tuple[int, int]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence of one image.

    Attributes:
        labels: (L, len(LABEL_COLUMNS)). label_index: (L,) places of these labels in the image's truth.
        places: (P, len(PLACE_COLUMNS)). place_index: (P,) places in its detections.
        instead: (L,) the class of the best detection of another class on the label, -1 for none.
        nearest: (L,) the detection of its class that lies nearest, -1 for none.
    """

    labels: Floats
    label_index: Ints
    places: Floats
    place_index: Ints
    instead: Ints
    nearest: Ints


def log_odds(scores: NDArray[np.floating]) -> Floats:
    """log(p / (1 - p)) of scores, clipped to stay finite."""
    p = np.clip(np.asarray(scores, np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Successes:
    """What the data say of each class; tables by class (K,).

    Attributes:
        scores: rising scores of the successes. failed: rising scores of what matched no label.
        own: mean log-odds of the best detection on a label. overlap: mean and deviation of the successes'
            log-odds of IoU. side, aspect: mean and deviation of the labels' log side and log aspect.
        confusion: (K, K + 1) share of the labels of a class whose best detection is of a class; last: none.
    """

    scores: tuple[Floats, ...]
    failed: tuple[Floats, ...]
    own: Floats
    overlap: Floats
    side: Floats
    aspect: Floats
    confusion: Floats

    @classmethod
    def of(cls, images: Sequence[Looked], classes: int) -> Successes:
        """Read them from images; a class with few labels leans on all of them."""
        scores: list[list[float]] = [[] for _ in range(classes)]
        failed: list[list[float]] = [[] for _ in range(classes)]
        own: list[list[float]] = [[] for _ in range(classes)]
        overlap: list[list[float]] = [[] for _ in range(classes)]
        side: list[list[float]] = [[] for _ in range(classes)]
        aspect: list[list[float]] = [[] for _ in range(classes)]
        counts = np.zeros((classes, classes + 1))
        for image in images:
            r = image.result
            found = match(r.boxes, r.scores, r.classes, r.truth, iou_threshold=MATCH)
            for i in np.flatnonzero(~found.left_out):
                where = scores if found.truth[i] >= 0 else failed
                where[r.classes[i]].append(float(r.scores[i]))
                if found.truth[i] >= 0:
                    overlap[r.classes[i]].append(float(found.overlaps[i, found.truth[i]]))
            counted = np.flatnonzero(~r.truth.ignored)
            on = found.overlaps[:, counted] >= MATCH
            for column, g in enumerate(counted):
                k = int(r.truth.classes[g])
                there = np.flatnonzero(on[:, column])
                same = there[r.classes[there] == k]
                own[k].append(float(r.scores[same].max(initial=0.0)))
                best = r.classes[there[np.argmax(r.scores[there])]] if len(there) else classes
                counts[k, int(best)] += 1
            sides, aspects = _shape(r.truth.boxes[counted])
            for k, s, a in zip(r.truth.classes[counted], sides, aspects, strict=True):
                side[k].append(float(s))
                aspect[k].append(float(a))
        prior = counts.sum(0) + 1
        prior = prior / prior.sum()
        return cls(
            scores=tuple(np.sort(np.array(v)) for v in scores),
            failed=tuple(np.sort(np.array(v)) for v in failed),
            own=_leaning([log_odds(np.array(v)) for v in own])[:, 0],
            overlap=_leaning([log_odds(np.array(v)) for v in overlap]),
            side=_leaning([np.array(v) for v in side]),
            aspect=_leaning([np.array(v) for v in aspect]),
            confusion=(counts + 4 * prior) / (counts.sum(1, keepdims=True) + 4),
        )


def _shape(boxes: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Log side and log aspect (n,) of boxes (n, 4)."""
    width, height = np.maximum(boxes[:, 2] - boxes[:, 0], 1), np.maximum(boxes[:, 3] - boxes[:, 1], 1)
    return 0.5 * np.log(width * height), np.log(width / height)


def _leaning(values: Sequence[Floats], weight: float = 5) -> Floats:
    """Mean and deviation (K, 2) of each class, leaning on all classes' by `weight` examples."""
    every = np.concatenate([*values, np.zeros(0)])
    mean, variance = (float(every.mean()), float(every.var())) if len(every) else (0.0, 1.0)
    rows = []
    for own in values:
        n = len(own)
        m = (own.sum() + weight * mean) / (n + weight)
        v = (((own - m) ** 2).sum() + weight * variance) / (n + weight)
        rows.append((m, max(float(np.sqrt(v)), 1e-3)))
    return np.array(rows).reshape(len(values), 2)


def evidence(image: Looked, known: Successes, *, floor: float) -> Evidence:
    """Evidence of every counted label and of every detection without a label.

    Args:
        floor: detections that score lower are no places for a missing label; they speak of labels all the
            same.
    """
    r = image.result
    truth = r.truth
    overlaps = iou(r.boxes, truth.boxes)  # (N, G)
    counted = np.flatnonzero(~truth.ignored)
    odds = log_odds(r.scores)
    lowest = float(log_odds(np.zeros(1))[0])
    same = r.classes[:, None] == truth.classes[None, :]  # (N, G)
    mutual = iou(truth.boxes, truth.boxes)
    np.fill_diagonal(mutual, 0)
    alike = truth.classes[:, None] == truth.classes[None, :]
    sides, aspects = _shape(truth.boxes)
    odd_side, odd_aspect = _odd(truth.classes, sides, aspects, known)
    # A detection speaks of the label of its class that it overlaps most.
    rows, instead, nearest = [], [], []
    best_own = np.array(
        [_best(odds, same[:, g] & (overlaps[:, g] >= MATCH), lowest) for g in range(len(sides))]
    )
    of_class = np.where(same, overlaps, 0.0)
    claimed = of_class >= of_class.max(1, keepdims=True, initial=0.0)
    for g in counted:
        k = int(truth.classes[g])
        on = overlaps[:, g] >= MATCH
        own = best_own[g]
        others = np.flatnonzero(on & ~same[:, g])
        at = int(others[np.argmax(odds[others])]) if len(others) else -1
        other = odds[at] if at >= 0 else lowest
        instead.append(int(r.classes[at]) if at >= 0 else -1)
        mine = np.flatnonzero(same[:, g] & claimed[:, g] & (overlaps[:, g] >= NEAR))
        near = int(mine[np.argmax(r.scores[mine] * overlaps[mine, g])]) if len(mine) else -1
        nearest.append(near)
        score, overlap = (r.scores[near], overlaps[near, g]) if near >= 0 else (0.0, 0.0)
        mean, deviation = known.overlap[k]
        lies = (float(log_odds(np.array([overlap]))[0]) - mean) / deviation if near >= 0 else 0.0
        twin = np.where(alike[g], mutual[g], 0.0)
        alien = np.where(alike[g], 0.0, mutual[g])
        pair = int(np.argmax(mutual[g])) if len(mutual) > 1 else g
        rows.append(
            (
                own,
                own - known.own[k],
                other,
                other - own,
                np.log(known.confusion[k, r.classes[at]]) if at >= 0 else 0.0,
                score * overlap,
                score * (1 - overlap),
                score * min(lies, 0.0),
                twin.max(initial=0.0),
                alien.max(initial=0.0),
                float(mutual[g, pair] >= MATCH and best_own[pair] > own),
                _best(odds, overlaps[:, g] >= 0.3, lowest),
                sides[g] - 0.5 * np.log(image.size[0] * image.size[1]),
                odd_side[g],
                odd_aspect[g],
                _edge(truth.boxes[g], image.size),
                known.own[k],
            )
        )
    places, place_index = _places(image, known, overlaps, floor)
    return Evidence(
        labels=np.array(rows, np.float64).reshape(-1, len(LABEL_COLUMNS)),
        label_index=counted.astype(np.int64),
        places=places,
        place_index=place_index,
        instead=np.array(instead, np.int64),
        nearest=np.array(nearest, np.int64),
    )


def _places(image: Looked, known: Successes, overlaps: Floats, floor: float) -> tuple[Floats, Ints]:
    """Evidence of the detections that match no label, and their places."""
    r = image.result
    found = match(r.boxes, r.scores, r.classes, r.truth, iou_threshold=MATCH)
    free = np.flatnonzero(found.false_positive & (r.scores >= floor))
    odds = log_odds(r.scores)
    lowest = float(log_odds(np.zeros(1))[0])
    between = iou(r.boxes[free], r.boxes)  # (P, N)
    company = float(r.scores[found.false_positive].sum())
    same = r.classes[:, None] == r.truth.classes[None, :]
    sides, aspects = _shape(r.boxes)
    odd_side, odd_aspect = _odd(r.classes, sides, aspects, known)
    own = np.maximum(area(r.boxes), 1e-9)
    rows = []
    for row, i in enumerate(free):
        k = int(r.classes[i])
        higher = (r.scores > r.scores[i]) | ((r.scores == r.scores[i]) & (np.arange(len(odds)) < i))
        right, wrong = known.scores[k], known.failed[k]
        below = np.searchsorted(right, r.scores[i], side="right")
        above, false = (len(known_of) - np.searchsorted(known_of, r.scores[i]) for known_of in (right, wrong))
        of_class = np.where(same[i], overlaps[i], 0.0)
        g = int(np.argmax(of_class)) if len(of_class) else -1
        taken = g >= 0 and of_class[g] >= NEAR and found.found_by[g] >= 0
        on = higher & (between[row] >= MATCH)
        # The share of the detection that lies in one label: IoU and both areas give the intersection.
        total = own[i] + area(r.truth.boxes)
        within = overlaps[i] * total / (1 + overlaps[i]) / own[i]
        rows.append(
            (
                odds[i],
                float(np.log((below + 0.5) / (len(right) - below + 0.5))),
                float(np.log((above + 0.5) / (false + 0.5))),
                of_class.max(initial=0.0),
                np.where(same[i], 0.0, overlaps[i]).max(initial=0.0),
                within.max(initial=0.0),
                float(taken),
                _best(odds, on & (r.classes != k), lowest),
                np.where(higher & (r.classes == k), between[row], 0.0).max(initial=0.0),
                sides[i] - 0.5 * np.log(image.size[0] * image.size[1]),
                odd_side[i],
                odd_aspect[i],
                _edge(r.boxes[i], image.size),
                np.log1p(max(company - r.scores[i], 0.0)),
            )
        )
    return np.array(rows, np.float64).reshape(-1, len(PLACE_COLUMNS)), free.astype(np.int64)


def _best(odds: Floats, which: NDArray[np.bool_], lowest: float) -> float:
    return float(odds[which].max(initial=lowest))


def _odd(classes: Ints, sides: Floats, aspects: Floats, known: Successes) -> tuple[Floats, Floats]:
    """How unlike its class's labels each box is, in standard deviations (n,), at most 6."""
    side, aspect = known.side[classes], known.aspect[classes]
    return (
        np.minimum(np.abs(sides - side[:, 0]) / side[:, 1], 6.0),
        np.minimum(np.abs(aspects - aspect[:, 0]) / aspect[:, 1], 6.0),
    )


def _edge(box: NDArray[np.floating], size: tuple[int, int]) -> float:
    height, width = size
    return float(box[0] <= 2 or box[1] <= 2 or box[2] >= width - 2 or box[3] >= height - 2)
