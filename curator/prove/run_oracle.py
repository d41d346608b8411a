"""What an annotator with perfect foresight would pick from the pool: images that hold what fails.

In: the labelled pool (read as "oracle") and the current diagnosis. Out: pool image id -> the failing groups
that it holds. Where the user names the tag of conditions these are the groups; elsewhere the base
detector is run over the pool and judged by the hidden labels, and a group is a (kind, cause, class) that also
fails on the mined images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria, diagnose_image
from curator.diagnose.work import DiagnoseItem, calibrate, raw_candidates
from curator.matching import ClassMap
from curator.prove.arms.base import Pool
from curator.prove.settings import VerifyConfig
from curator.prove.trials import predict
from store.records import Outcome


def failing_images(
    config: VerifyConfig,
    spec: str,
    pool: Pool,
    outcomes: Sequence[Outcome],
    conditions: frozenset[str],
    classes: ClassMap,
) -> dict[int, tuple[str, ...]]:
    """Pool images that hold what fails.

    Args:
        spec: of the base detector. outcomes: the current diagnosis of the mined images.
        conditions: those that fail there.
    Returns:
        image id -> names of groups, those with most failures in the image first.
    """
    named = {i: tuple(sorted(held & conditions)) for i, held in pool.conditions.items() if held & conditions}
    if named:
        return named
    wanted = {_group(o) for o in outcomes if o.kind != "TP"}
    counts = _fail_on_pool(config, spec, pool, classes)
    found = {i: tuple(g for g, _ in count.most_common() if g in wanted) for i, count in counts.items()}
    return {i: groups for i, groups in found.items() if groups}


def _group(outcome: Outcome) -> str:
    return f"{outcome.kind}:{outcome.cause}:{outcome.category}"


def _fail_on_pool(
    config: VerifyConfig, spec: str, pool: Pool, classes: ClassMap
) -> Mapping[int, Counter[str]]:
    detector = load_detector(spec, config.device)
    ids = list(pool.images)
    found = predict(detector, list(pool.images.values()), 16, label="pool for the oracle")
    items = [
        DiagnoseItem(
            image=pool.images[i],
            annotations=pool.labels[i].annotations,
            annotation_key="",
            detections=d,
            pin=pin,
            detection_key="",
        )
        for i, (d, pin) in zip(ids, found, strict=True)
    ]
    criteria = Criteria(score=config.score_threshold, iou=config.iou_threshold, low_score=0.0)
    low = calibrate(detector, items, classes, criteria)
    criteria = Criteria(score=config.score_threshold, iou=config.iou_threshold, low_score=low)
    return {
        item.image.id: Counter(
            _group(o)
            for o in diagnose_image(
                item.detections,
                item.annotations,
                classes,
                criteria,
                lambda item=item: raw_candidates(detector, item.image, item.pin),  # type: ignore[misc]
                image_id=item.image.id,
                model_id=0,
            )
            if o.kind != "TP"
        )
        for item in items
    }
