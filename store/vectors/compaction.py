"""Compaction: the files of a space without the rows of removed images.

In: a space. Out: the same space under a new id, whose files hold the rows of its images alone, in order. A
space's folder bears its id: the new files lie beside the old ones until SQL names them, in one commit; a kill
before leaves a folder that is no space's, which goes when the workspace is opened next. FAISS files lie in
the old folder and go with it: `curator index` or the next query makes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, insert, select, update

from store.models import IndexedImage, SpaceRow
from store.records import Ints, SpaceShape
from store.session import table
from store.vectors.codes import Column, columns, folder_name
from store.vectors.files import ColumnFile
from store.vectors.places import FACT, KINDS, NOBODY, PlaceReader, Places

IMAGES = 5000  # images whose rows are copied, or inserted, at a time


def compacted(
    connection: Connection, reader: PlaceReader, vectors: Path, space: Any, shape: SpaceShape
) -> list[ColumnFile]:
    """Copy a space and take its place; returns the files that were written, which are not synced yet.

    Args:
        reader: of places. vectors: the folder of all spaces. space: its row of SQL.
    """
    row = {**space._mapping, "name": f"{space.name} (compacted)"}
    row["facts"] = {name: value for name, value in space.facts.items() if name != FACT}
    del row["id"]
    made = connection.execute(insert(table(SpaceRow)).returning(SpaceRow.id), row)
    number = int(made.scalar_one())
    old, new = (vectors / folder_name(i, space.name) for i in (space.id, number))
    written = []
    for kind in KINDS:
        places = reader.read(connection, space, kind)
        live = np.flatnonzero(places.image_ids != NOBODY).astype(np.int64)
        for column in columns(shape, kind):
            if len(live):
                written.append(column.file(new, kind))
                _copy(column, column.file(old, kind), written[-1], places, live)
        _insert(connection, space.id, number, KINDS[kind], places, live)
    connection.execute(delete(IndexedImage).where(IndexedImage.space_id == space.id))
    connection.execute(delete(SpaceRow).where(SpaceRow.id == space.id))
    connection.execute(update(SpaceRow).where(SpaceRow.id == number).values(name=space.name))
    return written


def _copy(column: Column, source: ColumnFile, target: ColumnFile, places: Places, live: Ints) -> None:
    """Copy the rows of images at `live` places."""
    count, end = places.committed(column.group), 0
    for part in _parts(live):
        candidates = column.group == "candidates"
        rows = part if column.group == "images" else places.rows(part, candidates=candidates)
        target.write(end, source.read(rows, count))
        end += len(rows)


def _insert(
    connection: Connection, old: int, new: int, kind: int, places: Places, live: Ints
) -> None:
    """The rows of SQL: the old ones with their new places."""
    firsts = [np.cumsum(counts[live]) - counts[live] for counts in (places.boxes, places.candidates)]
    for start, part in zip(range(0, len(live), IMAGES), _parts(live), strict=True):
        query = select(table(IndexedImage)).where(
            IndexedImage.space_id == old,
            IndexedImage.kind == kind,
            IndexedImage.place.between(int(part[0]), int(part[-1])),
        )
        found = connection.execute(query.order_by(IndexedImage.place)).all()
        rows = [
            {
                **row._mapping,
                "space_id": new,
                "place": start + i,
                "first_box": int(firsts[0][start + i]),
                "first_candidate": int(firsts[1][start + i]),
            }
            for i, row in enumerate(found)
        ]
        connection.execute(insert(table(IndexedImage)), rows)


def _parts(live: Ints) -> Iterator[Ints]:
    for start in range(0, len(live), IMAGES):
        yield live[start : start + IMAGES]
