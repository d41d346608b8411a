"""One thread for NumPy's products while many small ones are made: more would wait for one another, and for
whatever else runs on the machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> Any:
    return ThreadpoolController()  # looks through all loaded libraries: 1 to 10 ms


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which BLAS takes one thread; 10 microseconds."""
    context: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return context
