"""Questions side by side: NumPy, SciPy and BLAS leave the interpreter free, so threads use the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`call` of every item, in their order; while several run, BLAS and OpenMP take one thread each.

    Raises:
        whatever a call raises, the first in the items' order.
    """
    workers = min(len(items), os.cpu_count() or 1)
    if workers < 2:
        return [call(item) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(workers, "question") as threads:
        return list(threads.map(call, items))
