"""Run work in this process, batch by batch.

A batch that raises is tried again item by item, so that one bad item does not stop the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from curator.errors import one_line
from curator.jobs.base import Done, Failed, Trouble, Work


class LocalExecutor:
    """Runs work in the calling process.

    Args:
        device: as `curator.tensors.resolve_device` understands it.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        """Yield finished batches in order."""
        batches = batched(items, work.batch_size)
        batch = next(batches, None)
        if batch is None:
            return
        state = work.setup(self.device)
        while batch is not None:
            yield paired(work, batch, attempt(work, state, batch))
            batch = next(batches, None)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size` items; an item is asked for when its batch is."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def attempt(work: Work, state: Any, batch: Sequence[Any]) -> list[Any]:
    """Process a batch, item by item where it raises as a whole.

    Returns:
        a value per item, in order; a `Trouble` where there is none.
    Raises:
        ValueError: the work gave more or fewer results than items.
    """
    try:
        results = work.process(state, batch)
    except Exception as error:
        if len(batch) == 1:
            return [Trouble(one_line(error))]
        return [result for item in batch for result in attempt(work, state, [item])]
    if len(results) != len(batch):
        raise ValueError(f"expected {len(batch)} results of {type(work).__name__}, got {len(results)}")
    return [Trouble(one_line(value)) if isinstance(value, Exception) else value for value in results]


def paired(work: Work, batch: Sequence[Any], values: Sequence[Any]) -> list[Done | Failed]:
    """What `attempt` gave, with the items and their keys."""
    return [
        Failed(work.key(item), item, value.reason)
        if isinstance(value, Trouble)
        else Done(work.key(item), item, value)
        for item, value in zip(batch, values, strict=True)
    ]
