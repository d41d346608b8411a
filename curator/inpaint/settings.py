"""Settings of `train-inpainter`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from curator.config import StageConfig, option, require, required


@dataclass(frozen=True, kw_only=True)
class TrainInpainterConfig(StageConfig):
    """`curator train-inpainter`.

    Attributes:
        channels: of the UNet's levels. width: of the exemplar's tokens. fold: pixels per side that are folded
            into channels. crops: made of an image whenever it is its turn.
    """

    out: Path = required("Folder of the inpainter, read by curator:DIR; the same command continues it.")
    pool: bool = option(False, "Also the images of the pool, without their labels.")
    size: int = option(128, "Side of the crops that it paints, pixels; a multiple of 32.")
    steps: int = option(20000, "Optimiser steps at most.", result=False)
    minutes: float | None = option(
        None, "Minutes of training at most, those before an interruption included.", result=False
    )
    patience: int = option(
        15, "Checks without a lower held-out loss after which it ends; 0: never.", result=False
    )
    batch_size: int = option(8, "Crops per step.")
    learning_rate: float = option(0.0005, "AdamW's learning rate.")
    check_every: int = option(100, "Steps between two checks of the held-out loss, with a checkpoint.")
    sheet_every: int = option(
        500, "Steps between two sheets of samples in OUT/sheets; 0: none.", result=False
    )
    held_out: float = option(0.1, "Share of the images, by their hash, that only measure the training.")
    channels: tuple[int, ...] = (64, 128, 192)
    width: int = 128
    fold: int = 8
    crops: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "steps", "batch_size", "check_every", "crops", "fold", "width")
        self._at_least(0, "patience", "sheet_every")
        self._positive("learning_rate", *(["minutes"] if self.minutes is not None else []))
        require(0 < self.held_out <= 0.5, f"held_out: expected 0 < share <= 0.5, got {self.held_out:g}")
        require(
            32 <= self.size <= 512 and self.size % 32 == 0,
            f"size: expected a multiple of 32 from 32 to 512, got {self.size}",
        )
        deepest = self.fold * 2 ** (len(self.channels) - 1)
        require(
            len(self.channels) >= 2 and math.gcd(*self.channels, self.width) % 8 == 0,
            f"channels, width: expected two levels or more, multiples of 8, got {self.channels}, "
            f"{self.width}",
        )
        require(self.size % deepest == 0, f"size: expected a multiple of {deepest}, got {self.size}")
