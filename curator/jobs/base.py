"""The executor seam: workers compute, the driver alone writes to the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Done:
    """An item's result."""

    key: str
    item: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that could not be processed, and why (one line)."""

    key: str
    item: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Stands for the result that an item has not, with the reason (one line): what a worker sends home."""

    reason: str


class Work(Protocol):
    """Work that can start on another machine: importable by name, its arguments plain."""

    batch_size: int

    def key(self, item: Any) -> str:
        """The item's content key."""

    def setup(self, device: str) -> Any:
        """Load models once per worker."""

    def process(self, state: Any, batch: Sequence[Any]) -> list[Any]:
        """One result per item, in order; an item's own trouble is returned as an exception object."""


class Executor(Protocol):
    """Runs work."""

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        """Yield finished batches, so that the driver commits batch by batch."""
