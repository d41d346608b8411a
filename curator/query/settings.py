"""Settings of `index` and `query`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curator.config import StageConfig, option


@dataclass(frozen=True, kw_only=True)
class IndexConfig(StageConfig):
    """`curator index`: region vectors of failures, successes and the pool.

    Attributes:
        windows: for images where a detector that sees nothing offers no candidate.
    """

    embedder: str = option(
        "detector:", "Embedder spec, e.g. detector: or detector:?levels=NAME,NAME&dimension=N."
    )
    detector: str | None = option(None, "Detector spec; default: the diagnosed one.")
    candidates: int = option(12, "Candidate boxes per image.")
    cells: int = option(4, "Grid cells per side; half as many, twice as large, are added.")
    windows: int = option(20, "Salient windows per image.")
    batch_size: int = option(16, "Images per forward pass.", result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "cells", "batch_size")
        self._at_least(0, "candidates", "windows")


@dataclass(frozen=True, kw_only=True)
class QueryConfig(StageConfig):
    """`curator query`."""

    failures: str = option(
        "",
        "Which failures ask: KIND[:CAUSE][,class=NAME], alternatives joined by ';', e.g. FN:miss,class=Car; "
        "empty: all.",
    )
    budget: int = option(100, "Number of pool images wanted.")
    name: str = option("query", "Name of the selection; an older one of this name is replaced.")
    method: Literal["contrastive", "similarity", "random"] = option(
        "contrastive", "contrastive, or the baselines similarity and random."
    )
    view: str = option(
        "auto", "auto (the best separating ones), object, context, sides or image."
    )
    embedder: str = option("detector:", "Embedder spec that the index was made with.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget")
