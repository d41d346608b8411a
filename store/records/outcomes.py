"""Failures and successes, their targets and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from store.records.boxes import BoxTuple

OutcomeKind = Literal["TP", "FP", "FN"]
OutcomeSort = Literal["score", "-score", "size", "-size", "iou", "image"]
"""Largest first, or with "-" smallest first; by image in the order of ids."""
FP_CAUSES = ("classification", "localisation", "both", "duplicate", "background")
FN_CAUSES = ("under-threshold", "misclassified", "mislocalised", "suppressed", "miss")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """The scalar that is explained: one candidate's score for one class, frozen on the clean image.

    Attributes:
        candidate: index of the prediction before threshold and NMS.
        label: detector class (index into `ModelRecord.classes`).
        rule: how the candidate was chosen: "detection" (TP, FP), "matched" (FN rule a), "raw" (FN rule
            b), "best-iou" (FN rule c).
        score: the candidate's probability on the clean image.
        iou: IoU of the candidate's box with the ground truth (or with the detection's own box: 1).
    """

    candidate: int
    label: int
    rule: Literal["detection", "matched", "raw", "best-iou"]
    score: float
    iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A failure (FP, FN) or a success (TP) of one model on one mined image.

    Attributes:
        kind: "TP", "FP" or "FN".
        cause: one of FP_CAUSES or FN_CAUSES; None for TP.
        category: the ground truth's class for TP and FN, the detection's for FP.
        box: the ground truth's box for FN, the detection's for TP and FP.
        score: the detection's score (TP, FP) or the chosen candidate's (FN).
        iou: best IoU with ground truth (TP: with its match).
        annotation_id: the ground truth concerned, where there is one.
        detection_index: index within the image's `Detections`, None for FN.
    """

    image_id: int
    model_id: int
    kind: OutcomeKind
    cause: str | None
    category: str
    box: BoxTuple
    score: float
    iou: float
    target: TargetRecord
    annotation_id: int | None = None
    detection_index: int | None = None
    key: str = ""
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures of one cause: the unit that queries and recipes work on.

    Attributes:
        name: e.g. "FN:miss:Car".
        outcome_ids: its failures.
    """

    name: str
    kind: OutcomeKind
    cause: str | None
    category: str
    outcome_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFilter:
    """Which outcomes of the current diagnosis; an empty choice takes all."""

    kinds: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    image_ids: tuple[int, ...] = ()
