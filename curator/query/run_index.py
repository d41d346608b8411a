"""`index`: vectors of the mined images' failures and successes, and of boxes of mined and pool images.

In: outcomes of the current diagnosis, explanations where they exist, pixels of mined and pool images. Out:
vectors per (embedder, view) in the Store. Annotations are never read: a pool image is described by what the
detector offers for it (its best candidates, however low they score), by windows that stand out from their
surroundings and by grid cells at two scales, and a mined image by the same boxes too, so that a query can
learn what the pool's boxes look like. Windows and cells are stored alike as source "cell".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.query.index_work import STAGE, STAGE_VERSION, Indexed, IndexedOutcome, IndexItem, IndexWork
from curator.query.settings import IndexConfig
from curator.registry import Spec
from store.keys import content_key
from store.records import Attribution, BoxTuple, ModelRecord, SegmentMap, VectorOwner

if TYPE_CHECKING:
    from store.store import Store

SHARE_OF_MAXIMUM = 0.25  # of an attribution's density: below it, segments are not what to blame
DENSITY_SIDE = 32  # attribution densities travel to the worker on a grid of this many cells per side


def index(store: Store, config: IndexConfig, *, executor: Executor | None = None) -> StageResult:
    """Index mined and pool images.

    Returns:
        a result whose summary names the embedder ("embedder"), its views and the images per role.

    Raises:
        InputError: nothing was diagnosed yet, or the workspace has no pool.
    """
    model = newest_model(store, config.detector)
    mine, pool = store.image_ids(role="mine"), store.image_ids(role="pool")
    if not pool:
        raise InputError(
            "index: expected pool images, got none; add some: curator add coco PATH --role pool "
            "(or: curator add images DIR --role pool)"
        )
    items = list(_items(store, model, sorted({*mine, *pool})))
    work = IndexWork(
        detector=model.spec,
        fingerprint=model.fingerprint,
        embedder=config.embedder,
        candidates=config.candidates,
        cells=config.cells,
        windows=config.windows,
        batch_size=config.batch_size,
    )
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

    with recorded_run(store, STAGE, config, models=[model.fingerprint]) as (run_id, counts):
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
        embedder=name, views=store.views(name), images={"mine": len(mine), "pool": len(pool)}
    )
    return result


def vector_space(config: IndexConfig, model: ModelRecord) -> str:
    """The name under which the Store keeps vectors: all that decides what they mean."""
    return (
        f"{Spec.parse(config.embedder).scheme}-"
        + content_key(
            STAGE_VERSION, config.embedder, model.fingerprint, config.candidates, config.cells, config.windows
        )[:16]
    )


def newest_model(store: Store, spec: str | None) -> ModelRecord:
    """The newest model of the workspace, or the newest with this spec.

    Raises:
        InputError: no such model: `curator detect` has not run with it.
    """
    for model in store.models():
        if spec is None or model.spec == spec:
            return model
    raise InputError(
        f"expected a detector that ran in this workspace, got {spec or 'none'}; run: "
        f"curator detect --detector {spec or 'SPEC'}"
    )


def _items(store: Store, model: ModelRecord, ids: Sequence[int]) -> Iterator[IndexItem]:
    found: dict[int, list[IndexedOutcome]] = {}
    outcomes = store.outcomes(model_id=model.id)
    explained: dict[int, Attribution] = {}
    for attribution in store.attributions(outcome_ids=[o.id for o in outcomes if o.id is not None]):
        explained.setdefault(attribution.outcome_id, attribution)
    for outcome in outcomes:
        if outcome.id is not None:
            found.setdefault(outcome.image_id, []).append(
                IndexedOutcome(
                    id=outcome.id,
                    key=outcome.key,
                    box=outcome.box,
                    score=outcome.score,
                    label=outcome.target.label,
                    density=_density(store, explained.get(outcome.id), outcome.kind),
                )
            )
    for image in store.images(reader="index", ids=ids):
        yield IndexItem(
            image_id=image.id, uri=image.uri, sha256=image.sha256, outcomes=tuple(found.get(image.id, ()))
        )


def _density(store: Store, attribution: Attribution | None, kind: str) -> NDArray[np.float32] | None:
    """What to blame, as a non-negative density over the input frame: evidence against a missed object's
    class, evidence for a false positive's (and for a success's)."""
    if attribution is None or not attribution.map.evidence:
        return None
    sign = -1.0 if kind == "FN" else 1.0
    if isinstance(attribution.map, SegmentMap):
        if attribution.segmentation_id is None:
            return None
        labels = store.segmentation(attribution.segmentation_id).labels
        size = np.bincount(labels.ravel(), minlength=len(attribution.map.phi))
        values = np.maximum(sign * attribution.map.phi, 0) / np.maximum(size, 1)
        dense = values[labels]
    else:
        dense = np.maximum(sign * attribution.map.values, 0)
    if min(dense.shape) >= DENSITY_SIDE:
        rows, columns = (np.linspace(0, n, DENSITY_SIDE + 1).astype(int)[:-1] for n in dense.shape)
        dense = np.add.reduceat(np.add.reduceat(dense, rows, axis=0), columns, axis=1)
    return _strongest(np.asarray(dense, dtype=np.float32))


def _strongest(density: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The connected part with the most mass of what exceeds a share of the maximum; None where all is 0."""
    from scipy import ndimage

    if density.max() <= 0:
        return None
    parts, count = ndimage.label(density >= SHARE_OF_MAXIMUM * density.max())
    mass = ndimage.sum_labels(density, parts, np.arange(1, count + 1))
    return np.where(parts == 1 + int(np.argmax(mass)), density, 0).astype(np.float32)


def _whole(owners: Sequence[VectorOwner]) -> BoxTuple:
    corner = np.array([owner.box[2:] for owner in owners if owner.source == "cell"]).max(0)
    return (0.0, 0.0, float(corner[0]), float(corner[1]))
