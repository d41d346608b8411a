"""Failures: which detections are right, which are wrong and why, and which objects are missed and why.

In: the detections of one image, its ground truth, and (for missed objects) the detector's raw candidates.
Out: one `Outcome` per true positive, false positive and missed object, each with the target to explain.

    t        score threshold: detections at or above it count
    t_iou    a match needs at least it        t_bg   TIDE's background bound (0.1)
    t_low    below it a candidate's score says nothing (per detector; `low_score`)

Matching: `curator.matching`. Causes of false positives: TIDE (Bolya et al., ECCV 2020, arXiv:2008.08115) in
the order of its code. Which candidate stands for a missed object: METHODS.md, "Failures", rules (a) to (c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from curator.matching import Bools, ClassMap, Floats, GroundTruth, Indices, Matching, match
from store.records import Annotation, Detections, Outcome, TargetRecord

RawCandidates = tuple[NDArray[np.float32], NDArray[np.float32]]  # boxes (A, 4) or (A, K, 4), scores (A, K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The four thresholds; see the table above."""

    score: float = 0.5
    iou: float = 0.5
    background_iou: float = 0.1
    low_score: float = 0.01


def false_positive_causes(
    matching: Matching, classes: Indices, truth: GroundTruth, *, iou_threshold: float, background_iou: float
) -> dict[int, tuple[str, int, float]]:
    """TIDE's cause of each false positive: index -> (cause, object concerned or -1, best IoU).

    In TIDE's order: localisation t_bg <= IoU_same <= t_iou; classification IoU_other >= t_iou; duplicate
    (an object of the class at IoU > t_iou has its detection); background IoU_other <= t_bg; else both.
    """
    result = {}
    counted = np.flatnonzero(~truth.ignored)
    for i in np.flatnonzero(matching.false_positive):
        row = np.where(truth.ignored, 0.0, matching.overlaps[i])
        same, other = (
            counted[truth.classes[counted] == classes[i]],
            counted[truth.classes[counted] != classes[i]],
        )
        best_same, at_same = _best(row, same)
        best_other, at_other = _best(row, other)
        if background_iou <= best_same <= iou_threshold:
            cause, concerned = "localisation", at_same
        elif best_other >= iou_threshold:
            cause, concerned = "classification", at_other
        elif best_same > iou_threshold:
            cause, concerned = "duplicate", at_same
        elif best_other <= background_iou:
            cause, concerned = "background", -1
        else:
            cause, concerned = "both", at_other
        result[int(i)] = (cause, concerned, max(best_same, best_other))
    return result


