"""The map: failures, found objects and boxes of the pool in two dimensions, and what a lasso takes out of it.

In: the vector space of the newest index. Out: places in [0, 1000] by PCA of the vectors of what lies in the
boxes, at most `MOST` of them; a selection of pool images. PCA is made once for a state of the index.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from curator.data.settings import RemoveConfig
from curator.errors import InputError
from curator.query.asked import main_view
from curator.query.run_indexed import indexed
from curator.review.desk import Desk
from curator.review.work import Name
from store.errors import ConflictError
from store.keys import content_key
from store.records import BoxRows, Hit, Ints, Selection

MOST = 50_000
SIDE = 1000
PER_IMAGE = 3  # boxes of a pool image: those with the highest scores
EDGE = 0.005  # share of the points beyond each end of an axis
PIECE = 2000  # images read at a time
KINDS = ("FN", "FP", "TP", "pool")
ARM = "lasso"


class Lasso(BaseModel):
    """Pool images that a person circled on the map."""

    name: Name
    images: list[int] = Field(min_length=1, max_length=100_000)


class Drop(BaseModel):
    """Take such a selection back."""

    name: Name
    key: str


@dataclass(frozen=True)
class Points:
    """What is drawn.

    Attributes:
        xy: (N, 2) in [0, SIDE]. kinds: (N,) places in `KINDS`.
        numbers: (N,) of the failure or found object; of the image where the point is a box of the pool.
        images: (N,). boxes: (N, 4) stored-image pixels.
        shown, pool: number of pool images on the map, and in the pool.
        kept: share of the variance that two dimensions keep.
    """

    xy: Ints
    kinds: Ints
    numbers: Ints
    images: Ints
    boxes: NDArray[np.float64]
    shown: int
    pool: int
    kept: float


@dataclass
class _Made:
    state: str = ""
    points: Points | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["map"])
    store = desk.store
    made = _Made()

    def points() -> Points:
        current = desk.current()
        embedder = next(
            (run.config.get("embedder") for run in store.runs(stage="index") if run.status != "failed"), None
        )
        if current is None or embedder is None:
            raise InputError("the map needs vectors; run: curator index")
        pool = store.image_ids(role="pool")
        state = indexed(store, str(embedder), current, pool)
        with made.lock:
            if made.points is None or made.state != state.state:
                kinds = {o.id: o.kind for o in current.outcomes}
                mined = store.boxes(state.space, "outcomes", keys=state.outcomes)
                known = np.isin(mined.outcome_ids, np.array([i for i in kinds if i is not None], np.int64))
                mined = mined.take(known & (mined.attribution_ids < 0))
                drawn = spaced(pool, max(1, (MOST - min(len(mined), MOST)) // PER_IMAGE))
                parts = [
                    best(store.boxes(state.space, "offered", image_ids=drawn[start : start + PIECE]))
                    for start in range(0, len(drawn), PIECE)
                ]
                made.points = placed(mined, parts, kinds, len(drawn), len(pool))
                made.state = state.state
            return made.points

    @own.get("/map")
    def whole() -> dict[str, Any]:
        """All points; `kinds` says what each kind's number means."""
        found = points()
        return {
            "side": SIDE,
            "kinds": KINDS,
            "x": found.xy[:, 0].tolist(),
            "y": found.xy[:, 1].tolist(),
            "kind": found.kinds.tolist(),
            "number": found.numbers.tolist(),
            "shown": found.shown,
            "pool": found.pool,
            "kept": round(found.kept, 4),
        }

    @own.get("/map/points/{at}")
    def point(at: int) -> dict[str, Any]:
        """One point: what its crop shows."""
        found = points()
        if not 0 <= at < len(found.kinds):
            raise InputError(f"expected a point from 0 to {len(found.kinds) - 1}, got {at}")
        return {
            "kind": KINDS[found.kinds[at]],
            "number": int(found.numbers[at]),
            "image": int(found.images[at]),
            "box": found.boxes[at].round(2).tolist(),
        }

    @own.post("/map/select")
    def select(asked: Lasso) -> dict[str, Any]:
        """Keep circled pool images as a selection."""
        with desk.writing():
            if asked.name in {selection.name for selection in store.selections()}:
                raise ConflictError(f"there is a selection {asked.name!r} already; choose another name")
            wanted = list(dict.fromkeys(asked.images))
            pool = set(store.image_ids(role="pool"))
            if not pool.issuperset(wanted):
                raise InputError("expected pool images")
            boxes = best_boxes(points(), wanted)
            hits = tuple(
                Hit(
                    rank=rank + 1,
                    image_id=image,
                    outcome_id=None,
                    group="circled",
                    box=boxes.get(image, (0.0, 0.0, 1.0, 1.0)),
                    score=0.0,
                    reason="circled on the map",
                )
                for rank, image in enumerate(wanted)
            )
            config = {"budget": len(hits), "by": desk.author}
            key = content_key(ARM, asked.name, wanted)
            run = store.begin_run("query", config={"circled": asked.name}, aside=True)
            selection = Selection(name=asked.name, arm=ARM, hits=hits, config=config, key=key)
            store.put_selection(run, selection)
            store.finish_run(run, status="done", counts={"done": len(hits)})
        said = f"{len(hits)} images kept as {asked.name!r}"
        return {"said": said, "undo": {"path": "/map/drop", "body": {"name": asked.name, "key": key}}}

    @own.post("/map/drop")
    def drop(asked: Drop) -> dict[str, Any]:
        """Take a selection of circled images back."""
        with desk.writing():
            selection = store.selection(asked.name)
            if selection.arm != ARM or selection.key != asked.key:
                raise ConflictError(f"{asked.name!r} was changed meanwhile; it stays as it is")
            from curator.pipeline.removing import remove

            remove(store, RemoveConfig(kind="selection", names=(asked.name,)))
        return {"said": f"{asked.name!r} is gone"}

    return own


