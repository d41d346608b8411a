"""Settings of `train` and `verify`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, check_thresholds, option, require, required


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(StageConfig):
    """Who trains and for how long, in `train`, `verify` and `loop`; see docs/training.md."""

    trainer: str = option(
        "",
        "torchvision:, ultralytics:, hf: or 'command:PROGRAM ...'; default: the one that fits the detector.",
    )
    trainer_format: str = option("yolo", "Data set format that a command reads: yolo, coco or voc.")
    trained: str = option("", "Detector that a command writes, such as 'onnx:{out}/best.onnx'.")
    init: str = option("", "File of initial weights for a command; default: the detector's own.")
    init_detector: str = option("", "Detector that reads --init; default: as --trained reads what it writes.")
    trainer_timeout: float = option(0.0, "Seconds that a command may take; 0: any.", result=False)
    steps: int = option(200, "Optimiser steps of every training.")
    batch_size: int = option(16, "Images per step.")
    learning_rate: float = option(0.003, "Peak of the one-cycle schedule.")
    added_weight: float | None = option(
        None,
        "How often an added image is drawn relative to an original; default: 3, and 1 for programs, whose "
        "data set holds it as often (a whole number).",
    )
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto, fp32 or bf16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "steps", "batch_size")
        self._positive("learning_rate", *(["added_weight"] if self.added_weight is not None else []))
        require(
            0 <= self.trainer_timeout < math.inf,
            f"trainer_timeout: expected finite seconds of at least 0, got {self.trainer_timeout}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainerConfig):
    """`curator train`; `flip` and `zoom` are random views, as in `FineTuneConfig`."""

    detector: str = required("Initial weights: torchvision:..., curator:PATH, curator:ssd?..., builtin:.")
    out: Path = required(
        "File of the trained weights (.safetensors), read by curator:PATH; a folder where a program trains."
    )
    selections: tuple[str, ...] = option((), "Selection to add; may be repeated.", flag="selection")
    samples: tuple[str, ...] = option((), "Batch of samples to add; may be repeated.")
    weight_decay: float = option(0.0005, "AdamW's weight decay.")
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
    watch: int = option(
        0,
        "Print AP50 of the mined images, which are not trained on, every so many steps; 0: never.",
        result=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "watch")
        require(
            0 <= self.weight_decay < math.inf,
            f"weight_decay: expected a finite number of at least 0, got {self.weight_decay}",
        )
        require(0 <= self.zoom < 0.5, f"zoom: expected 0 <= zoom < 0.5, got {self.zoom}")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(TrainerConfig):
    """`curator verify`."""

    detector: str | None = option(None, "Initial weights; default: the diagnosed ones.")
    name: str = option("verify", "Name of the verification.")
    arms: tuple[str, ...] = option(
        ("nothing", "random", "query", "copy-paste", "synthesis", "query+synthesis", "oracle"),
        "Comma-separated: nothing, random, query, copy-paste (missed objects, pasted into training images), "
        "synthesis, query+synthesis, oracle, selection:NAME, or a "
        "method of curator query, such as class-uncertainty, which asks what the selection asked; "
        "image-similarity and crop-similarity are the method similarity of whole images and of objects.",
        joined=True,
    )
    selection: str = option("query", "Selection of the query arm.")
    samples: str = option("synthesis", "Batch of samples of the synthesis arm.")
    budget: int = option(100, "Images that every arm adds.")
    budgets: tuple[int, ...] = option(
        (), "Comma-separated: learning curves over several budgets, instead of --budget.", joined=True
    )
    seeds: tuple[int, ...] = option((0,), "Comma-separated training seeds.", joined=True)
    stop_early: bool = option(
        False, "Train seed by seed and stop once the answer is clear or hopeless; from the third seed on."
    )
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget")
        check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            all(budget >= 1 for budget in self.budgets),
            f"budgets: expected whole numbers of at least 1, got {list(self.budgets)}",
        )
        require(
            bool(self.seeds) and all(seed >= 0 for seed in self.seeds),
            f"seeds: expected one or more whole numbers of at least 0, got {list(self.seeds)}",
        )

    @property
    def all_budgets(self) -> tuple[int, ...]:
        """`budgets`, each once, upwards; or `budget` alone."""
        return tuple(sorted(set(self.budgets))) or (self.budget,)
