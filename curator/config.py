"""Configuration: one frozen, keyword-only dataclass per stage, validated on creation.

In: keyword arguments, or a TOML table. Out: an object whose `results()` is what changes results (it enters
the content keys) and whose `everything()` is stored with the run.
"""

from __future__ import annotations

import dataclasses
import math
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


def check_thresholds(score: float, iou: float) -> None:
    """Refuse a score threshold outside (0, 1) or an IoU threshold outside (0, 1]."""
    require(0 < score < 1, f"score_threshold: expected 0 < t < 1, got {score}")
    require(0 < iou <= 1, f"iou_threshold: expected 0 < t <= 1, got {iou}")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StageConfig):
    """`curator report`."""

    out: Path = Path("report.html")
    failures_per_cause: int = 6
    hits_per_failure: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "failures_per_cause", "hits_per_failure")
