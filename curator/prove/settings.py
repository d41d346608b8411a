"""Settings of `train` and `verify`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, check_thresholds, option, require, required


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """`curator train`; `flip` and `zoom` are random views, as in `FineTuneConfig`."""

    detector: str = required("Initial weights: torchvision:..., curator:PATH, curator:ssd?..., builtin:.")
    out: Path = required("File of the trained weights (.safetensors); curator:PATH reads it.")
    selections: tuple[str, ...] = option((), "Selection to add; may be repeated.", flag="selection")
    samples: tuple[str, ...] = option((), "Batch of samples to add; may be repeated.")
    steps: int = option(200, "Optimiser steps.")
    batch_size: int = option(16, "Images per step.")
    learning_rate: float = option(0.003, "Peak of the one-cycle schedule.")
    weight_decay: float = option(0.0005, "AdamW's weight decay.")
    added_weight: float = option(3.0, "How often an added image is drawn relative to an original.")
    class_map: dict[str, str] = option(
        {},
        "A detector class in terms of the data set's; may be repeated.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )
    flip: bool = option(True, "Mirror half of the images.")
    zoom: float = option(0.15, "Scale images at random by up to this share; 0: none.")
    batch_norm: Literal["frozen", "train"] = option(
        "frozen", "Its statistics: frozen (fine-tuning) or train (fresh weights)."
    )
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto, fp32 or bf16.")

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
    """`curator verify`."""

    detector: str | None = option(None, "Initial weights; default: the diagnosed ones.")
    name: str = option("verify", "Name of the verification.")
    arms: tuple[str, ...] = option(
        ("nothing", "random", "query", "synthesis", "both", "oracle"),
        "Comma-separated, of nothing, random, query, synthesis, both, oracle.",
        joined=True,
    )
    selection: str = option("query", "Selection of the query arm.")
    samples: str = option("synthesis", "Batch of samples of the synthesis arm.")
    budget: int = option(100, "Images that every arm adds.")
    seeds: tuple[int, ...] = option((0,), "Comma-separated training seeds.", joined=True)
    steps: int = option(200, "Optimiser steps of every training.")
    batch_size: int = option(16, "Images per step.")
    learning_rate: float = option(0.003, "Peak of the one-cycle schedule.")
    added_weight: float = option(3.0, "How often an added image is drawn relative to an original.")
    score_threshold: float = option(0.5, "The base's threshold.")
    iou_threshold: float = option(0.5, "Overlap that a match needs at least.")
    class_map: dict[str, str] = option(
        {},
        "As for diagnose, whose map is the default; may be repeated.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )
    condition_tag: str | None = option(
        None,
        "Tag of an image, or attribute of an annotation, that names its condition (a weather, a camera): "
        "each is read on its own. An object without the attribute has its image's; none means no condition.",
    )
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto, fp32 or bf16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "steps", "batch_size")
        self._positive("learning_rate", "added_weight")
        check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            bool(self.seeds) and all(seed >= 0 for seed in self.seeds),
            f"seeds: expected one or more whole numbers of at least 0, got {list(self.seeds)}",
        )
