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
from curator.diagnose.causes import Criteria
from curator.diagnose.work import diagnose_predicted
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
    labels = [pool.labels[i] for i in pool.images]
    images = [(i, own.annotations, own.classes) for i, own in zip(pool.images.values(), labels, strict=True)]
    found = list(predict(detector, list(pool.images.values()), 16, label="pool for the oracle"))
    criteria = Criteria(score=config.score_threshold, iou=config.iou_threshold, low_score=0.0)
    judged, _ = diagnose_predicted(detector, images, found, classes, criteria)
    return {
        image.id: Counter(_group(o) for o in outcomes if o.kind != "TP")
        for image, outcomes in zip(pool.images.values(), judged, strict=True)
    }
