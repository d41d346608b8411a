"""The Typer application: shared options, one clean line per error, exit codes.

A command parses its options, opens the Store, calls one pipeline function and prints its result. Heavy
packages are imported inside commands only: `curator --help` loads none of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator import __version__

if TYPE_CHECKING:
    from curator.jobs.stage import StageResult
    from store.store import Store

app = typer.Typer(
    name="curator",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Mend object detectors through their data: find the failures, explain them, query or "
    "synthesise the missing samples, and prove that retraining fixes them.",
)


class _Settings:
    """Options given before the command."""

    workspace = Path("curator-workspace")
    workspace_given = False
    debug = False


settings = _Settings()
INTERRUPTED = 130
SPIN = {"GOMP_SPINCOUNT": "3000"}
"""OpenMP's threads wait for one another in a loop of a few microseconds, then asleep. With its own number, a
hundred times as large, they take the cores from whatever else runs, and then wait for it: a command beside
other work takes several times as long. Alone both are equal. Read when torch is imported; a user's own
number stands."""

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        help="Where items are worked on: local (this process), ray (processes of this machine) or "
        "ray://HOST:PORT (a running Ray cluster); ray may end in ?actors=N&timeout=SECONDS.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random in this stage.")]


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"curator {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="CURATOR_WORKSPACE", help="Workspace folder.")
    ] = Path("curator-workspace"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    from curator.progress import set_quiet

    source = context.get_parameter_source("workspace")
    settings.workspace = workspace
    settings.workspace_given = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
    settings.debug = debug
    set_quiet(quiet)


def open_store() -> Store:
    """Open the workspace named by --workspace."""
    from store.store import Store

    return Store.open(settings.workspace)


def finish(
    result: StageResult,
    *,
    as_json: bool,
    lines: Callable[[Mapping[str, Any]], list[str]] | None = None,
    failed: Callable[[Mapping[str, Any], int], str] | None = None,
) -> None:
    """Print a stage's result (JSON, or counts and what `lines(summary)` makes), exit with its code.

    Args:
        failed: says what failed, where the number alone says too little.
    """
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "stage": result.stage,
                    "run": result.run_id,
                    "done": result.done,
                    "skipped": result.skipped,
                    "failed": result.failed,
                    "failures": [list(f) for f in result.failures],
                    **result.summary,
                }
            )
        )
    else:
        said = failed(result.summary, result.failed) if failed else f"{result.failed} failed"
        typer.echo(f"{result.stage}: {result.done} done, {result.skipped} already stored, {said}")
        for line in lines(result.summary) if lines and result.summary else ():  # none where all failed
            typer.echo(line)
        for item, reason in result.failures[:20]:
            typer.echo(f"  failed: {item}: {reason}", err=True)
        if len(result.failures) > 20:
            typer.echo(f"  ... and {len(result.failures) - 20} more (--json lists all)", err=True)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def main() -> None:
    """Entry point: run a command; known errors become one line on stderr and their exit code."""
    for name, value in SPIN.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this code
            typer.echo("stopped; the same command continues where it was", err=True)
        raise
    except Exception as error:
        if settings.debug:
            raise
        code = getattr(error, "exit_code", None)
        if code is None:
            typer.echo(
                f"error: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)",
                err=True,
            )
            sys.exit(1)
        typer.echo(f"error: {error}", err=True)
        sys.exit(code)
