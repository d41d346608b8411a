"""Average precision, TIDE's cost in AP per cause and the confusion matrix, computed by `hotcoco`.

In: per image its ground truth and detections in the data set's classes. Out: `Metrics`. The package is given
COCO dictionaries; crowd and difficult boxes become `iscrowd`. Its counts and ours (`curator.diagnose.causes`)
are two computations of the same thing, and tests hold them equal. A foundation like `curator.matching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from curator.matching import GroundTruth, ImageResult, match

TIDE_NAMES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "miss",
    "FP": "all false positives",
    "FN": "all missed objects",
}
_EVERY = 1_000_000  # maxDets: unlimited for any detector
_AREAS = [[0.0, 1e18]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What `hotcoco` says.

    Attributes:
        average_precision: category -> AP at t_iou over all given detections; only categories with objects.
        counts: category -> (TP, FP, FN) at the score threshold.
        tide_counts, tide_delta_ap: cause -> number, and AP gained were it fixed, at the score threshold.
        confusion: (K+1, K+1) objects (rows) by detections (columns), the last for background.
    """

    average_precision: dict[str, float]
    counts: dict[str, tuple[int, int, int]]
    tide_counts: dict[str, int] = field(default_factory=dict)
    tide_delta_ap: dict[str, float] = field(default_factory=dict)
    confusion: NDArray[np.int64]

    @property
    def mean_average_precision(self) -> float:
        """Mean over the categories with objects; nan without any."""
        values = list(self.average_precision.values())
        return float(np.mean(values)) if values else float("nan")


def average_precision(
    images: Sequence[ImageResult], categories: Sequence[str], *, iou_threshold: float = 0.5
) -> dict[str, float]:
    """AP at one IoU threshold per category that has objects (101 recall points, as COCO)."""
    evaluation = _evaluate(images, categories, iou_threshold)
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[0, :, :, 0, 0]  # (101, K); -1 without objects
    return {
        name: float(precision[:, k].mean())
        for k, name in enumerate(categories)
        if (precision[:, k] > -1).all()
    }


def precision_and_recall(
    images: Sequence[ImageResult], categories: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """AP and AR per category that has objects, means over the IoU thresholds .5, .55 ... .95, as COCO.

    AR is the share of objects found at any score, without a limit on detections.
    """
    evaluation = _evaluate(images, categories, *np.linspace(0.5, 0.95, 10).tolist())
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]  # (10, 101, K); -1 without objects
    recall = np.asarray(evaluation.eval["recall"])[:, :, 0, 0]  # (10, K)
    return {
        name: (float(precision[:, :, k].mean()), float(recall[:, k].mean()))
        for k, name in enumerate(categories)
        if (recall[:, k] > -1).all()
    }


def evaluate(
    images: Sequence[ImageResult],
    categories: Sequence[str],
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
    background_iou: float = 0.1,
) -> Metrics:
    """All measures of one set of images.

    AP ranks every given detection; counts, TIDE and the confusion matrix see those above the threshold.
    hotcoco 1.3 lets a crowd box make a false positive a localisation error, which TIDE does not: so for TIDE
    crowd boxes and the detections that they excuse are removed first.
    """
    shown = [image.above(score_threshold) for image in images]
    evaluation = _evaluate(shown, categories, iou_threshold)
    counts = {name: [0, 0, 0] for name in categories}
    for cell in evaluation.eval_imgs:
        if cell is None:
            continue
        row = counts[categories[cell["category_id"] - 1]]
        matched, excused = (np.asarray(cell[key], dtype=bool)[0] for key in ("dtMatched", "dtIgnore"))
        found, ignored = (
            np.asarray(cell["gtMatched"], dtype=bool)[0],
            np.asarray(cell["gtIgnore"], dtype=bool),
        )
        row[0] += int((matched & ~excused).sum())
        row[1] += int((~matched & ~excused).sum())
        row[2] += int((~found & ~ignored).sum())
    plain = [_without_crowds(image, iou_threshold) for image in shown]
    strict = _evaluate(plain, categories, iou_threshold)
    tide = strict.tide_errors(pos_thr=iou_threshold, bg_thr=background_iou)
    confusion = strict.confusion_matrix(iou_thr=iou_threshold, max_det=_EVERY)["matrix"]
    return Metrics(
        average_precision=average_precision(images, categories, iou_threshold=iou_threshold),
        counts={name: (row[0], row[1], row[2]) for name, row in counts.items()},
        tide_counts={TIDE_NAMES[key]: int(value) for key, value in tide["counts"].items()},
        tide_delta_ap={TIDE_NAMES[key]: float(value) for key, value in tide["delta_ap"].items()},
        confusion=np.asarray(confusion).astype(np.int64),
    )


def _without_crowds(image: ImageResult, iou_threshold: float) -> ImageResult:
    if not image.truth.ignored.any():
        return image
    left_out = match(
        image.boxes, image.scores, image.classes, image.truth, iou_threshold=iou_threshold
    ).left_out
    keep, kept = ~image.truth.ignored, ~left_out
    truth = GroundTruth(
        image.truth.boxes[keep], image.truth.classes[keep], image.truth.ignored[keep], image.truth.ids[keep]
    )
    return ImageResult(truth, image.boxes[kept], image.scores[kept], image.classes[kept])


def _evaluate(images: Sequence[ImageResult], categories: Sequence[str], *iou_thresholds: float) -> Any:
    annotations: list[dict[str, Any]] = []
    rows = []
    for number, image in enumerate(images, start=1):
        truth = image.truth
        for box, category, crowd in zip(
            _xywh(truth.boxes).tolist(), truth.classes.tolist(), truth.ignored.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        n = len(image.scores)
        rows.append(
            np.column_stack(
                [
                    np.full(n, number, np.float64),
                    _xywh(image.boxes),
                    np.asarray(image.scores, np.float64),
                    image.classes + 1,
                ]
            )
        )
    truth_set = hotcoco.COCO(
        {
            "images": [{"id": number, "width": 1, "height": 1} for number in range(1, len(images) + 1)],
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(categories)],
        }
    )
    table = np.concatenate(rows) if rows else np.zeros((0, 7))
    evaluation = hotcoco.COCOeval(truth_set, truth_set.load_res(table), "bbox")
    parameters = evaluation.params
    parameters.iou_thrs = list(iou_thresholds)
    parameters.max_dets = [_EVERY]
    parameters.area_rng = _AREAS
    parameters.area_rng_lbl = ["all"]
    evaluation.evaluate()
    return evaluation


def _xywh(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1)
