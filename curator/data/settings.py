"""Settings of `add`, `export`, `versions`, `remove`; imports nothing heavy: the command line reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curator.config import StageConfig, option, require, required, speed_only
from curator.errors import ConfigError

WRITTEN = ("coco", "yolo", "voc", "cvat", "label-studio", "labelme", "ndjson")
"""The built-in formats that hold labels and are written too (a test compares)."""
READ_ONLY = "read alone: images (a folder without labels), video, deeppcb"


@dataclass(frozen=True, kw_only=True)
class AddConfig(StageConfig):
    """`curator add`.

    Attributes:
        path, images: a path, or the URI of a bucket's folder (`store.remote`).
        group_pattern: found in an image's name; without a group in it, the whole match is the group key.
        part: parts that do not overlap share no image, whatever the order of reading.
    """

    format: str = required(f"{', '.join(WRITTEN)}; {READ_ONLY}.", argument=True)
    path: str | Path = required(
        "Its folder or, where the format has one, its file (JSON, XML, data.yaml, video). coco, yolo, voc "
        "and images: also s3://, gs:// or az://BUCKET/FOLDER.",
        argument=True,
    )
    role: Literal["train", "mine", "pool", "holdout"] = required(
        "train, mine (failures are mined here), pool (samples are sought here) "
        "or holdout (verify alone reads it)."
    )
    images: str | Path | None = option(
        None, "Folder of the image files, where it is not found; may lie in a bucket."
    )
    classes: tuple[str, ...] = option(
        (), "Class names, joined by commas; yolo: by class id.", joined=True
    )
    split: str | None = option(None, "Part of the data set, e.g. train, valid; default: all.")
    dataset: str | None = option(None, "Name in the workspace; default: the folder's.")
    group_pattern: str | None = option(
        None,
        "Regular expression on image names; its first group names what belongs together, such as a video.",
    )
    reviewed: bool = option(False, "Boxes still marked as pre-annotations were checked by a human.")
    part: str | None = option(
        None, "FROM-TO in percent: the images whose names hash into it, e.g. 0-35."
    )
    background: bool | None = option(
        None,
        "yolo: images without a label file hold no objects, or wait for labels; default: the data set tells.",
        flag="background/unlabelled",
    )
    every: str | None = option(
        None, "video: a frame each so many seconds (1s, the default; 0.5s) or frames (10f)."
    )
    near_duplicates: float | None = option(
        None,
        "How unlike two pictures may be that count as one: 1 as shipped, 0 equal pixels alone; the workspace "
        "keeps it, for all its images.",
    )
    batch_size: int = speed_only(64)
    workers: int = speed_only(4)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("path", "images"):  # what is no URI is a path, however it was given
            place = getattr(self, name)
            if isinstance(place, str) and "://" not in place:
                object.__setattr__(self, name, Path(place))
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
        require(
            self.near_duplicates is None or 0 <= self.near_duplicates <= 100,
            f"near_duplicates: expected a number from 0 (equal pixels alone) to 100, 1 as shipped, "
            f"got {self.near_duplicates}",
        )
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

    Unnamed classes of the class map map to their own name.
    """

    format: str = required(f"{', '.join(WRITTEN)}.", argument=True)
    out: Path = required(
        "Folder to make; it must not exist, or be empty. torchvision's VOCDetection(ROOT) reads a voc export "
        "of .jpg images in ROOT/VOCdevkit/VOC2012.",
        argument=True,
    )
    selections: tuple[str, ...] = option((), "Selection to add; may be repeated.", flag="selection")
    samples: tuple[str, ...] = option((), "Batch of samples to add; may be repeated.")
    encoding: Literal["jpeg", "png"] = option("jpeg", "jpeg or png, for all added images alike.")
    quality: int = option(95, "JPEG quality, 1 to 100.")
    score_threshold: float = option(
        0.5, "Detections at or above it pre-annotate selected images that have no labels."
    )
    class_map: dict[str, str] = option(
        {},
        "A detector class in terms of the data set's; may be repeated.",
        flag="map",
        metavar="DETECTOR=CLASS",
    )
    version: str | None = option(None, "Name of the version; default: the folder's.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.encoding in ("jpeg", "png"), f"encoding: expected jpeg or png, got {self.encoding!r}")
        require(1 <= self.quality <= 100, f"quality: expected 1 to 100, got {self.quality}")
        require(
            0 <= self.score_threshold < 1, f"score_threshold: expected 0 <= t < 1, got {self.score_threshold}"
        )


@dataclass(frozen=True, kw_only=True)
class VersionExportConfig(StageConfig):
    """`curator versions --export`.

    Attributes:
        version: its number (1, or #1 where another one is called 1), or the name of the newest one called so.
        out: folder to make; it must not exist, or be empty.
    """

    version: str
    out: Path


KINDS = ("images", "dataset", "selection", "samples", "verification", "index", "model")
"""What `curator remove` removes."""


@dataclass(frozen=True, kw_only=True)
class RemoveConfig(StageConfig):
    """`curator remove`.

    Attributes:
        kind: one of `KINDS`.
        names: ids of images or samples; else names, and of a model its spec or fingerprint.
        sha256: of images. file: text with the name of an image's file a line.
        role, dataset: memberships of images; an image that has another one stays.
    """

    kind: str
    names: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    file: Path | None = None
    role: Literal["train", "mine", "pool", "holdout"] | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind in KINDS, f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        roles = ("train", "mine", "pool", "holdout")
        require(
            self.role is None or self.role in roles,
            f"role: expected one of {', '.join(roles)}, got {self.role!r}",
        )
