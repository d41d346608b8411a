"""`index`: compact vectors of what mined and pool images offer, and of the mined images' outcomes.

In: the current diagnosis and explanation (`Current`), the images. Out: rows in a vector space of the Store:
per image at most `candidates` + `windows` boxes with int8 views, and for mined images the boxes of failures,
successes and culprit regions. What an image offers depends on no diagnosis, so that diagnosing or explaining
anew embeds the images with outcomes again, and the pool never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    RawVectors,
)
from curator.query.run_rows import EXACT_ROWS, built
from curator.query.settings import IndexConfig
from curator.query.sketch import EXACT_CLASSES
from curator.registry import Spec
from curator.represent.projection import Projection
from store.keys import content_key
from store.records import ImageRecord, ModelRecord, SpaceShape

if TYPE_CHECKING:
    from store.store import Store

DENSITY_SIDE = 32  # culprit regions travel to the worker on a grid of this many cells per side
FITTED_ON = 256  # mined images that projections are fitted on


def index(store: Store, config: IndexConfig, *, executor: Executor | None = None) -> StageResult:
    """Index mined and pool images.

    Returns:
        a result whose summary names the vector space ("space"), its views, the images per role, and the kind
        of FAISS index that a large pool is asked through ("faiss", "" where every image is scored).

    Raises:
        InputError: nothing was diagnosed yet, or the workspace has no pool.
    """
    if config.plan:
        return _planned(store, config)
    current = read_current(store, STAGE, config.detector)
    model = current.model
    images = {"mine": store.image_count(role="mine"), "pool": store.image_count(role="pool")}
    if not images["pool"]:
        raise InputError(
            "index: expected pool images, got none; add some: curator add coco PATH --role pool "
            "(or: curator add images DIR --role pool)"
        )
    blamed = culprits(store, current)
    weights = embedder_weights(config, model)
    name = space_name(config, model, weights)
    with recorded_run(
        store, STAGE, config, models=[model.fingerprint], config_key=name, scope=model.fingerprint
    ) as (run_id, counts):
        shape = store.space(name)
        if shape is None:
            mine = index_items(store, current, blamed, store.image_ids(role="mine"))
            fitted_on = _sample(mine)
            shape = _fitted(config, model, weights, fitted_on, executor or LocalExecutor(config.device))
            store.create_space(run_id, name, shape)
        work = index_work(config, model, shape)

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
            items=_all_items(store, current, blamed),
            save=save,
            image_id=lambda item: item.image_id,
            describe=lambda item: item.uri,
            device=config.device,
            executor=executor,
            prepare=lambda item: _with_densities(store, item, blamed),
        )
    result.summary.update(
        space=name,
        views={**shape.views, **shape.image_views},
        images=images,
        explained_by=current.explained_by,
        culprits=len(blamed),
        faiss=built(store, name),
    )
    return result


def _planned(store: Store, config: IndexConfig) -> StageResult:
    """What would serve this pool, and what it costs; nothing is computed."""
    from curator.represent.index.plan import explain, plan

    images = {"mine": store.image_count(role="mine"), "pool": store.image_count(role="pool")}
    boxes = config.candidates + config.windows
    dimension = 2 * config.components + EXACT_CLASSES
    count = boxes * sum(images.values())
    found = plan(count, dimension)
    whole = "every image of a pool this small is scored exactly, without an index"
    lines = [whole] if boxes * images["pool"] <= EXACT_ROWS else []
    return StageResult(
        stage=STAGE,
        run_id=0,
        summary={
            "images": images,
            "plan": [f"at most {count} boxes of at most {dimension} numbers", *lines, explain(found)],
            "kind": found.kind,
        },
    )


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
        weights=str(shape.facts["weights"]),
        components=config.components,
    )


def embedder_weights(config: IndexConfig, model: ModelRecord) -> str:
    """Fingerprint of an embedder with a network of its own; "" where it reads the detector's features."""
    if config.embedder.startswith("detector:") and "+" not in config.embedder:
        return ""
    from curator.detect.load import load_detector
    from curator.represent.embedders.load import load_embedder

    return load_embedder(config.embedder, load_detector(model.spec, "cpu")).fingerprint


def space_name(config: IndexConfig, model: ModelRecord, weights: str) -> str:
    """The name under which the Store keeps vectors: all that decides what they mean."""
    key = content_key(
        STAGE_VERSION,
        config.embedder,
        model.fingerprint,
        config.candidates,
        config.windows,
        config.components,
        weights,
    )
    return f"{Spec.parse(config.embedder).scheme}-{key[:16]}"


def index_items(
    store: Store, current: Current, blamed: Mapping[int, Culprit], ids: Sequence[int]
) -> Iterator[IndexItem]:
    """The images with their outcomes and what is blamed for them, without densities: enough for keys."""
    found = _outcomes(current, blamed)
    return (_item(image, found) for image in store.images(reader="index", ids=ids))


def _all_items(store: Store, current: Current, blamed: Mapping[int, Culprit]) -> Iterator[IndexItem]:
    """The same of all mined and pool images, read in pages."""
    found = _outcomes(current, blamed)
    for page in store.iter_images(reader="index", roles=("mine", "pool")):
        yield from (_item(image, found) for image in page)


def _outcomes(current: Current, blamed: Mapping[int, Culprit]) -> dict[int, list[IndexedOutcome]]:
    """Image id -> its outcomes."""
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
                else Blamed(attribution_id=culprit.attribution_id, box=culprit.boxes[0], key=culprit.key),
            )
        )
    return found


def _item(image: ImageRecord, outcomes: Mapping[int, Sequence[IndexedOutcome]]) -> IndexItem:
    return IndexItem(
        image_id=image.id, uri=image.uri, sha256=image.sha256, outcomes=tuple(outcomes.get(image.id, ()))
    )


def _sample(mined: Iterable[IndexItem]) -> list[IndexItem]:
    """Mined images that projections are fitted on: by hash, so that equal images give equal projections."""
    own = sorted(mined, key=lambda item: item.sha256)
    return [replace(item, outcomes=()) for item in own[:FITTED_ON]]


def _fitted(
    config: IndexConfig,
    model: ModelRecord,
    weights: str,
    items: Sequence[IndexItem],
    executor: Executor,
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
        weights=weights,
    )
    found: dict[str, RawVectors] = {}
    reasons = []
    for batch in executor.run(work, items):
        for result in batch:
            if isinstance(result, Done):
                found[result.item.sha256] = result.value
            else:
                reasons.append(result.reason)
    if len(found) < 2:
        why = f"; the first could not be: {reasons[0]}" if reasons else ""
        raise InputError(f"index: expected two mined images or more that can be read, got {len(found)}{why}")
    order = sorted(found)
    arrays: dict[str, NDArray[Any]] = {}
    views: dict[str, int] = {}
    image_views: dict[str, int] = {}
    first = found[order[0]]
    for view in first.views:
        if view == REGION:
            continue
        values = np.concatenate([found[sha].views[view] for sha in order])
        projection = Projection.fit(values, config.components)
        arrays |= projection.arrays(view)
        (image_views if view in first.image_views else views)[view] = projection.dimension
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
            "weights": weights,
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
