"""No index: the rows themselves are scanned, in blocks. Exact, no bytes on disk or in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.represent.index.allowed import Allowed
from curator.represent.index.base import Floats, Ints, Metric, Shard


class Flat:
    """Every search is the exact scan (`exact.scan`); `faiss_index` never asks it for candidates."""

    name = "flat"
    stored = False
    exact_share = 1.0

    def sample_dimension(self, parameters: Mapping[str, int], *, dimension: int) -> int:
        """D."""
        return dimension

    def train(
        self, sample: Floats, parameters: Mapping[str, int], *, dimension: int, metric: Metric, seed: int
    ) -> Any:
        """Nothing to learn."""
        return None

    def add(self, index: Any, rows: Floats, first: int) -> None:
        """Nothing to keep."""

    def widths(self, index: Any) -> list[int]:
        """None."""
        return []

    def candidates(
        self,
        shards: Sequence[Shard],
        queries: Floats,
        n: int,
        *,
        k: int,
        width: Callable[[NDArray[np.float64]], Ints],
        allowed: Allowed | None,
    ) -> Ints:
        """None."""
        return np.full((len(queries), n), -1, np.int64)

    def load(self, path: str, *, mapped: bool) -> Any:
        """Nothing to read."""
        return None

    def resident_bytes(self, index: Any, *, mapped: bool) -> int:
        """0."""
        return 0
