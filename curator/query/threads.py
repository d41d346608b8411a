"""Questions side by side: NumPy, SciPy and BLAS leave the interpreter free, so threads use the cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
_here = threading.local()


def each(call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`call` of every item, in their order; while several run, BLAS and OpenMP take one thread each. Within
    such a call items come one after the other: the cores are taken.

    Raises:
        whatever a call raises, the first in the items' order.
    """
    workers = min(len(items), os.cpu_count() or 1)
    if workers < 2 or getattr(_here, "busy", False):
        return [call(item) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(workers, "question", _begin) as threads:
        return list(threads.map(call, items))


def _begin() -> None:
    _here.busy = True
