"""`index`: vectors of the mined images' failures and successes, and of boxes of mined and pool images.

In: outcomes of the current diagnosis, explanations where they exist, pixels of mined and pool images. Out:
vectors per (embedder, view) in the Store. Annotations are never read: a pool image is described by what the
detector offers for it (its best candidates, however low they score), by windows that stand out from their
surroundings and by grid cells at two scales, and a mined image by the same boxes too, so that a query can
learn what the pool's boxes look like. Windows and cells are stored alike as source "cell".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curator.diagnose.current import Culprit, Current
from curator.diagnose.run_current import culprits, read_current
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.query.index_work import (
    STAGE,
    STAGE_VERSION,
    Blamed,
    Indexed,
    IndexedOutcome,
    IndexItem,
    IndexWork,
)
from curator.query.settings import IndexConfig
from curator.registry import Spec
from store.keys import content_key
from store.records import BoxTuple, ModelRecord, VectorOwner

if TYPE_CHECKING:
    from store.store import Store

DENSITY_SIDE = 32  # culprit regions travel to the worker on a grid of this many cells per side


def index(store: Store, config: IndexConfig, *, executor: Executor | None = None) -> StageResult:
    """Index mined and pool images.

    Returns:
        a result whose summary names the embedder ("embedder"), its views and the images per role.

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
    work = index_work(config, model)
    items = list(index_items(store, current, blamed, sorted({*mine, *pool})))
    stored = store.done_keys(STAGE, [work.key(item) for item in items])
    items = [item if work.key(item) in stored else _with_densities(store, item, blamed) for item in items]
    name = vector_space(config, model)

    def save(done: Done) -> None:
        value: Indexed = done.value
        for view, vectors in value.views.items():
            if view == "image":
                owner = VectorOwner(image_id=done.item.image_id, box=_whole(value.owners), source="image")
                store.put_vectors(run_id, name, view, [owner], vectors, item_keys=[value.image_key])
            elif view == "region":
                if value.regions:
                    store.put_vectors(
                        run_id,
                        name,
                        "object",
                        [owner for owner, _ in value.regions],
                        vectors,
                        item_keys=[key for _, key in value.regions],
                    )
            else:
                store.put_vectors(run_id, name, view, value.owners, vectors, item_keys=value.keys)

    with recorded_run(
        store, STAGE, config, models=[model.fingerprint], config_key=name, scope=model.fingerprint
    ) as (run_id, counts):
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
        embedder=name,
        views=store.views(name),
        images={"mine": len(mine), "pool": len(pool)},
        explained_by=current.explained_by,
        culprits=len(blamed),
    )
    return result


def index_work(config: IndexConfig, model: ModelRecord) -> IndexWork:
    """The work of a configuration, which knows the items' keys."""
    return IndexWork(
        detector=model.spec,
        fingerprint=model.fingerprint,
        embedder=config.embedder,
        candidates=config.candidates,
        cells=config.cells,
        windows=config.windows,
        batch_size=config.batch_size,
    )


def vector_space(config: IndexConfig, model: ModelRecord) -> str:
    """The name under which the Store keeps vectors: all that decides what they mean."""
    return (
        f"{Spec.parse(config.embedder).scheme}-"
        + content_key(
            STAGE_VERSION, config.embedder, model.fingerprint, config.candidates, config.cells, config.windows
        )[:16]
    )


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
                score=outcome.score,
                label=outcome.target.label,
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


def _whole(owners: Sequence[VectorOwner]) -> BoxTuple:
    corner = np.array([owner.box[2:] for owner in owners if owner.source == "cell"]).max(0)
    return (0.0, 0.0, float(corner[0]), float(corner[1]))
