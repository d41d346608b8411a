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
from typing import Any, Literal, Self, TypeVar, cast

from curator.errors import ConfigError

T = TypeVar("T")


def speed_only(default: Any) -> Any:
    """A field that changes speed, not results (batch size, device, workers): it enters no content key."""
    return field(default=default, metadata={"result": False})


def option(
    default: T,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    argument: bool = False,
    joined: bool = False,
    result: bool = True,
) -> T:
    """A field that is also an option of the stage's command; `curator.cli.derive` reads what is said here.

    Args:
        default: written nowhere else; `...` where a value must be given.
        help: the option's text. flag: its name where it is not the field's, or "yes/no" names of a switch.
        metavar: what stands for its value in the help text.
        argument: given by its place, without a name.
        joined: the values of a tuple are joined by commas; without it the option is repeated.
        result: False as in `speed_only`.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "metavar": metavar,
        "argument": argument,
        "joined": joined,
        "result": result,
    }
    said: dict[str, Any] = {"default": default}
    if default is ...:
        said = {}
    elif isinstance(default, dict):
        said = {"default_factory": default.copy}
    made: Any = field(**said, metadata=metadata)
    return cast(T, made)


def required(help: str, *, flag: str | None = None, argument: bool = False) -> Any:
    """An `option` without a default."""
    return option(..., help, flag=flag, argument=argument)


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Base of every stage's configuration."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", result=False)
    seed: int = option(0, "Seed of everything random in this stage.")

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

    def words(self) -> list[str]:
        """The options and arguments of the stage's command that make these settings, without those at their
        defaults."""
        options, arguments = [], []
        for f in dataclasses.fields(self):
            value, about = getattr(self, f.name), f.metadata
            if about.get("argument"):
                arguments.append(str(value))
            elif about.get("help") and value != _default(f):
                options += _words("--" + (about["flag"] or f.name).replace("_", "-"), value, about["joined"])
        return [*options, *(["--", *arguments] if arguments else [])]

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


def _default(own: dataclasses.Field[Any]) -> Any:
    return own.default if own.default_factory is dataclasses.MISSING else own.default_factory()


def _words(flag: str, value: Any, joined: bool) -> list[str]:
    """One option; `=` keeps values that begin with a dash from being options themselves."""
    if isinstance(value, bool):
        yes, _, no = flag.partition("/")
        return [yes if value else f"--{no}" if no else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [f"{flag}={name}={one}" for name, one in value.items()]
    if isinstance(value, tuple):
        return [f"{flag}={','.join(map(str, value))}"] if joined else [f"{flag}={one}" for one in value]
    return [] if value is None else [f"{flag}={value}"]


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

    out: Path = option(Path("report.html"), "HTML file to write.")
    failures_per_cause: int = option(6, "Failures shown per cause.")
    hits_per_failure: int = option(4, "Pool images shown per failure.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "failures_per_cause", "hits_per_failure")
