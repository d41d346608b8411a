"""One run of a work over the workers of a pool: who gets which batch, and what is done when one is lost.

In: a work, batches of items as a generator, a `Pool`. Out: every item once, as `Done` or `Failed`.

A worker has two batches at most: one that it processes and one that waits for it, so that it is busy while
the driver stores. What happens when something goes wrong:

- An item raises: it alone has failed, at once, as in this process.
- A worker process dies, or takes longer than `timeout` times its items: each item of the batch that it worked
  on is tried once more, alone on a worker that has nothing else; what fails there has failed. Alone, because
  a process that dies may take the answer of the batch before with it: whose fault it was is known only then.
- A node dies: nobody's fault, its batches are done again elsewhere; a batch under which three nodes die
  counts as one that kills.
- The batch that waited for a lost worker goes back to the queue as it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from curator import __version__
from curator.errors import InputError, StageError
from curator.jobs.base import Done, Failed, Work
from curator.jobs.local import paired
from curator.jobs.pool import Held, Pool
from curator.jobs.worker import Ready, Refused

IN_FLIGHT = 2  # batches per worker
NODES = 3  # nodes that may die under a batch before its items are suspected
IN_A_ROW = 50  # lost workers without a finished batch between: the work itself is broken then
STARTS = 2  # workers in a row, beyond the size of the pool, that die while they set the work up
START = 600.0  # seconds without one worker that is set up
LOOK = 5.0  # seconds between looks at the clock


@dataclass(eq=False, slots=True)
class Entry:
    """An item on its way, and why it was not done when it was tried."""

    item: Any
    reasons: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Batch:
    """Items that are processed together; `alone`: one that is suspected. `nodes` have died under it."""

    entries: list[Entry]
    alone: bool = False
    nodes: int = 0

    @property
    def items(self) -> list[Any]:
        """What the work gets."""
        return [entry.item for entry in self.entries]


@dataclass(eq=False, slots=True)
class Flight:
    """A batch at a worker; `began`: when the worker had nothing before it any more."""

    batch: Batch
    ref: Any
    began: float | None


class Dispatch:
    """Hands out batches and collects results.

    Args:
        source: batches of items; one is asked for when a worker can take it.
        timeout: seconds per item; None for any time.
    """

    def __init__(self, pool: Pool, work: Work, source: Iterator[list[Any]], timeout: float | None) -> None:
        ray = pool.ray
        self._pool, self._work, self._source, self._timeout = pool, work, source, timeout
        plain = ray.cloudpickle.dumps(work)
        self._digest = hashlib.sha256(plain).hexdigest()
        self._shipped = ray.put(work)  # once, however many workers load it
        self._waiting: deque[Batch] = deque()
        self._alone: deque[Batch] = deque()
        self._in_a_row = self._starts = 0
        self._unstaffed = time.monotonic()
        self._over = False

    def results(self) -> Iterator[list[Done | Failed]]:
        """Finished batches, in the order in which they are done.

        Raises:
            InputError, StageError: what a worker says of the work when it sets it up; workers that only die.
        """
        try:
            while self._fill():
                for batch in self._collect():
                    yield batch
                    if self._over:
                        raise StageError("this run was ended: its executor was closed, or began another run")
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End workers that still process; idle ones keep what they loaded."""
        if self._over:
            return
        self._over = True
        for held in list(self._pool.workers):
            if held.preparing is not None or held.flights:
                self._pool.end(held)

    # ------------------------------------------------------------ handing out

    def _fill(self) -> bool:
        """Give workers what they can take; False when nothing is left to be done."""
        idle = [held for held in self._serving() if held.ready and not held.flights]
        while self._alone and idle:
            self._send(idle.pop(), self._alone.popleft())
        if not self._alone:  # else workers come to rest until one is free for it
            for depth in range(IN_FLIGHT):
                for held in self._serving():
                    if held.ready and len(held.flights) == depth and not _has_suspect(held):
                        batch = self._next()
                        if batch is None:
                            break
                        self._send(held, batch)
        self._staff()
        return bool(self._waiting or self._alone or any(held.flights for held in self._pool.workers))

    def _next(self) -> Batch | None:
        if self._waiting:
            return self._waiting.popleft()
        items = next(self._source, None)
        return None if items is None else Batch([Entry(item) for item in items])

    def _send(self, held: Held, batch: Batch) -> None:
        began = None if held.flights else time.monotonic()
        held.flights.append(Flight(batch, held.actor.process.remote(batch.items), began))

    def _serving(self) -> list[Held]:
        """Workers of this work, set up or about to be."""
        return [held for held in self._pool.workers if held.digest == self._digest]

    def _staff(self) -> None:
        """A worker for every batch, up to the size of the pool."""
        while len(serving := self._serving()) < self._pool.size:
            busy = sum(bool(held.flights) for held in serving)
            if busy + len(self._waiting) + len(self._alone) <= len(serving):
                batch = self._next()
                if batch is None:
                    return
                self._waiting.append(batch)
            spare = next((held for held in self._pool.workers if held.digest != self._digest), None)
            held = spare or self._pool.start()
            held.digest, held.ready = self._digest, None
            held.preparing = held.actor.prepare.remote(
                self._shipped, self._pool.device, os.getcwd(), __version__
            )

    # ------------------------------------------------------------ collecting

    def _collect(self) -> list[list[Done | Failed]]:
        """Wait until something comes back, or a worker is overdue."""
        ray = self._pool.ray
        heads = {}  # of each worker what it does first: the rest cannot come before it
        for held in self._pool.workers:
            if held.preparing is not None:
                heads[held.preparing] = held
            elif held.flights:
                heads[held.flights[0].ref] = held
        refs = list(heads)
        ray.wait(refs, num_returns=1, timeout=self._patience())
        now = time.monotonic()
        back = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        found: list[list[Done | Failed]] = []
        for ref, held in heads.items():
            if ref in back and held.preparing is not None:
                self._prepared(held)
            elif ref in back:
                found.append(self._returned(held))
            elif self._left(held, now) <= 0:
                found.append(self._overdue(held))
        self._check_staff(now)
        return [batch for batch in found if batch]

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min([LOOK, *(self._left(held, now) for held in self._pool.workers)]))

    def _left(self, held: Held, now: float) -> float:
        """Seconds that a worker still has for what it does."""
        began = held.flights[0].began if held.flights else None
        if self._timeout is None or began is None:
            return LOOK
        return began + self._timeout * len(held.flights[0].batch.entries) - now

    def _prepared(self, held: Held) -> None:
        ray, name = self._pool.ray, type(self._work).__name__
        try:
            answer: Ready | Refused = ray.get(held.preparing)
        except ray.exceptions.RayActorError as error:
            self._pool.end(held)
            gone = held.old or isinstance(error, ray.exceptions.ActorUnavailableError)
            self._starts += not gone  # one that died since its last run, or with its node, says nothing
            if self._starts >= self._pool.size + STARTS:
                raise StageError(
                    f"{self._starts} workers in a row died while they set {name} up: {brief(error)}"
                ) from error
            return
        except ray.exceptions.RayError as error:
            raise StageError(f"a worker could not set {name} up: {brief(error)}") from error
        if isinstance(answer, Refused):
            raise (InputError if answer.exit_code == 2 else StageError)(answer.reason)
        held.preparing, held.ready, held.old = None, answer, True
        self._starts = 0

    def _check_staff(self, now: float) -> None:
        if any(held.ready for held in self._serving()):
            self._unstaffed = now
        elif now - self._unstaffed > START:
            wanted = "1 GPU and 1 CPU" if self._pool.gpus else "1 CPU"
            raise StageError(
                f"no worker was ready within {START:g} s: the cluster has not {wanted} free, or the models "
                "take longer to load"
            )

    def _returned(self, held: Held) -> list[Done | Failed]:
        ray, batch = self._pool.ray, held.flights[0].batch
        try:
            values = ray.get(held.flights[0].ref)
        except ray.exceptions.RayTaskError as error:  # the worker lives, but had no answer that can be sent
            self._landed(held)
            return self._suspect(batch, brief(error))
        except ray.exceptions.RayError as error:
            if self._pool.node_died(held, error):
                return self._lost(held, "its node died", fault=False)
            return self._lost(held, f"its worker process died on {held.host} (crash, exit or out of memory)")
        self._landed(held)
        self._in_a_row = 0
        return paired(self._work, batch.items, values)

    def _landed(self, held: Held) -> None:
        held.flights.popleft()
        if held.flights:
            held.flights[0].began = time.monotonic()

    # ------------------------------------------------------------ losses

    def _overdue(self, held: Held) -> list[Done | Failed]:
        return self._lost(held, f"it took longer than {self._timeout:g} s on {held.host}")

    def _lost(self, held: Held, why: str, *, fault: bool = True) -> list[Done | Failed]:
        """A worker is gone, or is ended for taking too long."""
        batch, *behind = [flight.batch for flight in held.flights]
        self._pool.end(held)
        self._waiting.extendleft(reversed(behind))
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise StageError(
                f"{IN_A_ROW} workers in a row were lost without one finished batch; the last: {why}"
            )
        batch.nodes += not fault
        if fault or batch.nodes >= NODES:
            return self._suspect(batch, why)
        (self._alone if batch.alone else self._waiting).appendleft(batch)
        return []

    def _suspect(self, batch: Batch, why: str) -> list[Done | Failed]:
        """Items tried once are tried again, each alone; those tried again have failed."""
        failed: list[Done | Failed] = []
        for entry in batch.entries:
            entry.reasons.append(why)
            if len(entry.reasons) > 1:
                failed.append(Failed(self._work.key(entry.item), entry.item, told(entry.reasons)))
            else:
                self._alone.append(Batch([entry], alone=True))
        return failed


def told(reasons: list[str]) -> str:
    """Why an item failed that was tried twice: one line."""
    first, second = reasons
    return f"{first}, and again when tried alone" if first == second else f"{first}; tried alone: {second}"


def brief(error: Exception) -> str:
    """The line of a Ray error that says what it was about."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return " ".join(f"{type(cause).__name__}: {cause}".split())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _has_suspect(held: Held) -> bool:
    return any(flight.batch.alone for flight in held.flights)
