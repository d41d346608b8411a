"""Configuration: one frozen, keyword-only dataclass per stage, validated on creation.

In: keyword arguments, or a TOML table. Out: an object whose `results()` is what changes results (it enters
the content keys) and whose `everything()` is stored with the run.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from curator.errors import ConfigError


def speed_only(default: Any) -> Any:
    """A field that changes speed, not results (batch size, device, workers): it enters no content key."""
    return field(default=default, metadata={"result": False})


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Base of every stage's configuration."""

    seed: int = 0
    device: str = speed_only("auto")

    def __post_init__(self) -> None:
        self._at_least(0, "seed")

    def _at_least(self, least: int, *names: str) -> None:
        """Refuse fields below `least`."""
        for name in names:
            value = getattr(self, name)
            require(value >= least, f"{name}: expected at least {least}, got {value}")

    def _positive(self, *names: str) -> None:
        """Refuse fields that are no finite numbers above 0."""
        for name in names:
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name}: expected a finite number above 0, got {value}")

    def results(self) -> dict[str, Any]:
        """The fields that change results, seed included."""
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("result", True)
        }

    def everything(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from a TOML table; unknown keys and wrong types are refused with the choices named.

        Raises:
            ConfigError: with `where` (the file and table) in the message.
        """
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(table) - set(hints))
        if unknown:
            raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(hints))}")
        try:
            return cls(**{key: _coerce(value, hints[key], f"{where}: {key}") for key, value in table.items()})
        except TypeError as error:
            raise ConfigError(f"{where}: {error}") from error


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        require(
            value in arguments, f"{where}: expected one of {', '.join(map(str, arguments))}, got {value!r}"
        )
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list, got {value!r}")
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin in (dict, Mapping) or hint is dict:
        require(isinstance(value, Mapping), f"{where}: expected a table, got {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path:
        return Path(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: missing file, or text that is no TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable TOML file ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


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
    batch_size: int = speed_only(64)
    workers: int = speed_only(4)

    def __post_init__(self) -> None:
        super().__post_init__()
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
class DetectConfig(StageConfig):
    """`curator detect`.

    Attributes:
        detector: registry spec.
        roles: whose images are run.
        score_floor: detections below it are not stored.
    """

    detector: str
    roles: tuple[str, ...] = ("mine",)
    score_floor: float = 0.05
    batch_size: int = speed_only(8)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.score_floor < 1, f"score_floor: expected 0 <= floor < 1, got {self.score_floor}")
        self._at_least(1, "batch_size")


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(StageConfig):
    """`curator diagnose`.

    Attributes:
        detector: registry spec; None takes the workspace's newest.
        score_threshold: a detection at or above it counts.
        iou_threshold: a match needs at least it (t_iou). background_iou: TIDE's t_bg.
        low_score: t_low of FN rule (a); None takes the detector's own quantile.
        class_map: detector class -> data-set class; unnamed classes map to their own name.
    """

    detector: str | None = None
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    background_iou: float = 0.1
    low_score: float | None = None
    class_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            0 <= self.background_iou <= 1, f"background_iou: expected 0 <= t <= 1, got {self.background_iou}"
        )
        require(
            self.low_score is None or 0 <= self.low_score < 1,
            f"low_score: expected 0 <= t < 1, got {self.low_score}",
        )


def _check_thresholds(score: float, iou: float) -> None:
    require(0 < score < 1, f"score_threshold: expected 0 < t < 1, got {score}")
    require(0 < iou <= 1, f"iou_threshold: expected 0 < t <= 1, got {iou}")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(StageConfig):
    """`curator explain`.

    Attributes:
        failures: selector such as "FN", "FN:miss", "FP,class=Car"; "" explains all failures.
        successes: how many true positives per class to explain beside them.
        samples: K. segments: wanted number of SLIC segments. grid: "midpoint" (k + 0.5)/K or "paper" k/(K-1).
        target: "auto" is log-odds where the detector gives them, probability elsewhere.
        batch_size: masked images per forward pass; 0 chooses from free memory.
    """

    detector: str | None = None
    failures: str = ""
    successes: int = 20
    method: str = "e2x"
    samples: int = 16
    segments: int = 200
    grid: Literal["midpoint", "paper"] = "midpoint"
    target: Literal["auto", "probability", "log_odds"] = "auto"
    fill: str = "mean"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int = speed_only(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "samples")
        require(2 <= self.segments <= 60000, f"segments: expected 2 to 60000, got {self.segments}")
        self._at_least(0, "successes", "batch_size")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    """`curator evaluate-explanations`.

    Attributes:
        methods: each NAME[?setting=value&...][@K[+K...]]; with @ at these numbers of samples alone, without
            at every one of `samples`.
        targets: failures and successes drawn by the seed, at most `per_image` on one image.
        reference_pairs: antithetic pairs of permutations of the reference. segments, target, fill, precision:
            as in ExplainConfig; the reference is always fp32.
        out: JSON file. plot: SVG file.
    """

    detector: str | None = None
    methods: tuple[str, ...] = ("e2x", "e2x_kernel", "ig_s", "lime", "kernel_shap", "odam@1", "permutation@1")
    samples: tuple[int, ...] = (16, 64)
    targets: int = 12
    per_image: int = 3
    reference_pairs: int = 20
    segments: int = 100
    target: Literal["auto", "probability", "log_odds"] = "auto"
    fill: str = "mean"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    out: Path = Path("evaluation.json")
    plot: Path = Path("evaluation.svg")
    batch_size: int = speed_only(16)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("targets", "per_image", "batch_size"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        require(
            self.reference_pairs >= 2,
            f"reference_pairs: expected at least 2, one for each half, got {self.reference_pairs}",
        )
        require(2 <= self.segments <= 60000, f"segments: expected 2 to 60000, got {self.segments}")
        require(self.plot.suffix == ".svg", f"plot: expected a file name ending in .svg, got {self.plot}")
        require(bool(self.contenders()), "methods: expected at least one, got none")

    def contenders(self) -> list[tuple[str, int]]:
        """(method, K) to compare, each once."""
        found = []
        for text in self.methods:
            method, at, counts = text.partition("@")
            numbers = counts.split("+") if at else [str(k) for k in self.samples]
            for number in numbers:
                require(
                    bool(method) and number.isdecimal() and int(number) >= 1,
                    f"methods: expected NAME, or NAME@K with K of at least 1, got {text!r} with {number!r}",
                )
                found.append((method, int(number)))
        return list(dict.fromkeys(found))


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


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(StageConfig):
    """`curator synthesize`.

    Attributes:
        name: of the batch of samples. selection: its hits may serve as exemplars and scenes.
        budget: accepted samples wanted. attempts: plans tried per accepted sample at most.
        recipes: registry names; each failure is answered by those that know its kind. steps: of the sampler.
    """

    name: str = "synthesis"
    detector: str | None = None
    failures: str = ""
    selection: str | None = None
    budget: int = 50
    attempts: int = 3
    inpainter: str = "builtin:"
    recipes: tuple[str, ...] = ("culprit", "lookalike", "appearance")
    steps: int = 20
    batch_size: int = speed_only(8)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(1, "budget", "attempts", "steps", "batch_size")


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
        _check_thresholds(self.score_threshold, self.iou_threshold)
        require(
            bool(self.seeds) and all(seed >= 0 for seed in self.seeds),
            f"seeds: expected one or more whole numbers of at least 0, got {list(self.seeds)}",
        )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StageConfig):
    """`curator report`."""

    out: Path = Path("report.html")
    failures_per_cause: int = 6
    hits_per_failure: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "failures_per_cause", "hits_per_failure")
