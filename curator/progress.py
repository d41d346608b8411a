"""Progress of long work on stderr, with rate and time left; silent when not a terminal or asked to be."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called with the number of items just finished and an optional remark."""

    def __call__(self, count: int = 1, *, note: str = "") -> None: ...


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turn progress output of this process off or on."""
    global _quiet
    _quiet = quiet


def say(line: str) -> None:
    """A line on stderr that people should read while they wait; nothing when quiet."""
    if not (_quiet or os.environ.get("CURATOR_QUIET")):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Show a bar on a terminal, one line every ten seconds elsewhere, nothing when quiet.

    Args:
        description: what is done, e.g. "detect".
        total: number of items, None if unknown.
    """
    if _quiet or os.environ.get("CURATOR_QUIET"):
        yield lambda count=1, *, note="": None
        return
    if not sys.stderr.isatty():
        yield from _lines(description, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(count: int = 1, *, note: str = "") -> None:
            bar.update(task, advance=count, note=note)

        yield advance


def _lines(description: str, total: int | None) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def advance(count: int = 1, *, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= 10:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            print(
                f"{description}: {done}/{total or '?'} ({rate:.1f}/s{left}) {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield advance
    if done:
        print(f"{description}: {done} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
