"""Build an index, continue a killed build, and bring an index up to its rows.

Rows are added to a shard in memory in pieces; after each the shard is written and the header renamed, so that
a killed build goes on from its last piece. Pieces grow with the shard, so that all writing together is a few
times the index.

An index that exists takes new rows without being trained anew, until the rows are `plan.GROWTH` times as
many as when it was. Few new rows make a shard of their own; a shard less than twice as large as what comes
after it takes it in, so that there are at most a few and each row is written a few times.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curator.represent.index import files
from curator.represent.index.base import (
    CHUNK,
    Floats,
    IndexPlan,
    Ints,
    Kind,
    Metric,
    Progress,
    Rows,
    Shard,
    library,
)
from curator.represent.index.calibrate import measure
from curator.represent.index.files import File, Header
from curator.represent.index.plan import GROWTH, SAMPLE

PIECE = 500_000
"""Rows between two saves, at least."""
_PIECE_SHARE = 4  # a piece is at least this part of its shard
_MEASURE_AGAIN = 1.25  # growth from which recall is measured again


@dataclass(slots=True, kw_only=True)
class State:
    """An index in memory with what its files hold."""

    header: Header
    shards: list[Shard] = field(default_factory=list)
    trained: Any = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Brings the files of a folder up to the rows.

    Args:
        folder: None keeps the index in memory alone.
        shard_rows: rows of a shard at most; 0: no bound.
        dead: the file of dead rows that stays the folder's.
    """

    rows: Rows
    folder: Path | None
    kind: Kind
    plan: IndexPlan
    metric: Metric
    seed: int
    shard_rows: int = 0
    dead: File | None = None
    progress: Progress | None = None

    def load(self) -> State | None:
        """What the folder holds of these rows; None where that is nothing, or of other rows.

        A damaged shard is made again from the rows; a damaged trained index counts as nothing.
        """
        header = None if self.folder is None else files.read_header(self.folder)
        if self.folder is None or header is None or not self._fits(header):
            return None
        if not self.kind.stored:
            return State(header=header)
        if header.trained is None:
            return None
        trained = files.load_index(self.folder, header.trained, self.kind, mapped=False)
        if trained is None:
            return None
        state = State(header=header, trained=trained)
        for file in header.shards:
            index = files.load_index(self.folder, file, self.kind, mapped=self.plan.mapped)
            if index is None:
                index = self._again(state, file)
            state.shards.append(_shard(header.generation, file.first, index))
        return state

    def _fits(self, header: Header) -> bool:
        """True where a header tells of an index of this kind over the first of these rows."""
        return (
            (header.kind, header.metric) == (self.kind.name, self.metric)
            and self.rows.count <= max(header.planned * GROWTH, 1)
            and files.same_rows(header, self.rows)
        )

    def _again(self, state: State, file: File) -> Any:
        """A shard whose file is lost, from the rows."""
        assert self.folder is not None
        started = time.perf_counter()
        index = _copy(state.trained)
        self._add(index, file.first, file.end)
        saved = files.save_index(self.folder, file.name, index, first=file.first, end=file.end)
        shards = tuple(saved if shard.name == file.name else shard for shard in state.header.shards)
        state.header = dataclasses.replace(state.header, shards=shards)
        files.write_header(self.folder, state.header)
        state.seconds += time.perf_counter() - started
        del index
        return self._reopened(saved)

    def train(self) -> State:
        """An index without rows, trained on a sample."""
        started = time.perf_counter()
        count = self.rows.count
        sample, generation = min(count, SAMPLE), uuid.uuid4().hex[:12]
        trained, file = None, None
        if self.kind.stored:
            random = np.random.default_rng([self.seed, count])
            places = np.sort(random.choice(count, sample, replace=False))
            trained = self.kind.train(
                self._sampled(places),
                self.plan.parameters,
                dimension=self.rows.dimension,
                metric=self.metric,
                seed=self.seed,
            )
            if self.folder is not None:
                file = files.save_index(self.folder, f"{generation}-trained.faiss", trained)
        header = Header(
            kind=self.kind.name,
            metric=self.metric,
            dimension=self.rows.dimension,
            parameters=dict(self.plan.parameters),
            generation=generation,
            rows=0,
            digest=files.digest(self.rows, 0),
            planned=count,
            sample=sample,
            trained=file,
            shards=(),
            dead=self.dead,
            partial=True,
            efforts=(),
            queries=0,
            measured_at=0,
        )
        return State(header=header, trained=trained, seconds=time.perf_counter() - started)

    def _sampled(self, places: Ints) -> Floats:
        """Rows by rising number as the kind is trained on them: (n, D), or longer with zeros.

        Read in blocks: what a row is read from takes several times its memory.
        """
        dimension = self.rows.dimension
        longer = self.kind.sample_dimension(self.plan.parameters, dimension=dimension)
        found = np.zeros((len(places), longer), np.float32)
        for first in range(0, len(places), CHUNK):
            found[first : first + CHUNK, :dimension] = self.rows.read(places[first : first + CHUNK])
        return found

    def extend(self, state: State) -> None:
        """Add the rows that the index does not hold yet, and measure where it has grown or was not done."""
        started = time.perf_counter()
        if not self.kind.stored:
            done = dataclasses.replace(state.header, partial=False)
            self._write(state, done, rows=self.rows.count)
            return
        while state.header.rows < self.rows.count:
            self._next_shard(state)
        if state.shards and (
            not state.header.efforts or self.rows.count > _MEASURE_AGAIN * state.header.measured_at
        ):
            efforts, queries = measure(self.kind, state.shards, self.rows, metric=self.metric, seed=self.seed)
            state.header = dataclasses.replace(
                state.header, efforts=tuple(efforts), queries=queries, measured_at=self.rows.count
            )
        self._write(state, dataclasses.replace(state.header, partial=False), rows=self.rows.count)
        state.seconds += time.perf_counter() - started

    def _next_shard(self, state: State) -> None:
        """Fill one shard: the last one, where it is to take in what comes, or a new one."""
        first, index = self._base(state)
        end = self.rows.count if not self.shard_rows else min(self.rows.count, first + self.shard_rows)
        while True:
            held = first + index.ntotal
            upto = min(end, held + max(PIECE, int(index.ntotal) // _PIECE_SHARE))
            self._add(index, held, upto)
            kept = [file for file in state.header.shards if file.end <= first]
            if self.folder is not None:
                name = f"{state.header.generation}-{first:012d}-{upto:012d}.faiss"
                kept.append(files.save_index(self.folder, name, index, first=first, end=upto))
            header = dataclasses.replace(state.header, shards=tuple(kept), partial=True)
            self._write(state, header, rows=upto)
            if upto == end:
                break
        if self.folder is not None:
            del index  # before its file is read
            index = self._reopened(state.header.shards[-1])
        state.shards.append(_shard(state.header.generation, first, index))

    def _base(self, state: State) -> tuple[int, Any]:
        """(first row, FAISS index in memory) to add to; shards that it takes in leave `state.shards`."""
        coming, taken = self.rows.count - state.header.rows, None
        while state.shards:
            last = state.shards[-1]
            full = bool(self.shard_rows) and last.count >= self.shard_rows
            if full or not ((state.header.partial and taken is None) or last.count < 2 * coming):
                break
            coming += last.count
            taken = state.shards.pop()
        if taken is None:
            return state.header.rows, _copy(state.trained)
        # FAISS index of a mapped file cannot be added to: a copy in memory can.
        if self.plan.mapped and self.folder is not None:
            file = next(file for file in state.header.shards if file.first == taken.first)
            return taken.first, self.kind.load(str(self.folder / file.name), mapped=False)
        return taken.first, taken.index

    def _add(self, index: Any, first: int, end: int) -> None:
        if first >= end:
            return
        for start, block in self.rows.chunks(first, size=CHUNK):
            part = block[: end - start]
            self.kind.add(index, np.ascontiguousarray(part, np.float32), start)
            if self.progress is not None:
                self.progress(start + len(part), self.rows.count)
            if start + len(block) >= end:
                return

    def _reopened(self, file: File) -> Any:
        """An index as its file holds it: without the room that lists leave for growth, or mapped."""
        assert self.folder is not None
        return self.kind.load(str(self.folder / file.name), mapped=self.plan.mapped)

    def _write(self, state: State, header: Header, *, rows: int) -> None:
        state.header = dataclasses.replace(header, rows=rows, digest=files.digest(self.rows, rows))
        if self.folder is not None:
            files.write_header(self.folder, state.header)


def _shard(generation: str, first: int, index: Any) -> Shard:
    return Shard(first=first, index=index, key=f"{generation}-{first}-{first + int(index.ntotal)}")


def _copy(trained: Any) -> Any:
    faiss = library()
    return faiss.deserialize_index(faiss.serialize_index(trained))
