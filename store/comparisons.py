"""How unlike pairs of stored pictures were found, so that a pair is compared once in a workspace's life.

In: image ids. Out: numbers (`store.likeness.unlikeness`). A cache: where it cannot be written (a read-only
workspace, another process that is writing) pairs are compared anew the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import OperationalError

from store.likeness import MEASURE
from store.models import ComparisonRow
from store.session import Database, chunks, upsert

Pair = tuple[int, int, bool]
"""(smaller id, larger id, is one of them mirrored)."""


class Comparisons:
    """What is known of a few images at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[Pair, float] = {}
        self._new: list[dict[str, Any]] = []
        self._open: Sequence[int] = ()

    def load(self, ids: Sequence[int]) -> None:
        """Store what was found since the last time, and forget it; what is known of these images is read when
        one of them is asked about."""
        self._store()
        self._known, self._open = {}, ids

    def _read(self) -> None:
        ids, self._open = self._open, ()
        with self._database.reading() as connection:
            for part in chunks(ids, 2000):
                found = connection.execute(
                    select(
                        ComparisonRow.image_a,
                        ComparisonRow.image_b,
                        ComparisonRow.mirrored,
                        ComparisonRow.unlikeness,
                    ).where(
                        ComparisonRow.measure == MEASURE,
                        or_(ComparisonRow.image_a.in_(part), ComparisonRow.image_b.in_(part)),
                    )
                )
                self._known.update({(a, b, bool(mirrored)): value for a, b, mirrored, value in found})

    def known(self, one: int, other: int, mirrored: bool) -> float | None:
        """How unlike two images are, None where they were not compared."""
        if len(self._open):
            self._read()
        return self._known.get((min(one, other), max(one, other), mirrored))

    def put(self, one: int, other: int, mirrored: bool, unlikeness: float) -> None:
        """Remember how unlike two images are; stored at the next `load` or `close`."""
        a, b = min(one, other), max(one, other)
        self._known[a, b, mirrored] = unlikeness
        self._new.append(
            {
                "image_a": a,
                "image_b": b,
                "mirrored": mirrored,
                "measure": MEASURE,
                "unlikeness": unlikeness,
            }
        )

    def close(self) -> None:
        """Store what was found, and forget it."""
        self._store()
        self._known, self._open = {}, ()

    def _store(self) -> None:
        rows, self._new = self._new, []
        if not rows or self._database.read_only is not None:
            return
        key = ("image_a", "image_b", "mirrored", "measure")
        try:
            with self._database.writing(wait=False) as connection:
                upsert(connection, ComparisonRow, rows, unique=key, update=())
        except OperationalError:  # another process is writing
            return