def spaced(ids: list[int], most: int) -> list[int]:
    """At most `most` of the ids, evenly over all."""
    if len(ids) <= most:
        return ids
    return [ids[i] for i in np.linspace(0, len(ids) - 1, most).astype(int)]


def best(rows: BoxRows) -> BoxRows:
    """The `PER_IMAGE` boxes of each image with the highest scores; windows without a class are left out."""
    rows = rows.take(rows.labels[:, 0] >= 0)
    order = np.lexsort((-rows.scores[:, 0], rows.image_ids))
    images = rows.image_ids[order]
    first = np.concatenate([[True], images[1:] != images[:-1]]) if len(images) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    rank = np.arange(len(images)) - np.repeat(starts, np.diff([*starts, len(images)]))
    return rows.take(np.sort(order[rank < PER_IMAGE]))


def best_boxes(points: Points, images: list[int]) -> dict[int, tuple[float, float, float, float]]:
    """A box of each pool image that is on the map."""
    wanted, found = set(images), {}
    for at in np.flatnonzero(points.kinds == KINDS.index("pool")):
        image = int(points.images[at])
        if image in wanted and image not in found:
            x1, y1, x2, y2 = (float(v) for v in points.boxes[at])
            found[image] = (x1, y1, x2, y2)
    return found


def placed(
    mined: BoxRows, pool: list[BoxRows], kinds: Mapping[int | None, str], shown: int, total: int
) -> Points:
    """Points of mined outcomes and of boxes of the pool: PCA of all of their vectors together."""
    parts = [mined, *pool]
    view = main_view(mined.views)
    vectors = np.concatenate([part.components(view) for part in parts]).astype(np.float64)
    xy, kept = plane(vectors)
    of_kind = [KINDS.index(kinds[int(i)]) for i in mined.outcome_ids]
    images = np.concatenate([part.image_ids for part in parts])
    kind = np.concatenate([np.array(of_kind, np.int64), np.full(len(images) - len(mined), 3)])
    return Points(
        xy=xy,
        kinds=kind,
        numbers=np.where(kind == 3, images, np.pad(mined.outcome_ids, (0, len(images) - len(mined)))),
        images=images,
        boxes=np.concatenate([part.boxes for part in parts]).astype(np.float64),
        shown=shown,
        pool=total,
        kept=kept,
    )


def plane(vectors: NDArray[np.float64]) -> tuple[Ints, float]:
    """PCA of vectors (N, D): places (N, 2) in [0, SIDE], and the share of the variance kept.

    The largest entry of each axis is positive, so that equal vectors give an equal map.
    """
    if len(vectors) < 2:
        return np.full((len(vectors), 2), SIDE // 2, np.int64), 1.0
    centred = np.pad(vectors - vectors.mean(0), ((0, 0), (0, max(0, 2 - vectors.shape[1]))))
    values, axes = np.linalg.eigh(centred.T @ centred)
    two = axes[:, ::-1][:, :2]
    two = two * np.sign(two[np.abs(two).argmax(0), np.arange(two.shape[1])])
    found = centred @ two
    low, high = np.quantile(found, [EDGE, 1 - EDGE], axis=0)
    scaled = np.clip((found - low) / np.maximum(high - low, 1e-9), 0, 1) * SIDE
    return scaled.round().astype(np.int64), float(values[::-1][:2].sum() / max(values.sum(), 1e-12))
