"""The worker processes of a cluster.

In: a `Cluster`, how many and with which device. Out: `Held` workers, started one by one and ended one by one.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curator.errors import InputError
from curator.jobs.cluster import Cluster
from curator.jobs.worker import Ready, Worker

if TYPE_CHECKING:
    from curator.jobs.dispatch import Flight


@dataclass(eq=False, slots=True)
class Held:
    """A worker as the driver sees it.

    Attributes:
        digest: of the work that it has, or is to have. preparing: the call that sets it up, until it is back.
        ready: None until then. old: it was ready once, perhaps for another work.
        flights: its batches, the first of which it processes.
    """

    actor: Any
    digest: str = ""
    preparing: Any = None
    ready: Ready | None = None
    old: bool = False
    flights: deque[Flight] = field(default_factory=deque)

    @property
    def host(self) -> str:
        """For people."""
        return self.ready.host if self.ready else "a worker"


class Pool:
    """At most `size` workers, each with one CPU, and a GPU where the cluster has any and `device` allows it.

    Args:
        actors: None for as many as the cluster has GPUs, or CPUs where no GPU is used.
    Raises:
        InputError: more actors than that, or cuda where the cluster has no GPU.
    """

    def __init__(self, cluster: Cluster, *, device: str, actors: int | None) -> None:
        self.ray = cluster.ray
        self._cluster = cluster
        cpus, gpus = cluster.count("CPU"), cluster.count("GPU")
        if device == "cuda" and not gpus:
            raise InputError("--device cuda: the Ray cluster has no GPU; use --device auto or cpu")
        self.gpus = device in ("cuda", "auto") and gpus > 0
        most, what = (min(cpus, gpus), "GPUs") if self.gpus else (cpus, "CPUs")
        if actors is not None and actors > most:
            raise InputError(
                f"--executor ray: expected at most {most} actors, one for each of its {what}, got {actors}"
            )
        if most < 1:
            raise InputError("--executor ray: expected a cluster with one CPU or more, got none")
        self.size = actors or most
        alone = "auto" if sys.platform == "darwin" else "cpu"
        self.device = "cuda" if self.gpus else alone if device == "auto" else device
        self.workers: list[Held] = []
        self._kind = self.ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=1 if self.gpus else 0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )

    def start(self) -> Held:
        """Start a worker; where the cluster has no room yet it waits there."""
        held = Held(self._kind.remote())
        self.workers.append(held)
        return held

    def end(self, held: Held) -> None:
        """End a worker, whatever it does."""
        self.workers.remove(held)
        held.flights.clear()
        held.preparing = None
        with suppress(Exception):  # of a cluster that is gone itself: then so is the worker
            self.ray.kill(held.actor, no_restart=True)

    def close(self) -> None:
        """End all workers."""
        for held in list(self.workers):
            self.end(held)

    def node_died(self, held: Held, error: Exception) -> bool:
        """Was it the node that died, or the way to it, rather than the worker alone?"""
        unavailable = isinstance(error, self.ray.exceptions.ActorUnavailableError)
        return unavailable or (held.ready is not None and not self._cluster.alive(held.ready.node))
