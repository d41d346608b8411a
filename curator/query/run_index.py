"""`index`: compact vectors of what mined and pool images offer, and of the mined images' outcomes.

In: the current diagnosis and explanation (`Current`), the images. Out: rows in a vector space of the Store:
per image at most `candidates` + `windows` boxes with int8 views, and for mined images the boxes of failures,
successes and culprit regions. What an image offers depends on no diagnosis, so that diagnosing or explaining
anew embeds the images with outcomes again, and the pool never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.current import Culprit, Current
from curator.diagnose.run_current import culprits, read_current
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.local import LocalExecutor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.query.index_work import (
    REGION,
    STAGE,
    STAGE_VERSION,
    Blamed,
    EmbedWork,
    Indexed,
    IndexedOutcome,
    IndexItem,
    IndexWork,
)
from curator.query.settings import IndexConfig
from curator.registry import Spec
from curator.represent.projection import Projection
from store.keys import content_key
from store.records import ModelRecord, SpaceShape

if TYPE_CHECKING:
    from store.store import Store

DENSITY_SIDE = 32  # culprit regions travel to the worker on a grid of this many cells per side
FITTED_ON = 256  # mined images that projections are fitted on


def index(store: Store, config: IndexConfig, *, executor: Executor | None = None) -> StageResult:
    """Index mined and pool images.

    Returns:
        a result whose summary names the vector space ("space"), its views, the images per role and the bytes
        per image.

    Raises:
        InputError: nothing was diagnosed yet, or the workspace has no pool.
    """
    current = read_current(store, STAGE, config.detector)
    model = current.model
    mine, pool = store.image_ids(role="mine"), store.image_ids(role="pool")
    if not pool:
        raise InputError(
            "index: expected pool images, got none; add some: curator add coco PATH --role pool "
            "(or: curator add images DIR --role pool)"
        )
    blamed = culprits(store, current)
    items = list(index_items(store, current, blamed, sorted({*mine, *pool})))
    name = space_name(config, model)
    with recorded_run(
        store, STAGE, config, models=[model.fingerprint], config_key=name, scope=model.fingerprint
    ) as (run_id, counts):
        shape = store.space(name)
        if shape is None:
            fitted_on = _sample(items, set(mine))
            shape = _fitted(config, model, fitted_on, executor or LocalExecutor(config.device))
            store.create_space(run_id, name, shape)
        work = index_work(config, model, shape)
        stored = store.done_keys(STAGE, [work.key(item) for item in items])
        items = [item if work.key(item) in stored else _with_densities(store, item, blamed) for item in items]

        def save(done: Done) -> None:
            value: Indexed = done.value
            store.put_boxes(run_id, name, "offered", [value.offered])
            if value.outcomes is not None:
                store.put_boxes(run_id, name, "outcomes", [value.outcomes])

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=items,
            save=save,
            image_id=lambda item: item.image_id,
            describe=lambda item: item.uri,
            device=config.device,
            executor=executor,
        )
    result.summary.update(
        space=name,
        views={**shape.views, **shape.image_views},
        images={"mine": len(mine), "pool": len(pool)},
        explained_by=current.explained_by,
        culprits=len(blamed),
    )
    return result


def index_work(config: IndexConfig, model: ModelRecord, shape: SpaceShape) -> IndexWork:
    """The work of a configuration, which knows the items' keys."""
    return IndexWork(
        arrays=shape.arrays,
        detector=model.spec,
        fingerprint=model.fingerprint,
        embedder=config.embedder,
        candidates=config.candidates,
        windows=config.windows,
        batch_size=config.batch_size,
    )


def space_name(config: IndexConfig, model: ModelRecord) -> str:
    """The name under which the Store keeps vectors: all that decides what they mean."""
    key = content_key(
        STAGE_VERSION,
        config.embedder,
        model.fingerprint,
        config.candidates,
        config.windows,
        config.components,
    )
    return f"{Spec.parse(config.embedder).scheme}-{key[:16]}"


def index_items(
    store: Store, current: Current, blamed: Mapping[int, Culprit], ids: Sequence[int]
) -> Iterator[IndexItem]:
    """The images with their outcomes and what is blamed for them, without densities: enough for keys."""
    found: dict[int, list[IndexedOutcome]] = {}
    for outcome in current.outcomes:
        number = outcome.id or 0
        culprit = blamed.get(number)
        found.setdefault(outcome.image_id, []).append(
            IndexedOutcome(
                id=number,
                key=outcome.key,
                box=outcome.box,
                blamed=None
                if culprit is None
                else Blamed(
                    attribution_id=culprit.attribution_id, box=culprit.boxes[0], key=culprit.key
                ),
            )
        )
    for image in store.images(reader="index", ids=ids):
        yield IndexItem(
            image_id=image.id, uri=image.uri, sha256=image.sha256, outcomes=tuple(found.get(image.id, ()))
        )


def _sample(items: Sequence[IndexItem], mine: set[int]) -> list[IndexItem]:
    """Mined images that projections are fitted on: by hash, so that equal images give equal projections."""
    own = sorted((item for item in items if item.image_id in mine), key=lambda item: item.sha256)
    return [replace(item, outcomes=()) for item in own[:FITTED_ON]]


def _fitted(
    config: IndexConfig, model: ModelRecord, items: Sequence[IndexItem], executor: Executor
) -> SpaceShape:
    """A space whose projections are fitted on what `items` offer.

    Raises:
        InputError: hardly any of the images could be read.
    """
    work = EmbedWork(
        detector=model.spec,
        fingerprint=model.fingerprint,
        embedder=config.embedder,
        candidates=config.candidates,
        windows=config.windows,
        batch_size=config.batch_size,
    )
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    reasons = []
    for batch in executor.run(work, items):
        for result in batch:
            if isinstance(result, Done):
                found[result.item.sha256] = dict(result.value.views)
            else:
                reasons.append(result.reason)
    if len(found) < 2:
        why = f"; the first could not be: {reasons[0]}" if reasons else ""
        raise InputError(f"index: expected two mined images or more that can be read, got {len(found)}{why}")
    order = sorted(found)
    arrays: dict[str, NDArray[Any]] = {}
    views: dict[str, int] = {}
    image_views: dict[str, int] = {}
    for view in found[order[0]]:
        if view == REGION:
            continue
        values = np.concatenate([found[sha][view] for sha in order])
        projection = Projection.fit(values, config.components)
        arrays |= projection.arrays(view)
        whole = all(len(found[sha][view]) == 1 for sha in order)
        (image_views if whole else views)[view] = projection.dimension
    return SpaceShape(
        views=views,
        image_views=image_views,
        classes=len(model.classes),
        facts={
            "embedder": config.embedder,
            "detector": model.spec,
            "candidates": config.candidates,
            "windows": config.windows,
            "components": config.components,
            "fitted_on": len(found),
        },
        arrays=arrays,
    )


def _with_densities(store: Store, item: IndexItem, blamed: Mapping[int, Culprit]) -> IndexItem:
    """The item as a worker needs it."""
    labels: dict[int, NDArray[np.uint16]] = {}
    outcomes = []
    for outcome in item.outcomes:
        if outcome.blamed is not None:
            culprit = blamed[outcome.id]
            number = culprit.segmentation_id
            if number not in labels:
                labels[number] = store.segmentation(number).labels
            density = culprit.density(labels[number], DENSITY_SIDE)
            outcome = replace(outcome, blamed=replace(outcome.blamed, density=density))
        outcomes.append(outcome)
    return replace(item, outcomes=tuple(outcomes))
