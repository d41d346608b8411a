"""Run work in this process, batch by batch.

A batch that raises is tried again item by item, so that one bad item does not stop the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from curator.errors import one_line
from curator.jobs.base import Done, Failed, Work


class LocalExecutor:
    """Runs work in the calling process.

    Args:
        device: as `curator.tensors.resolve_device` understands it.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        """Yield finished batches in order."""
        source = iter(items)
        batch = list(islice(source, work.batch_size))
        if not batch:
            return
        state = work.setup(self.device)
        while batch:
            yield _process(work, state, batch)
            batch = list(islice(source, work.batch_size))


def _process(work: Work, state: Any, batch: list[Any]) -> list[Done | Failed]:
    try:
        results = work.process(state, batch)
    except Exception as error:
        if len(batch) == 1:
            return [Failed(work.key(batch[0]), batch[0], one_line(error))]
        return [result for item in batch for result in _process(work, state, [item])]
    return [
        Failed(work.key(item), item, one_line(value))
        if isinstance(value, Exception)
        else Done(work.key(item), item, value)
        for item, value in zip(batch, results, strict=True)
    ]