def _best(row: Floats, of: Indices) -> tuple[float, int]:
    if not len(of):
        return 0.0, -1
    at = int(of[np.argmax(row[of])])
    return float(row[at]), at


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The candidate that stands for a missed object."""

    target: TargetRecord
    suppressed: bool
    low: bool


def _choose(
    missed: int,
    truth: GroundTruth,
    raw: RawCandidates,
    labels: Indices,
    criteria: Criteria,
    claimed: set[tuple[int, int]],
    kept: set[tuple[int, int]],
) -> _Chosen:
    """Rules (a) to (c) of METHODS.md, over the class's labels.

    A candidate that found another object, or that overlaps another object of the class more, is no evidence
    for this one: it enters rules (a) and (b) for its own object only.
    """
    boxes, scores = raw
    rivals = np.flatnonzero((truth.classes == truth.classes[missed]) & ~truth.ignored)
    own: tuple[float, float, int, int] | None = None
    nearest: tuple[float, float, int, int] | None = None
    for label in labels.tolist():
        decoded = boxes[:, label] if boxes.ndim == 3 else boxes  # (A, 4)
        overlaps = iou(decoded, truth.boxes[rivals])  # (A, R)
        mine = overlaps[:, int(np.flatnonzero(rivals == missed)[0])]
        free = np.ones(len(mine), dtype=bool)
        free[[candidate for candidate, at in claimed if at == label]] = False
        eligible = np.flatnonzero(free & (mine >= criteria.iou) & (mine >= overlaps.max(1)))
        if len(eligible):
            a = int(eligible[np.argmax(scores[eligible, label])])
            option = (float(scores[a, label]), float(mine[a]), a, label)
            own = option if own is None or option[0] > own[0] else own
        pool = np.flatnonzero(free) if free.any() else np.arange(len(mine))
        closest = pool[mine[pool] == mine[pool].max()]
        a = int(closest[np.argmax(scores[closest, label])])  # of equally near ones the surest
        option = (float(scores[a, label]), float(mine[a]), a, label)
        nearest = option if nearest is None or option[1] > nearest[1] else nearest
    assert nearest is not None
    if own is None:
        score, overlap, a, label = nearest
        return _Chosen(
            TargetRecord(candidate=a, label=label, rule="best-iou", score=score, iou=overlap), False, True
        )
    score, overlap, a, label = own
    low = score <= criteria.low_score
    target = TargetRecord(
        candidate=a, label=label, rule="raw" if low else "matched", score=score, iou=overlap
    )
    return _Chosen(target, score >= criteria.score and (a, label) not in kept, low)


def diagnose_image(
    detections: Detections,
    annotations: Sequence[Annotation],
    classes: ClassMap,
    criteria: Criteria,
    candidates: Callable[[], RawCandidates],
    *,
    image_id: int,
    model_id: int,
) -> list[Outcome]:
    """Every true positive, false positive and missed object of one image.

    Args:
        detections: all stored ones; the score threshold is applied here.
        candidates: called once, and only when an object is missed.
    Returns:
        outcomes: detections in stored order, then missed objects in the annotations' order. Objects of
        classes that the detector cannot produce count as wrong places for a detection, never as misses.
    """
    truth = GroundTruth.of(annotations, classes.categories)
    of_detection = classes.of_label[detections.labels]
    index = np.flatnonzero((detections.scores >= criteria.score) & (of_detection >= 0))
    found, found_class = detections.take(index), of_detection[index]
    matching = match(found.boxes, found.scores, found_class, truth, iou_threshold=criteria.iou)
    causes = false_positive_causes(
        matching, found_class, truth, iou_threshold=criteria.iou, background_iou=criteria.background_iou
    )
    outcomes = []
    for i in np.flatnonzero(~matching.left_out).tolist():
        cause, concerned, overlap = causes.get(i, (None, int(matching.truth[i]), 0.0))
        if cause is None:
            overlap = float(matching.overlaps[i, concerned])
        score = float(found.scores[i])
        outcomes.append(
            Outcome(
                image_id=image_id,
                model_id=model_id,
                kind="FP" if cause else "TP",
                cause=cause,
                category=classes.categories[found_class[i]],
                box=_tuple(found.boxes[i]),
                score=score,
                iou=overlap,
                target=TargetRecord(
                    candidate=int(found.candidates[i]),
                    label=int(found.labels[i]),
                    rule="detection",
                    score=score,
                    iou=1.0,
                ),
                annotation_id=int(truth.ids[concerned]) if concerned >= 0 else None,
                detection_index=int(index[i]),
            )
        )
    missed = np.flatnonzero(
        (matching.found_by < 0) & ~truth.ignored & np.isin(truth.classes, classes.of_label)
    )
    if not len(missed):
        return outcomes
    raw = candidates()
    claimed = {(int(found.candidates[i]), int(found.labels[i])) for i in np.flatnonzero(matching.truth >= 0)}
    kept = set(zip(detections.candidates.tolist(), detections.labels.tolist(), strict=True))
    for g in missed.tolist():
        chosen = _choose(g, truth, raw, classes.labels_of(int(truth.classes[g])), criteria, claimed, kept)
        outcomes.append(
            Outcome(
                image_id=image_id,
                model_id=model_id,
                kind="FN",
                cause=_miss_cause(g, chosen, matching, causes, found_class, truth, criteria),
                category=classes.categories[truth.classes[g]],
                box=_tuple(truth.boxes[g]),
                score=chosen.target.score,
                iou=float(matching.overlaps[:, g].max(initial=0.0)),
                target=chosen.target,
                annotation_id=int(truth.ids[g]),
            )
        )
    return outcomes


def _miss_cause(
    g: int,
    chosen: _Chosen,
    matching: Matching,
    causes: Mapping[int, tuple[str, int, float]],
    found_class: Indices,
    truth: GroundTruth,
    criteria: Criteria,
) -> str:
    """Suppressed; else what a wrong detection on the object shows (it says more than a low score does);
    else under-threshold; else miss."""
    if chosen.suppressed:
        return "suppressed"
    other_class = matching.false_positive & (found_class != truth.classes[g])
    if (other_class & (matching.overlaps[:, g] >= criteria.iou)).any():
        return "misclassified"
    if any(cause == "localisation" and concerned == g for cause, concerned, _ in causes.values()):
        return "mislocalised"
    return "miss" if chosen.low else "under-threshold"


def low_score(
    background_scores: NDArray[np.floating], score_threshold: float, *, quantile: float = 0.999
) -> float:
    """t_low of a detector: the 99.9% quantile of its raw candidates' scores on background.

    Above it, one candidate in a thousand would lie by chance. Rounded to three digits, so that float noise
    between machines does not change it, and kept below half the score threshold.

    Args:
        background_scores: (n,) scores of candidates that overlap no object (IoU < t_bg).
    """
    value = float(np.quantile(background_scores, quantile)) if len(background_scores) else 0.01
    return min(float(f"{value:.3g}"), score_threshold / 2)


def _tuple(box: NDArray[np.floating]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return (x1, y1, x2, y2)


def background_scores(
    raw: RawCandidates, truth: GroundTruth, labels: Indices, *, background_iou: float
) -> NDArray[np.float32]:
    """Scores (n,) for `labels` of the raw candidates that overlap no labelled box (IoU < t_bg)."""
    boxes, scores = raw
    if boxes.ndim == 2:
        return np.ascontiguousarray(scores[_free(boxes, truth, background_iou)][:, labels]).reshape(-1)
    parts = [scores[_free(boxes[:, label], truth, background_iou), label] for label in labels]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _free(boxes: NDArray[np.float32], truth: GroundTruth, background_iou: float) -> Bools:
    return np.asarray(iou(boxes, truth.boxes).max(1, initial=0.0) < background_iou)
