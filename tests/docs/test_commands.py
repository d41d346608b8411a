"""Every command that the README and the pages name exists, with the options that they give it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from curator.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`+([^`]+)`+", re.DOTALL)


def lines(text: str) -> list[str]:
    """All code of a page: lines of its blocks, lines indented as code, and spans in its sentences."""
    found = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    rest = BLOCK.sub("", text)
    found += [line.strip() for line in rest.splitlines() if line.startswith("    curator ")]
    return found + [" ".join(span.split()) for span in SPAN.findall(rest)]


def commands(text: str) -> list[list[str]]:
    """Those that call curator, as words; what stands for others (`...`, NAME | NAME) is cut off."""
    called = []
    for line in lines(text):
        if re.match(r"(\.venv/bin/)?curator [-a-z]", line):
            words = shlex.split(line, comments=True)
            called.append(words[1 : words.index("...") if "..." in words else None])
    return called


def problem(words: list[str]) -> str:
    """What is wrong with a command line, "" where nothing is."""
    command: Any = typer.main.get_command(app)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word.startswith("-") and len(word) > 1:
            name = word.partition("=")[0]
            known = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts)}
            if name not in (*known, "--help"):
                return f"{command.name} has no option {name}"
            if name in known and not known[name].is_flag and "=" not in word:
                at += 1
        elif hasattr(command, "commands"):
            if not re.fullmatch("[a-z-]+", word):
                return ""  # a placeholder, such as COMMAND
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            command = command.commands[word]
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = [(" ".join(words), why) for words in commands(text) if (why := problem(words))]
    assert wrong == []


def test_a_wrong_one_is_seen() -> None:
    assert problem(["-w", "ws", "query", "--budgets", "3"]) == "query has no option --budgets"
    assert problem(["qery"]).endswith("has no command qery")
    assert problem(["-w", "ws", "query", "--budget", "3"]) == ""
    assert commands("Say `curator -w ws status` or\n```sh\ncurator init  # new\n```\n") == [
        ["init"],
        ["-w", "ws", "status"],
    ]
