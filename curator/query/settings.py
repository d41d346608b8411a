"""Settings of `index` and `query`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curator.config import StageConfig, speed_only


@dataclass(frozen=True, kw_only=True)
class IndexConfig(StageConfig):
    """`curator index`: region vectors of failures, successes and the pool.

    Attributes:
        embedder: registry spec. candidates: candidate boxes per image. cells: grid cells per side.
        windows: salient windows per image, where a detector that sees nothing offers no candidate.
    """

    detector: str | None = None
    embedder: str = "detector:"
    candidates: int = 12
    cells: int = 4
    windows: int = 20
    batch_size: int = speed_only(16)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "cells", "batch_size")
        self._at_least(0, "candidates", "windows")


@dataclass(frozen=True, kw_only=True)
class QueryConfig(StageConfig):
    """`curator query`.

    Attributes:
        failures: selector, as in ExplainConfig. budget: number of pool images wanted. name: of the selection.
        method: "contrastive", or the baselines "similarity" and "random".
        view: "auto" takes the best separating one.
    """

    name: str = "query"
    failures: str = ""
    budget: int = 100
    embedder: str = "detector:"
    method: Literal["contrastive", "similarity", "random"] = "contrastive"
    view: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget")
