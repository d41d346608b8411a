"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from curator.cli import app
from curator.cli.reference import reference

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups included."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def test_the_reference_is_up_to_date() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == reference(), "run: python -m curator.cli.reference > docs/cli.md"


def test_every_command_and_option_is_documented() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    undocumented = []
    for path, command in commands(typer.main.get_command(app), "curator"):
        heading = "# Commands\n" if path == "curator" else f"## {path}\n"
        section = written.partition(heading)[2].partition("\n## ")[0]
        if not section or not command.help:
            undocumented.append(path)
        rows = [row for row in section.splitlines() if row.startswith("| `") and not row.endswith("|  |")]
        listed = {name for row in rows for name in row.split("`")[1].split(", ")}
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                shown = name if name.startswith("-") else name.upper()
                if name != "--help" and shown not in listed:
                    undocumented.append(f"{path} {name}")
    assert undocumented == []
