"""An index over numbered rows: open it, ask it, delete from it.

    index = open_index(rows, folder)
    scores, numbers = index.search(queries, 100, allowed=Allowed.of_ranges(first, count, total=rows.count))

A search gets candidates from FAISS and rescores them exactly with the rows. It scans the rows instead where a
filter leaves few of them (`Kind.exact_share`, `EXACT_ROWS`), and for queries that got fewer rows than there
are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from curator.errors import StageError
from curator.registry import INDEXES
from curator.represent.index import files
from curator.represent.index.allowed import Allowed
from curator.represent.index.base import Built, Floats, IndexPlan, Ints, Kind, Metric, Progress, Rows
from curator.represent.index.base import check_queries as _check
from curator.represent.index.build import Builder, State
from curator.represent.index.calibrate import factor, widths
from curator.represent.index.exact import rescore, scan
from curator.represent.index.files import File
from curator.represent.index.plan import GROWTH, PLANNED
from curator.represent.index.plan import plan as make_plan

EXACT_ROWS = 20_000
"""Allowed rows up to which they are scanned exactly whatever the index: about where both take as long
(benchmarks/index_scale.py)."""


def open_index(
    rows: Rows,
    folder: Path | None = None,
    *,
    metric: Metric = "ip",
    plan: IndexPlan | None = None,
    memory_bytes: int | None = None,
    dead: ArrayLike | None = None,
    seed: int = 0,
    shard_rows: int = 0,
    exact_rows: int = EXACT_ROWS,
    progress: Progress | None = None,
) -> RowIndex:
    """The index of these rows: loaded where the folder holds it, brought up to new rows, or built.

    Files that are absent, damaged, of other rows or of rows that are no more are made again from the rows. A
    build that was killed goes on.

    Args:
        folder: of the FAISS files of this view and metric; nothing else may lie there. None: memory alone.
        plan: None: by size and memory (`plan.plan`), and an index of the folder that still serves stays.
        memory_bytes: for the plan.
        dead: numbers of the rows that are never returned; None: those that the folder remembers. Who deletes
            rows keeps their numbers, as a folder can be lost.
        shard_rows: rows of a file at most; 0: as planned.
        exact_rows: rows up to which a search scans them.
        progress: called while rows are added.

    Raises:
        InputError: a plan that cannot be. StageError: the folder's list of dead rows is damaged and none was
            given.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if plan is None:
            plan = _plan(rows, folder, metric, memory_bytes)
        kind: Kind = INDEXES.load(plan.kind)()
        file, numbers = _remembered(folder, rows)
        if dead is not None:
            numbers = np.unique(np.asarray(dead, np.int64))
        builder = Builder(
            rows=rows,
            folder=folder,
            kind=kind,
            plan=plan,
            metric=metric,
            seed=seed,
            shard_rows=shard_rows or plan.parameters.get("shard_rows", 0),
            dead=file,
            progress=progress,
        )
        state = builder.load() or builder.train()
        if state.header.partial or state.header.rows < rows.count:
            builder.extend(state)
        if numbers is None:
            raise StageError(
                f"{folder}: expected the file of dead rows that the header names, got none or a damaged one; "
                "open the index with the dead rows named (dead=...)"
            )
        index = RowIndex(rows, folder, kind, plan, state, exact_rows)
        index.bury(numbers)
    return index


