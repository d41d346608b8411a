"""`diagnose`: true positives, false positives and missed objects of the mined images, with their causes.

In: stored detections and annotations of the images whose role is mine. Out: one `Outcome` per success and
failure; the summary holds the per-class table, AP, TIDE's cost in AP per cause and the confusion matrix.
Only images with a missed object are looked at again by the detector, for their raw candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.detect.load import load_known
from curator.detect.run import score_floor, why_missing
from curator.diagnose.causes import (
    Criteria,
)
from curator.diagnose.metrics import evaluate
from curator.diagnose.run_current import detected, mapped
from curator.diagnose.settings import DiagnoseConfig
from curator.diagnose.work import STAGE, DiagnoseItem, DiagnoseWork, calibrate, image_result
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.matching import ClassMap, not_judged
from store.keys import content_key
from store.records import (
    FN_CAUSES,
    FP_CAUSES,
    ModelRecord,
    Outcome,
)

if TYPE_CHECKING:
    from store.store import Store



def diagnose(store: Store, config: DiagnoseConfig, *, executor: Executor | None = None) -> StageResult:
    """Diagnose the annotated images whose role is mine.

    Returns:
        with a summary: "classes" (a row per class), "causes", "tide_delta_ap", "confusion", "ap50",
        "missing_classes" (the detector cannot produce them), "dropped_classes", "dropped_detections",
        "not_judged" (lines), "low_score" (t_low), "images", "unlabelled".
    Raises:
        InputError: no detections or no annotations of mined images, a wrong class map, or a score threshold
            below the floor that the detections were computed down to.
    """
    model, detections_key = detected(store, config.detector)
    classes = ClassMap.resolve(model.classes, [c.name for c in store.categories()], config.class_map)
    items, unlabelled, failed_before = _items(store, model, detections_key, config)
    detector = load_known(model, config.device)
    criteria = Criteria(
        score=config.score_threshold,
        iou=config.iou_threshold,
        background_iou=config.background_iou,
        low_score=0.0,
    )
    low = config.low_score if config.low_score is not None else calibrate(detector, items, classes, criteria)
    criteria = replace(criteria, low_score=low)
    work = DiagnoseWork(model.spec, model.id, classes, criteria, detections_key or model.fingerprint)
    with recorded_run(
        store,
        STAGE,
        config,
        models=(model.fingerprint,),
        config_key=work.config_key,
        facts={
            "model": model.id,
            "detections_key": detections_key,
            "class_map": mapped(model.classes, classes),
            "low_score": low,
        },
    ) as (run_id, counts):

        def save(done: Done) -> None:
            outcomes = [replace(o, key=content_key(done.key, i)) for i, o in enumerate(done.value)]
            store.put_outcomes(run_id, done.item.image.id, outcomes, item_key=done.key)

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=items,
            save=save,
            image_id=lambda item: item.image.id,
            describe=lambda item: item.image.uri,
            device=config.device,
            executor=executor,
            failed_before=failed_before,
        )
    done = store.done_keys(STAGE, [work.key(item) for item in items])
    judged = [item for item in items if work.key(item) in done]  # what failed has no part in the figures
    summary = summarise(store.outcomes(), judged, work.classes, work.criteria)
    return replace(
        result, summary={"detector": model.spec, **summary, "low_score": low, "unlabelled": unlabelled}
    )


def _items(
    store: Store, model: ModelRecord, detections_key: str | None, config: DiagnoseConfig
) -> tuple[list[DiagnoseItem], int, list[tuple[str, str]]]:
    """What can be diagnosed, the number of images without labels, and the images on which `detect` failed."""
    images = store.images(reader="diagnose", role="mine")
    ids = [image.id for image in images]
    annotations = {i: s for i, s in store.annotations(ids, reader="diagnose").items() if s.status == "human"}
    if not annotations:
        raise InputError(
            "expected annotated images with the role mine, got "
            f"{len(images)} without annotations; add some with `curator add coco PATH --role mine`"
        )
    found = store.detections(model.id, ids, config_key=detections_key)
    missing = [i for i in annotations if i not in found]
    reasons = why_missing(store, model, missing) if missing else {}
    if len(reasons) < len(missing) or len(missing) == len(annotations):
        why = f" (it failed there: {next(iter(reasons.values()))})" if reasons else ""
        raise InputError(
            f"{len(missing)} of {len(annotations)} mined images have no detections by {model.spec}{why}; "
            f"run `curator detect --detector '{model.spec}'` first"
        )
    floor = score_floor(store, (found[i] for i in annotations if i in found))
    if config.score_threshold < floor:
        raise InputError(
            f"--score-threshold {config.score_threshold:g}: the detections were computed down to {floor:g} "
            f"only, so what scores lower is unknown; run `curator detect --detector '{model.spec}' "
            f"--score-floor {config.score_threshold:g}` first, or diagnose at {floor:g} or above"
        )
    failed = [(image.uri, f"no detections: {reasons[image.id]}") for image in images if image.id in reasons]
    items = []
    for image in images:
        if image.id in annotations and image.id in found:
            labelled, detected = annotations[image.id], found[image.id]
            items.append(
                DiagnoseItem(
                    image=image,
                    annotations=labelled.annotations,
                    labelled=labelled.classes,
                    annotation_key=f"{labelled.version}:{labelled.key}",
                    detections=detected.detections,
                    pin=detected.pin,
                    detection_key=detected.key,
                )
            )
    return items, len(images) - len(annotations), failed


def summarise(
    outcomes: Sequence[Outcome], items: Sequence[DiagnoseItem], classes: ClassMap, criteria: Criteria
) -> dict[str, Any]:
    """Figures of a diagnosis, plain JSON."""
    results = [image_result(item.annotations, item.detections, classes, item.labelled) for item in items]
    measured = evaluate(
        results,
        classes.categories,
        score_threshold=criteria.score,
        iou_threshold=criteria.iou,
        background_iou=criteria.background_iou,
    )
    kinds = Counter((o.category, o.kind) for o in outcomes)
    causes = Counter((o.kind, o.cause) for o in outcomes if o.kind != "TP")
    present = {a.category for item in items for a in item.annotations}
    missing = [name for name in classes.missing if name in present]
    rows: list[dict[str, Any]] = []
    for name in classes.categories:
        tp, fp, fn = (kinds[name, kind] for kind in ("TP", "FP", "FN"))
        if name not in classes.missing and tp + fp + fn:
            rows.append(
                {
                    "class": name,
                    "objects": tp + fn,
                    "tp": tp,
                    "fp": fp,
                    "fn": fn,
                    "precision": tp / (tp + fp) if tp + fp else None,
                    "recall": tp / (tp + fn) if tp + fn else None,
                    "ap": measured.average_precision.get(name),
                }
            )
    scored = [row["ap"] for row in rows if row["ap"] is not None]
    dropped = sum(int((classes.of_label[item.detections.labels] < 0).sum()) for item in items)
    return {
        "images": len(items),
        "score_threshold": criteria.score,
        "iou_threshold": criteria.iou,
        "classes": rows,
        "mean_ap": float(np.mean(scored)) if scored else None,
        "causes": {
            **{f"FN:{cause}": causes["FN", cause] for cause in FN_CAUSES},
            **{f"FP:{cause}": causes["FP", cause] for cause in FP_CAUSES},
        },
        "tide_delta_ap": measured.tide_delta_ap,
        "confusion": {"classes": list(classes.categories), "matrix": measured.confusion.tolist()},
        "missing_classes": missing,
        "dropped_classes": list(classes.dropped),
        "dropped_detections": dropped,
        "not_judged": not_judged(classes, (item.labelled for item in items)),
    }
