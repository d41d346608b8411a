"""Removed images of a vector space: their rows stay in the files, and no query gets them.

In: image ids. Out: the places that they had. Rows are numbered by their place in the files, FAISS's too, so
that a removed row keeps its number until the space is compacted (`store.vectors.compaction`). SQL forgets the
images; a blob, which the space's facts name, holds where their rows lie. So one commit removes them.

    facts["removed"]  {"blob": its name,
                       "ends": kind -> rows of boxes, of candidates and of images that the files held then,
                       "rows": kind -> removed images and removed boxes}
    the blob          kind -> (K, 5) int64: place, first box, boxes, first candidate, candidates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, select, update

from store.blobs import BlobStore
from store.models import IndexedImage, SpaceRow
from store.records import BoxesKind, Ints
from store.session import chunks, table
from store.vectors.places import FACT, KINDS, committed

_PLACE = (
    IndexedImage.place,
    IndexedImage.first_box,
    IndexedImage.boxes,
    IndexedImage.first_candidate,
    IndexedImage.candidates,
)


def dead_share(space: Any) -> float:
    """Part of a space's rows of boxes that belongs to removed images, 0 to 1."""
    note = space.facts.get(FACT)
    if note is None:
        return 0.0
    total = sum(ends[0] for ends in note["ends"].values())
    return sum(rows[1] for rows in note["rows"].values()) / total if total else 1.0


def bury(connection: Connection, blobs: BlobStore, image_ids: Sequence[int]) -> int:
    """Forget the rows of images in all spaces; returns how many (image, kind, space) there were. The blob is
    written anew as a whole, 40 bytes a removed image: many images at a time cost least.

    The caller's transaction gives out rows of files alone (`one_writer`).
    """
    found: dict[int, dict[BoxesKind, list[tuple[int, ...]]]] = {}
    names = {number: kind for kind, number in KINDS.items()}
    columns = (IndexedImage.space_id, IndexedImage.kind, *_PLACE)
    for part in chunks(image_ids):
        own = select(*columns).where(IndexedImage.image_id.in_(part))
        for space_id, kind, *place in connection.execute(own):
            found.setdefault(space_id, {}).setdefault(names[kind], []).append(tuple(place))
    for space_id, kinds in found.items():
        space = connection.execute(select(table(SpaceRow)).where(SpaceRow.id == space_id)).one()
        _note(connection, blobs, space, kinds)
    for part in chunks(image_ids):
        connection.execute(delete(IndexedImage).where(IndexedImage.image_id.in_(part)))
    return sum(len(places) for kinds in found.values() for places in kinds.values())


def _note(
    connection: Connection,
    blobs: BlobStore,
    space: Any,
    new: Mapping[BoxesKind, Sequence[tuple[int, ...]]],
) -> None:
    from safetensors.numpy import load, save

    old = space.facts.get(FACT)
    arrays: dict[str, Ints] = dict(load(blobs.get(old["blob"]))) if old else {}
    for kind, places in new.items():
        parts = [arrays[kind]] if kind in arrays else []
        merged = np.concatenate([*parts, np.array(places, np.int64)])
        arrays[kind] = np.ascontiguousarray(merged[np.argsort(merged[:, 0])])
    ends = {}
    for kind in KINDS:
        counts = committed(connection, space, kind)
        ends[kind] = [counts["boxes"], counts["candidates"], counts["images"]]
    note = {
        "blob": blobs.put(save(arrays)),
        "ends": ends,
        "rows": {kind: [len(places), int(places[:, 2].sum())] for kind, places in arrays.items()},
    }
    facts = {**space.facts, FACT: note}
    connection.execute(update(SpaceRow).where(SpaceRow.id == space.id).values(facts=facts))
