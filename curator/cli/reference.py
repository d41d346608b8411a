"""The reference of every command, written from the commands' own help texts.

    python -m curator.cli.reference > docs/cli.md

In: the Typer application. Out: Markdown, one section per command: what it does, its arguments and options
with their defaults. A test compares it with docs/cli.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import typer
from typer.core import TyperArgument

from curator.cli import app

HEAD = """# Commands

Made by `python -m curator.cli.reference > docs/cli.md`; `curator COMMAND --help` shows the same.
Options before the command hold for every command. A TOML file for `curator run` has a table per stage whose
keys are the names of the settings (`roles`, `selections`, `recipes` and `class_map` where the options are
`--role`, `--selection`, `--recipe` and `--map`).
Exit codes: 0 done; 1 failed, or all items did; 2 wrong usage or input; 3 partly done (failures are listed).
"""


def reference() -> str:
    """All commands as Markdown."""
    root = typer.main.get_command(app)
    sections = [HEAD, *_sections(root, "curator")]
    return "\n".join(sections).rstrip() + "\n"


def _sections(command: Any, path: str) -> Iterator[str]:
    if path != "curator":
        yield f"## {path}\n"
        yield f"{command.help.strip()}\n"
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield "\n".join(["| option | value | default | what |", "|---|---|---|---|", *rows, ""])
    for name, inner in getattr(command, "commands", {}).items():
        yield from _sections(inner, f"{path} {name}")


def _row(parameter: Any) -> str:
    """One argument or option: its names, its kind of value, its default, its text."""
    default = parameter.default
    if parameter.required:
        default = "(required)"
    elif default is None or default in ("", False) or callable(default):
        default = ""
    if isinstance(parameter, TyperArgument):
        names, value = parameter.name.upper(), _kind(parameter)
    else:
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else parameter.metavar or _kind(parameter)
    repeated = ", repeatable" if getattr(parameter, "multiple", False) else ""
    return _cells(f"`{names}`", value + repeated, str(default), parameter.help or "")


def _kind(parameter: Any) -> str:
    """str, int, float or path: what one value must be."""
    hint = parameter.type_descriptor.annotation
    while arguments := [kind for kind in get_args(hint) if kind is not type(None)]:
        hint = arguments[0]
    return str(hint.__name__).lower()


def _cells(*texts: str) -> str:
    return "| " + " | ".join(" ".join(_plain(text).split()) for text in texts) + " |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no table cells, and no links, in it."""
    return text.replace("|", "\\|").replace("][", "]\\[")


if __name__ == "__main__":
    print(reference(), end="")
