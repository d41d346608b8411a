"""Settings of `add` and `export`; imports nothing heavy, since the command line reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, require, speed_only
from curator.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AddConfig(StageConfig):
    """`curator add`.

    Attributes:
        format: registry name. path: what the format opens. role: the images' part in the loop.
        images: folder of the image files, where the format does not find it itself.
        classes: class names (YOLO: by id). split: the part of the data set to read; None reads all.
        dataset: name in the workspace; None takes the folder's.
        group_pattern: regular expression found in an image's name; its first group (or the whole match) is
            the group key, such as a video, whose images should stay together.
        reviewed: boxes still marked as pre-annotations count as corrected by a human.
        part: "FROM-TO" in percent: only the images whose names hash into it, such as "0-35"; parts that do
            not overlap share no image, whatever the order of reading.
        background: yolo: images without a label file hold no objects (True), or are unlabelled (False);
            None: the data set tells.
        every: video: which frames become images, such as "1s" (the default), "0.5s" or "10f" (frames).
    """

    format: str
    path: Path
    role: Literal["train", "mine", "pool", "holdout"]
    images: Path | None = None
    classes: tuple[str, ...] = ()
    split: str | None = None
    dataset: str | None = None
    group_pattern: str | None = None
    reviewed: bool = False
    part: str | None = None
    background: bool | None = None
    every: str | None = None
    batch_size: int = speed_only(64)
    workers: int = speed_only(4)

    def __post_init__(self) -> None:
        super().__post_init__()
        spacing = r"(?=.*[1-9])(\d{1,9}f|\d{1,9}(\.\d{1,9})?s)"
        require(
            self.every is None or re.fullmatch(spacing, self.every) is not None,
            f"every: expected seconds such as 1s or 0.5s, or frames such as 10f, got {self.every!r}",
        )
        require(
            self.role in ("train", "mine", "pool", "holdout"),
            f"role: expected train, mine, pool or holdout, got {self.role!r}",
        )
        self._at_least(1, "batch_size", "workers")
        _ = self.part_bounds
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ConfigError(
                f"group_pattern: not a regular expression ({error}): {self.group_pattern!r}"
            ) from error

    @property
    def part_bounds(self) -> tuple[float, float]:
        """`part` as fractions [from, to) in [0, 1]."""
        if self.part is None:
            return 0.0, 1.0
        low, dash, high = self.part.partition("-")
        try:
            bounds = float(low) / 100, float(high) / 100
        except ValueError:
            bounds = 1.0, 0.0
        require(
            bool(dash) and 0 <= bounds[0] < bounds[1] <= 1,
            f"part: expected FROM-TO in percent, such as 0-35, got {self.part!r}",
        )
        return bounds


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StageConfig):
    """`curator export`.

    Attributes:
        format: registry name. selections, samples: names. encoding: of every added image alike.
        quality: of JPEG. version: name of the data set version; None takes the folder's.
        score_threshold: detections at or above it become pre-annotations of unlabelled selected images.
        class_map: detector class -> data-set class; unnamed classes map to their own name.
    """

    format: str
    out: Path
    selections: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    encoding: Literal["jpeg", "png"] = "jpeg"
    quality: int = 95
    version: str | None = None
    score_threshold: float = 0.5
    class_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.encoding in ("jpeg", "png"), f"encoding: expected jpeg or png, got {self.encoding!r}")
        require(1 <= self.quality <= 100, f"quality: expected 1 to 100, got {self.quality}")
        require(
            0 <= self.score_threshold < 1, f"score_threshold: expected 0 <= t < 1, got {self.score_threshold}"
        )