class RowIndex:
    """See `open_index`, which makes it."""

    def __init__(
        self, rows: Rows, folder: Path | None, kind: Kind, plan: IndexPlan, state: State, exact_rows: int
    ) -> None:
        self.plan = plan
        self._exact_rows = exact_rows
        self._rows, self._folder, self._kind, self._state = rows, folder, kind, state
        self._count = state.header.rows
        self._dead: Ints = np.zeros(0, np.int64)
        self._alive: Allowed | None = None
        self._last: tuple[Allowed, Allowed] | None = None

    @property
    def count(self) -> int:
        """Rows that it holds, dead ones included."""
        return self._count

    @property
    def facts(self) -> Built:
        """What is known of it."""
        header, shards = self._state.header, self._state.shards
        named = [file for file in (header.trained, header.dead, *header.shards) if file is not None]
        resident = sum(self._kind.resident_bytes(s.index, mapped=self.plan.mapped) for s in shards)
        return Built(
            kind=header.kind,
            metric=header.metric,
            count=self._count,
            dimension=header.dimension,
            dead=len(self._dead),
            shards=len(shards),
            sample=header.sample,
            seconds=self._state.seconds,
            resident_bytes=resident + 8 * len(self._dead),
            disk_bytes=sum(file.size for file in named),
            recall=header.efforts[0].recall if header.efforts else 1.0,
            queries=header.queries,
            measured_at=header.measured_at,
            efforts=header.efforts,
        )

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Allowed | ArrayLike | None = None
    ) -> tuple[Floats, Ints]:
        """The k nearest rows of each query.

        Args:
            queries: (Q, D) or (D,).
            allowed: the only rows that may be returned: `Allowed`, a boolean mask (N,), or row numbers. Make
                an `Allowed` once for many searches. None: all but dead ones.

        Returns:
            scores (Q, k) float32, exact, best first: inner products, or squared distances; rows (Q, k), -1
            where fewer exist (score -inf, or inf for distances).

        Raises:
            InputError: shapes that do not fit, values that are not finite, rows that do not exist.
        """
        asked = _check(queries, self._rows.dimension, k)
        filtered = self._filter(allowed)
        size = self._count if filtered is None else filtered.size
        metric = self._state.header.metric
        if self._scans(size, k):
            every = Allowed.of_ranges(0, self._count, total=self._count) if filtered is None else filtered
            return scan(self._rows, asked, k, metric=metric, allowed=every if self._older() else filtered)
        efforts, shards = self._state.header.efforts, self._state.shards
        most = self._kind.widths(shards[0].index)[-1]
        candidates = self._kind.candidates(
            shards,
            asked,
            min(factor(efforts, k) * max(k, efforts[0].rank), size),
            k=k,
            width=widths(efforts, count=self._count, most=most),
            allowed=filtered,
        )
        scores, found = rescore(self._rows, asked, candidates, k, metric=metric)
        short = np.flatnonzero((found >= 0).sum(1) < min(k, size))
        if len(short):
            scores[short], found[short] = scan(self._rows, asked[short], k, metric=metric, allowed=filtered)
        return scores, found

    def delete(self, rows: ArrayLike) -> None:
        """Never return these rows again. They stay in the files until the index is trained anew.

        Raises:
            InputError: a row that does not exist.
        """
        numbers = np.union1d(self._dead, np.asarray(rows, np.int64))
        with _alone(self._folder):
            self.bury(numbers)

    def bury(self, dead: Ints) -> None:
        """Make these rows, by rising number, the dead ones, here and in the folder."""
        alive = Allowed.of_ids(dead, total=self._count)  # refuses rows that do not exist
        header = self._state.header
        if self._folder is not None and not files.holds_dead(self._folder, header.dead, dead):
            file = files.save_dead(self._folder, header.generation, dead)
            self._state.header = dataclasses.replace(header, dead=file)
            files.write_header(self._folder, self._state.header)
        self._dead, self._last = dead, None
        self._alive = Allowed(~alive.mask) if len(dead) else None

    def _older(self) -> bool:
        """True where the rows have grown since the index was opened."""
        return self._rows.count > self._count

    def _scans(self, size: int, k: int) -> bool:
        if not self._kind.stored or not self._state.shards:
            return True
        few = max(self._exact_rows, math.floor(self._kind.exact_share * self._count))
        return size <= few or 2 * k >= size

    def _filter(self, allowed: Allowed | ArrayLike | None) -> Allowed | None:
        if allowed is None:
            return self._alive
        found = Allowed.of(allowed, total=self._count)
        if not len(self._dead):
            return found
        if self._last is None or self._last[0] is not found:
            self._last = (found, found.without(self._dead))
        return self._last[1]


def _plan(rows: Rows, folder: Path | None, metric: Metric, memory_bytes: int | None) -> IndexPlan:
    """By size and memory; an index of the folder that still serves stays."""
    fresh = make_plan(rows.count, rows.dimension, memory_bytes=memory_bytes)
    header = None if folder is None else files.read_header(folder)
    if header is None or header.metric != metric or rows.count > GROWTH * header.planned:
        return fresh
    if "flat" in (fresh.kind, header.kind) or header.kind not in PLANNED:
        return fresh
    kept = make_plan(rows.count, rows.dimension, memory_bytes=memory_bytes, kind=header.kind)
    shards = {name: value for name, value in kept.parameters.items() if name == "shard_rows"}
    return dataclasses.replace(kept, parameters={**header.parameters, **shards})


def _remembered(folder: Path | None, rows: Rows) -> tuple[File | None, Ints | None]:
    """The dead rows that the folder remembers of these rows: file and numbers, None where it is damaged."""
    header = None if folder is None else files.read_header(folder)
    if folder is None or header is None or header.dead is None or not files.same_rows(header, rows):
        return None, np.zeros(0, np.int64)
    return header.dead, files.load_dead(folder, header.dead)


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Let one process at a time write to a folder; others wait."""
    if folder is None:
        yield
        return
    import fcntl

    with open(folder / "index.lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
