"""Settings of `curator example`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curator.config import StageConfig, option, require

SCHEDULES = {
    "ssd": (1100, 0.004),
    "retinanet": (300, 0.002),
    "fcos": (300, 0.002),
    "faster_rcnn": (300, 0.002),
}
"""Families with their steps and peak learning rate."""


@dataclass(frozen=True, kw_only=True)
class ExampleDetectorConfig(StageConfig):
    """`curator example train-detector`.

    Attributes:
        steps, batch_size, learning_rate: as in `FineTuneConfig`; None takes the family's own (`SCHEDULES`).
        match_iou: of the SSD, as in `SsdOptions`.
    """

    out: Path = option(Path("detector.safetensors"), "File of the weights.")
    family: str = option(
        "ssd",
        "ssd (what the example ships), retinanet, fcos or faster_rcnn; these start from the shipped SSD's "
        "backbone and take up to ten minutes on two cores.",
    )
    scenes: int = option(2500, "Rendered clean scenes.")
    steps: int | None = option(None, "Optimiser steps; the family's own number.")
    learning_rate: float | None = option(None, "Peak of the one-cycle schedule; the family's own.")
    batch_size: int = 16
    match_iou: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.family in SCHEDULES, f"family: expected one of {', '.join(SCHEDULES)}, got {self.family!r}"
        )
        for name in ("scenes", "steps", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name}: expected at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class InpainterConfig(StageConfig):
    """`curator example train-inpainter`.

    Attributes:
        crops: examples cut from each scene. minutes: None never stops early.
    """

    out: Path = option(Path("inpainter"), "Folder of the pipeline.")
    scenes: int = option(400, "Rendered scenes, used without their labels.")
    steps: int = option(2000, "Optimiser steps.")
    minutes: float | None = option(None, "Stop after so many minutes.")
    crops: int = 8
    batch_size: int = 16
    learning_rate: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "scenes", "crops", "steps", "batch_size")
