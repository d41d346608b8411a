"""Works that the tests hand to executors; a worker process imports them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curator.errors import InputError, StageError


@dataclass
class Doubling:
    """Doubles numbers, and says which process did it and how often that had set the work up.

    Attributes:
        log: a folder in which every set-up leaves a file. raises: items whose own exception is returned;
        explodes: items at which the whole batch raises. slow: seconds per batch.
        poison: items at which the process dies, each time. dies_once: the same, the first time only.
        stuck: items that take an hour. stuck_once: the same, the first time only.
    """

    log: str
    batch_size: int = 4
    name: str = ""
    slow: float = 0.0
    raises: tuple[int, ...] = ()
    explodes: tuple[int, ...] = ()
    poison: tuple[int, ...] = ()
    dies_once: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()
    stuck_once: tuple[int, ...] = ()
    ballast: Any = field(default=None)

    def key(self, item: int) -> str:
        return f"{self.name}{item}"

    def setup(self, device: str) -> str:
        path = Path(self.log) / f"setup-{os.getpid()}-{time.monotonic_ns()}"
        path.write_text(f"{device} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}".strip())
        return device

    def process(self, state: str, batch: Sequence[int]) -> list[Any]:
        for item in batch:
            self._note(item)
            time.sleep(self.slow / len(batch))
            if item in self.poison or (item in self.dies_once and self._first(item)):
                os.kill(os.getpid(), signal.SIGKILL) if item % 2 else os._exit(3)
            if item in self.stuck or (item in self.stuck_once and self._first(item)):
                time.sleep(3600)
        if set(batch) & set(self.explodes):
            raise StageError(f"a batch with\n{sorted(set(batch) & set(self.explodes))}")
        return [ValueError(f"no {item}") if item in self.raises else 2 * item for item in batch]

    def _note(self, item: int) -> None:
        with (Path(self.log) / "tried").open("a") as file:
            file.write(f"{item} {os.getpid()}\n")

    def _first(self, item: int) -> bool:
        try:
            (Path(self.log) / f"once-{item}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def set_ups(folder: Path) -> list[str]:
    """Process ids of set-ups, one each."""
    return [path.name.split("-")[1] for path in folder.glob("setup-*")]


def tried(folder: Path) -> list[tuple[int, int]]:
    """(item, process id) of every try, in no order."""
    lines = (folder / "tried").read_text().splitlines()
    return [(int(item), int(pid)) for item, pid in map(str.split, lines)]


@dataclass
class Refusing:
    """Cannot be set up."""

    batch_size: int = 2

    def key(self, item: int) -> str:
        return str(item)

    def setup(self, device: str) -> None:
        raise InputError("the detector changed:\nexpected a, got b")

    def process(self, state: None, batch: Sequence[int]) -> list[int]:
        return list(batch)


@dataclass
class DyingSetup(Refusing):
    """Dies when it is set up."""

    def setup(self, device: str) -> None:
        os._exit(1)


@dataclass
class Strange:
    """Results that cannot be sent, too few of them, and large ones."""

    batch_size: int = 2

    def key(self, item: str) -> str:
        return item

    def setup(self, device: str) -> None:
        return None

    def process(self, state: None, batch: Sequence[str]) -> list[Any]:
        made = [np.full((1 << 20,), int(item)) if item.isdigit() else item for item in batch]
        return [
            (_ for _ in ()) if item == "generator" else value for item, value in zip(batch, made, strict=True)
        ]
