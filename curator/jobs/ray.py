"""Run work on many processes and machines, with Ray Core.

In: work whose class can be imported there, and items. Out: the batches that `LocalExecutor` gives, in the
order in which they are done. Workers compute; rows are written by the process that reads the results.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Self

from curator.jobs.base import Done, Failed, Work
from curator.jobs.cluster import Cluster
from curator.jobs.dispatch import Dispatch
from curator.jobs.local import batched
from curator.jobs.pool import Pool

TIMEOUT = 600.0  # seconds per item


class RayExecutor:
    """Runs work on a Ray cluster; the workers, and what they loaded, stay for the next run.

        with RayExecutor(actors=4) as executor:
            pipeline.index(store, IndexConfig(), executor=executor)

    Nothing is started before there is something to do.

    Args:
        address: HOST:PORT of a running cluster that this machine is part of, which is left running; None
            starts one on this machine, which ends with the executor.
        device: of each worker: auto, cpu, cuda or mps. A worker that may use a GPU gets one of its own.
        actors: worker processes, at most; None for one per GPU, or per CPU where no GPU is used.
        timeout: seconds that an item may take; None for any time.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        device: str = "auto",
        actors: int | None = None,
        timeout: float | None = TIMEOUT,
    ) -> None:
        self._address, self._device, self._actors, self._timeout = address, device, actors, timeout
        self._cluster: Cluster | None = None
        self._pool: Pool | None = None
        self._running: Dispatch | None = None

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        """Yield finished batches in any order; one run at a time.

        At most two batches per worker are asked for before their results are taken.

        Raises:
            InputError: the cluster cannot be joined; what a worker says of the work's settings.
            StageError: Ray does not start; workers cannot set the work up, or die one after the other.
        """
        batches = batched(items, work.batch_size)
        first = next(batches, None)
        if first is None:
            return
        if self._running is not None:
            self._running.abandon()  # a run that nobody reads any more
        self._running = Dispatch(self._workers(), work, chain([first], batches), self._timeout)
        yield from self._running.results()

    def _workers(self) -> Pool:
        if self._pool is None:
            if self._cluster is None:
                wants_gpus = self._device in ("auto", "cuda")
                self._cluster = Cluster(self._address, cpus=self._actors, gpus=wants_gpus)
                weakref.finalize(self, self._cluster.close)  # also where nobody calls `close`
            self._pool = Pool(self._cluster, device=self._device, actors=self._actors)
        return self._pool

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        if self._running is not None:
            self._running.abandon()
        pool, cluster = self._pool, self._cluster
        self._pool = self._cluster = self._running = None
        if pool is not None:
            pool.close()
        if cluster is not None:
            cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
