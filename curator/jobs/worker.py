"""What runs in a worker process of a cluster: one work with its models, batch after batch.

In: a `Work` and batches of its items. Out: values and `Trouble`s, as `curator.jobs.local.attempt` gives them.
Imports no torch: the work does what it needs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator import __version__
from curator.errors import one_line
from curator.jobs.base import Work
from curator.jobs.local import attempt


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that can process: on which host and node of the cluster, as which process."""

    host: str
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a worker cannot process (one line), and the exit code of it (`curator.errors`)."""

    reason: str
    exit_code: int


class Worker:
    """Holds one work and its state; a second `prepare` replaces the first."""

    def __init__(self) -> None:
        self._work: Work | None = None
        self._state: Any = None

    def prepare(self, work: Work, device: str, folder: str, version: str) -> Ready | Refused:
        """Set `work` up.

        Args:
            folder: relative paths count from it, as they do where the command was given; where this machine
                has no such folder they count from wherever the worker was started.
            version: of curator where the command was given; others may store other results.
        """
        host = platform.node() or "a worker"
        if version != __version__:
            return Refused(
                f"expected curator {version} on {host} too, got {__version__}; install the same", 2
            )
        if Path(folder).is_dir():
            os.chdir(folder)
        self._work = self._state = None  # what was held before makes room first
        try:
            self._state = work.setup(device)
        except Exception as error:
            return Refused(f"{one_line(error)} (on {host})", int(getattr(error, "exit_code", 1)))
        self._work = work
        return Ready(host, _node(), os.getpid())

    def process(self, batch: Sequence[Any]) -> list[Any]:
        """A value or a `Trouble` per item, in order."""
        if self._work is None:
            raise RuntimeError("expected a call of `prepare` first")
        return attempt(self._work, self._state, batch)


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
