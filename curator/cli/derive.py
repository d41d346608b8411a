"""A stage's command, made from its settings: a default and a help text are written once, in the dataclass.

In: the settings' class, whose fields say what they are on the command line (`curator.config.option`), and
what prints the stage's summary. Out: a command of the Typer application. A field without a help text is no
option: only a TOML file sets it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer

from curator.cli.app import Executor, Json, app, finish, open_store
from curator.config import StageConfig
from curator.errors import InputError

LAST = ("device", "seed")  # of every stage: after its own options
Config = TypeVar("Config", bound=StageConfig)
Lines = Callable[[Mapping[str, Any]], list[str]]
_SPREAD = inspect.Parameter("executor", inspect.Parameter.KEYWORD_ONLY, default="local", annotation=Executor)


def stage_command(
    name: str,
    settings: type[StageConfig],
    *,
    lines: Lines,
    help: str,
    without: Sequence[str] = (),
    warnings: Lines | None = None,
    call: str = "",
    failed: Callable[[Mapping[str, Any], int], str] | None = None,
    spread: bool = False,
) -> None:
    """Add the command `name`, which calls the function of this name in `curator.pipeline`.

    Args:
        call: that function, where it has another name.
        lines: what people read, made from the stage's summary. warnings: for stderr, also with --json.
        without: fields of every stage that this one does not read.
        failed: what people read of the failures, made from the summary and their number.
        spread: its items may be worked on elsewhere: it has the option --executor.
    """

    def run(config: StageConfig, as_json: bool, executor: str = "local") -> None:
        from curator import pipeline
        from curator.jobs.choose import open_executor

        with open_executor(executor, config.device) as runs, open_store() as store:
            more = {} if runs is None else {"executor": runs}
            result = getattr(pipeline, call or name.replace("-", "_"))(store, config, **more)
        for line in warnings(result.summary) if warnings else ():
            typer.echo(line, err=True)
        finish(result, as_json=as_json, lines=lines, failed=failed)

    own = [_SPREAD] if spread else []
    add_command(app, name, settings, run, help=help, without=without, more=own)


def add_command(
    group: typer.Typer,
    name: str,
    settings: type[Config],
    run: Callable[..., None],
    *,
    help: str,
    without: Sequence[str] = (),
    more: Sequence[inspect.Parameter] = (),
) -> None:
    """Add the command `name` to `group`: it makes the settings and calls `run(settings, as_json)`.

    Args:
        more: options that are no settings; `run` gets them by name.
    """

    def command(as_json: bool, **given: Any) -> None:
        own = {option.name: given.pop(option.name) for option in more}
        run(settings.from_table(_table(settings, given), where=name), as_json, **own)

    json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    options = [*_parameters(settings, without), *more, json]
    command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # what Typer reads
    command.__annotations__ = {option.name: option.annotation for option in options}
    group.command(name, help=help)(command)


def _parameters(settings: type[StageConfig], without: Sequence[str]) -> list[inspect.Parameter]:
    """The options of a command, in the order of the fields; `device` and `seed` last."""
    hints = typing.get_type_hints(settings)
    shown = [f for f in dataclasses.fields(settings) if f.metadata.get("help") and f.name not in without]
    shown.sort(key=lambda f: LAST.index(f.name) + 1 if f.name in LAST else 0)
    return [_parameter(f, hints[f.name]) for f in shown]


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    about = field.metadata
    kind, default = _on_command_line(field, hint)
    flag = "--" + (about["flag"] or field.name).replace("_", "-").replace("/", "/--")
    said: Any
    if about["argument"]:
        said = typer.Argument(help=about["help"])
    elif kind is bool and field.default is False:
        said = typer.Option(flag, help=about["help"])
    elif kind is bool and not about["flag"]:
        said = typer.Option(f"{flag}/--no-{flag[2:]}", help=about["help"])
    else:
        said = typer.Option(flag, help=about["help"], metavar=about["metavar"])
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, said],
    )


def _on_command_line(field: dataclasses.Field[Any], hint: Any) -> tuple[Any, Any]:
    """Type and default of a field's option: (str, "0,1") for seeds that are joined by commas."""
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default: Any = inspect.Parameter.empty if required else field.default
    kind = _plain(hint)
    origin = typing.get_origin(kind)
    if origin is tuple and field.metadata["joined"]:
        return (str, ",".join(map(str, default))) if default else (str | None, None)
    if origin in (tuple, dict):
        return list[str] | None, None
    if origin is typing.Literal:
        kind = str  # the settings refuse other words, in one line
    return (kind | None if default is None else kind), default


def _plain(hint: Any) -> Any:
    """A type without its None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _table(settings: type[StageConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as a TOML file would say it; options that were not given are left out."""
    hints = typing.get_type_hints(settings)
    table = {}
    for field in dataclasses.fields(settings):
        value = given.get(field.name)
        if value is None or (value == "" and field.default is None):
            continue
        kind = _plain(hints[field.name])
        flag = "--" + (field.metadata["flag"] or field.name).replace("_", "-")
        if typing.get_origin(kind) is dict:
            value = read_pairs(value, flag)
        elif typing.get_origin(kind) is tuple and field.metadata["joined"]:
            numbers = typing.get_args(kind)[0] is int
            value = read_numbers(value, flag) if numbers else read_names(value)
        table[field.name] = value
    return table


def read_names(text: str) -> list[str]:
    """Names joined by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_numbers(text: str, flag: str) -> list[int]:
    """Whole numbers joined by commas.

    Raises:
        InputError: something else than whole numbers of 0 or more.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{flag}: expected whole numbers joined by commas, such as 1,2, got {text!r}")
    return [int(part) for part in parts]


def read_pairs(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """Repeated `--map DETECTOR=CLASS` options.

    Raises:
        InputError: a text without "=" or with an empty side.
    """
    named = {}
    for pair in pairs:
        detector, equals, category = pair.partition("=")
        if not equals or not detector.strip() or not category.strip():
            raise InputError(f"{flag}: expected DETECTOR=CLASS, such as {flag} car=Car, got {pair!r}")
        named[detector.strip()] = category.strip()
    return named
