"""Tables of boxes with their vectors, as queries read them from the Store.

In: a vector space, views and images. Out: `BoxTable`s, with what the detector said about every box; overlaps
between tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from curator.errors import InputError
from curator.query.base import BoxTable
from store.records import VectorBlock

if TYPE_CHECKING:
    from store.store import Store

EVIDENT = 0.4  # IoU at which a candidate's score is evidence about a box


def box_table(
    store: Store, space: str, views: Sequence[str], image_ids: Sequence[int], sources: Sequence[str]
) -> BoxTable:
    """The boxes of images with their vectors; an image's own vector is repeated for each of its boxes."""
    blocks = {
        view: store.vectors(space, view, image_ids=image_ids, source=sources)
        for view in views
        if view != "image"
    }
    first = next(iter(blocks.values()), None)
    if first is None:
        first = store.vectors(space, "object", image_ids=image_ids, source=sources)
    for view, block in blocks.items():
        if len(block.owners) != len(first.owners):
            raise InputError(
                f"query: view {view!r} holds {len(block.owners)} vectors where {len(first.owners)} "
                "were expected; run: curator index"
            )
    found = {view: block.vectors for view, block in blocks.items()}
    images = np.array([owner.image_id for owner in first.owners], dtype=np.int64)
    if "image" in views:
        found["image"] = _spread(
            store.vectors(space, "image", image_ids=image_ids, source=("image",)), images
        )
    boxes = np.array([o.box for o in first.owners], dtype=np.float32).reshape(-1, 4)
    return BoxTable(
        image_ids=images,
        boxes=boxes,
        ids=first.ids,
        views=found,
        evidence=_evidence(images, boxes, first),
        outcome_ids=np.array([o.outcome_id or -1 for o in first.owners], dtype=np.int64),
    )


def _evidence(
    images: NDArray[np.int64], boxes: NDArray[np.float32], block: VectorBlock
) -> NDArray[np.float32]:
    """Per box the log-odds of the best candidate that overlaps it."""
    candidate = np.array([o.source == "candidate" for o in block.owners], dtype=bool)
    score = np.clip(np.array([o.score for o in block.owners]), 1e-4, 1 - 1e-4)
    odds = np.log(score / (1 - score))
    evidence = np.full(len(images), np.log(1e-4), dtype=np.float32)
    for rows in rows_by_image(images):
        own = rows[candidate[rows]]
        if len(own):
            overlap = iou(boxes[rows], boxes[own]) >= EVIDENT
            evidence[rows] = np.where(overlap, odds[own], evidence[rows, None]).max(1)
    return evidence


def _spread(block: VectorBlock, images: NDArray[np.int64]) -> NDArray[np.float32]:
    own = np.array([owner.image_id for owner in block.owners], dtype=np.int64)
    order = np.argsort(own, kind="stable")
    return block.vectors[order[np.searchsorted(own[order], images)]]


def region_table(
    store: Store, space: str, mined: Sequence[int], attribution_ids: Sequence[int]
) -> BoxTable | None:
    """The culprit regions that these attributions blame; None where none is indexed."""
    block = store.vectors(
        space, "object", image_ids=mined, source=("region",), attribution_ids=attribution_ids
    )
    owners = block.owners
    if not owners:
        return None
    return BoxTable(
        image_ids=np.array([o.image_id for o in owners], dtype=np.int64),
        ids=block.ids,
        boxes=np.array([o.box for o in owners], dtype=np.float32),
        outcome_ids=np.array([o.outcome_id for o in owners], dtype=np.int64),
        evidence=np.zeros(len(owners), np.float32),
        views={"object": block.vectors},
    )


def twins(offered: BoxTable, own: BoxTable, least: float) -> BoxTable:
    """Offered boxes that overlap a row of `own`, with its outcome id."""
    best, whose = best_overlap(offered, own.image_ids, own.boxes, own.outcome_ids)
    rows = np.flatnonzero(best >= least)
    return replace(offered.take(rows), outcome_ids=whose[rows])


def best_overlap(
    table: BoxTable,
    image_ids: Iterable[int],
    boxes: Sequence[Any] | NDArray[np.float32],
    labels: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Per row of the table the best IoU with a box on the same image, and that box's label (-1: none)."""
    best, whose = np.zeros(len(table)), np.full(len(table), -1, np.int64)
    places: dict[int, list[int]] = {}
    for place, image in enumerate(image_ids):
        places.setdefault(int(image), []).append(place)
    for rows in rows_by_image(table.image_ids):
        own = places.get(int(table.image_ids[rows[0]]))
        if own:
            overlap = iou(table.boxes[rows], [boxes[place] for place in own])
            best[rows] = overlap.max(1)
            whose[rows] = labels[own][overlap.argmax(1)]
    return best, whose


def rows_by_image(image_ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row indices of each image."""
    order = np.argsort(image_ids, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(image_ids[order])) + 1) if len(order) else []
