"""Settings of `train` and `verify`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, check_thresholds, require


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """`curator train`.

    Attributes:
        detector: initial weights and architecture. out: file of the trained weights.
        steps: optimiser steps. learning_rate: peak of the one-cycle schedule.
        added_weight: how often an added image is drawn relative to an original one.
        class_map: as in DiagnoseConfig. flip, zoom: random views, as in `FineTuneConfig`.
        batch_norm: "frozen" keeps the statistics of batch normalisation; "train" is for fresh weights.
    """

    detector: str
    out: Path
    selections: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 0.003
    weight_decay: float = 0.0005
    added_weight: float = 3.0
    class_map: dict[str, str] = field(default_factory=dict)
    flip: bool = True
    zoom: float = 0.15
    batch_norm: Literal["frozen", "train"] = "frozen"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "steps", "batch_size")
        self._positive("learning_rate", "added_weight")
        require(
            0 <= self.weight_decay < math.inf,
            f"weight_decay: expected a finite number of at least 0, got {self.weight_decay}",
        )
        require(0 <= self.zoom < 0.5, f"zoom: expected 0 <= zoom < 0.5, got {self.zoom}")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StageConfig):
    """`curator verify`.

    Attributes:
        arms: of nothing, random, query, synthesis, both, oracle.
        budget: added images per arm. seeds: training seeds.
    """

    name: str = "verify"
    detector: str | None = None
    arms: tuple[str, ...] = ("nothing", "random", "query", "synthesis", "both", "oracle")
    selection: str = "query"
    samples: str = "synthesis"
    budget: int = 100
    seeds: tuple[int, ...] = (0,)
    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 0.003
    added_weight: float = 3.0
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    class_map: dict[str, str] = field(default_factory=dict)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "steps", "batch_size")
        self._positive("learning_rate", "added_weight")
        check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            bool(self.seeds) and all(seed >= 0 for seed in self.seeds),
            f"seeds: expected one or more whole numbers of at least 0, got {list(self.seeds)}",
        )
