"""Explain: attribute failures, and some successes beside them, to image regions.

In: an `ExplainConfig` and the current diagnosis. Out: per image a segmentation; per outcome an attribution
and its regions. An item is one image with all its chosen outcomes, which share masks and forward passes.

The newest run decides which configuration later stages use, unless it looks aside. Which failures it
explained is no part of the configuration: explaining in parts adds up.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from curator.diagnose.current import Current
from curator.diagnose.groups import group_outcomes
from curator.diagnose.run_current import read_current
from curator.diagnose.selectors import FailureSelector
from curator.explain.settings import ExplainConfig
from curator.explain.work import STAGE, ExplainedImage, ExplainItem, ExplainWork, fill_key
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from store.keys import content_key
from store.records import (
    Attribution,
    GridMap,
    Outcome,
    Segmentation,
    SegmentMap,
)

if TYPE_CHECKING:
    from store.store import Store

_PINS_AT_ONCE = 500


def explain(store: Store, config: ExplainConfig, *, executor: Executor | None = None) -> StageResult:
    """Explain the failures `config.failures` names and up to `config.successes` true positives per class.

    Raises:
        InputError: nothing is diagnosed yet, not with this detector, or a class is unknown.
        ConfigError: a selector, method or fill that is not understood.
    """
    selector = FailureSelector.parse(config.failures)
    current = read_current(store, STAGE, config.detector)
    model, outcomes = current.model, current.outcomes
    chosen = selector.among(outcomes) + choose_successes(outcomes, config)
    work = ExplainWork(
        spec=model.spec,
        fingerprint=model.fingerprint,
        config=config,
        fill_key=fill_key(config.fill, config.device),
    )
    items = _items(store, current, chosen)
    if items:
        work = work.resolved(min(items, key=lambda item: item.image.sha256))
    with recorded_run(
        store,
        STAGE,
        work.config,
        models=[model.fingerprint],
        config_key=work.config_key,
        scope=model.fingerprint,
        aside=config.aside,
    ) as (run_id, counts):
        start = time.monotonic()
        explained = 0

        def save(result: Done) -> None:
            nonlocal explained
            _save(store, run_id, work, result.item, result.value)
            explained += len(result.item.outcomes)

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
        )
        seconds = time.monotonic() - start
        result.summary.update(
            _summary(store, work, chosen),
            groups=len(group_outcomes(outcomes)),
            aside=config.aside,
            seconds=round(seconds, 3),
            seconds_per_outcome=round(seconds / explained, 4) if explained else None,
        )
    return result


def choose_successes(outcomes: Sequence[Outcome], config: ExplainConfig) -> list[Outcome]:
    """Up to `config.successes` true positives per class, from as many images as possible, keyed order."""
    order = {o.key: content_key(config.seed, o.key) for o in outcomes if o.kind == "TP"}
    by_class: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted((o for o in outcomes if o.kind == "TP"), key=lambda o: order[o.key]):
        by_class[outcome.category].append(outcome)
    chosen = []
    for _, members in sorted(by_class.items()):
        seen: Counter[int] = Counter()
        turns = []
        for outcome in members:
            turns.append(seen[outcome.image_id])
            seen[outcome.image_id] += 1
        ranked = sorted(zip(turns, members, strict=True), key=lambda pair: (pair[0], order[pair[1].key]))
        chosen += [outcome for _, outcome in ranked[: config.successes]]
    return chosen


def _items(store: Store, current: Current, outcomes: Sequence[Outcome]) -> list[ExplainItem]:
    by_image: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_image[outcome.image_id].append(outcome)
    ids = sorted(by_image)
    items = []
    for start in range(0, len(ids), _PINS_AT_ONCE):
        part = ids[start : start + _PINS_AT_ONCE]
        images = {image.id: image for image in store.images(reader="explain", ids=part)}
        found = store.detections(current.model.id, part, config_key=current.detections_key)
        items += [
            ExplainItem(images[i], found[i].pin, tuple(sorted(by_image[i], key=lambda o: o.key)))
            for i in part
        ]
    return items


def _save(store: Store, run_id: int, work: ExplainWork, item: ExplainItem, value: ExplainedImage) -> None:
    segmentation = store.put_segmentation(
        Segmentation(image_id=item.image.id, labels=value.labels, key=work.segmentation_key(item))
    )
    attributions = [
        Attribution(
            outcome_id=cast(int, outcome.id),
            method=work.config.method,
            map=explained,
            key=work.attribution_key(item, outcome),
            segmentation_id=segmentation,
        )
        for outcome, explained in zip(item.outcomes, value.maps, strict=True)
    ]
    ids = store.put_attributions(run_id, attributions)
    store.put_regions(
        run_id,
        [
            draft.stored(
                attribution_id=number,
                attribution_key=attribution.key,
                outcome_id=attribution.outcome_id,
                image_id=item.image.id,
            )
            for number, attribution, drafts in zip(ids, attributions, value.regions, strict=True)
            for draft in drafts
        ],
    )


def _summary(store: Store, work: ExplainWork, chosen: Sequence[Outcome]) -> dict[str, Any]:
    """Figures over all chosen outcomes, whichever run explained them."""
    kinds = {outcome.id: outcome.kind for outcome in chosen}
    ids = sorted(cast(int, i) for i in kinds)
    newest: dict[int, SegmentMap | GridMap] = {
        found.outcome_id: found.map
        for found in store.attributions(outcome_ids=ids, config_key=work.config_key)
    }
    gaps = np.array([abs(explained.gap) for explained in newest.values()])
    gaps = gaps[np.isfinite(gaps)]
    return {
        "method": work.config.method,
        "precision": work.config.precision,
        "explained": dict(sorted(Counter(kinds[i] for i in newest).items())),
        "without_evidence": sum(not explained.evidence for explained in newest.values()),
        "gap_median": round(float(np.median(gaps)), 6) if len(gaps) else None,
        "gap_largest": round(float(gaps.max()), 6) if len(gaps) else None,
        "passes": sum(explained.passes for explained in newest.values()),
    }
