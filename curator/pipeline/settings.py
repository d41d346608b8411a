"""Settings of `loop`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from curator.config import option, require, required
from curator.prove.settings import TrainConfig, TrainerConfig
from curator.query.settings import QueryConfig
from curator.synthesize.settings import SynthesizeConfig


@dataclass(frozen=True, kw_only=True)
class LoopConfig(TrainerConfig):
    """`curator loop`."""

    out: Path = required("Folder that gets a detector per round.")
    rounds: int = option(3, "Rounds at most; it stops where a round gains no more than chance.")
    name: str = option("loop", "Name of the loop, and of the selection of all that it chose.")
    detector: str | None = option(None, "Detector to begin with; default: the diagnosed one.")
    failures: str = option("", "Which failures ask, as for curator query; empty: all.")
    method: str = option("predictor", "How the pool is ranked, as for curator query.")
    budget: int = option(40, "Pool images chosen per round.")
    samples: int = option(0, "Samples painted per round (curator synthesize); 0: none.")
    inpainter: str = option("builtin:", "Who paints them, as for curator synthesize.")
    score_threshold: float | None = option(None, "A detection at or above it counts; default: as diagnosed.")
    class_map: dict[str, str] = option(
        {},
        "A detector class in terms of the data set's; default: as diagnosed; may be repeated.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )
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
        self._at_least(1, "rounds")
        self._at_least(0, "samples")
        named = self.score_threshold
        require(named is None or 0 < named <= 1, f"score_threshold: expected 0 < t <= 1, got {named}")
        self.query("check", ())
        self.train("check:", self.out, ())

    def train(
        self, detector: str, out: Path, selections: tuple[str, ...], samples: tuple[str, ...] = ()
    ) -> TrainConfig:
        """The training of a round."""
        own = {f.name for f in fields(self)} & {f.name for f in fields(TrainConfig)}
        shared = {name: getattr(self, name) for name in own - {"detector", "out", "samples"}}
        return TrainConfig(**shared, detector=detector, out=out, selections=selections, samples=samples)

    def query(self, name: str, without: tuple[str, ...]) -> QueryConfig:
        """The query of a round, which chooses nothing that earlier ones chose."""
        return QueryConfig(
            name=name,
            without=without,
            failures=self.failures,
            method=self.method,
            budget=self.budget,
            seed=self.seed,
            device=self.device,
        )

    def synthesize(self, name: str) -> SynthesizeConfig:
        """The samples of a round, painted into the training images and what it chose."""
        return SynthesizeConfig(
            name=name,
            selection=name,
            budget=self.samples,
            inpainter=self.inpainter,
            failures=self.failures,
            seed=self.seed,
            device=self.device,
        )
