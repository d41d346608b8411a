"""Commands about the workspace itself: init, status, runs, db; see `curator.cli.app`."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator.cli.app import Json, app, open_store, settings

if TYPE_CHECKING:
    from store.records import RunRecord

database = typer.Typer(no_args_is_help=True, help="Upgrade or check the workspace's database.")
app.add_typer(database, name="db")


@app.command()
def init(
    url: Annotated[
        str | None,
        typer.Option(
            help="postgresql://USER@HOST/DATABASE (password in PGPASSWORD); without it SQLite in the folder."
        ),
    ] = None,
) -> None:
    """Make a new workspace in the folder that -w names."""
    from curator.pipeline.workspace import init_workspace

    with init_workspace(settings.workspace, url) as store:
        typer.echo(f"workspace made at {store.path}")
    prefix = f"curator -w {shlex.quote(str(settings.workspace))}" if settings.workspace_given else "curator"
    typer.echo("next:")
    for line in (
        "add coco TRAIN.json --images DIR --role train",
        "add coco MINE.json --images DIR --role mine",
        "add images DIR --role pool",
        "detect --detector SPEC",
    ):
        typer.echo(f"  {prefix} {line}")


@app.command()
def status(as_json: Json = False) -> None:
    """Show what the workspace holds."""
    from curator.pipeline.workspace import status as figures

    with open_store() as store:
        found = figures(store)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(found["workspace"])
    for noun, number in found["counts"].items():
        if number:
            typer.echo(f"  {noun.replace('_', ' '):<22} {number:>9,}")
    for model in found["models"]:
        typer.echo(f"  detector {model['spec']}, {model['classes']} classes")
    for selection in found["selections"]:
        typer.echo(f"  selection {selection['name']} ({selection['arm']}): {selection['images']} images")
    for name, rounds in found["loops"].items():
        failures = ", ".join(f"{facts['failures_per_image']:.2f}" for facts in rounds)
        typer.echo(f"  loop {name}: failures per mined image by round: {failures}")
    if found["counts"]["images"]:
        typer.echo(f"  near-duplicates: up to an unlikeness of {found['near_duplicates']:g}")
    for stage, run in found["stages"].items():
        typer.echo(f"  last {stage}: run {run['run']}, {run['status']}")
    if not found["stages"]:
        typer.echo("  empty; start with: curator add coco PATH --role train")


@app.command()
def runs(
    stage: Annotated[str | None, typer.Option(help="Only runs of this stage.")] = None,
    as_json: Json = False,
) -> None:
    """List what was done with which configuration, newest first."""
    from curator.errors import InputError

    with open_store() as store:
        found = store.runs(stage=stage)
        if stage and not found and stage not in _commands():
            recorded = dict.fromkeys(run.stage for run in store.runs())
            raise InputError(
                f"--stage: no stage called {stage!r}; recorded are: {', '.join(recorded) or 'none yet'}"
            )
    if as_json:
        typer.echo(json.dumps([_plain(run) for run in found]))
        return
    if not found:
        typer.echo("no runs" + (f" of {stage}" if stage else ""))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "run", "stage", "status", "started (UTC)", "seconds", "items", "seed", "configuration", box=None
    )
    for run in found:
        table.add_row(
            str(run.id),
            run.stage,
            run.status,
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            _seconds(run),
            ", ".join(f"{number} {name}" for name, number in run.counts.items() if number),
            "" if run.seed is None else str(run.seed),
            _configuration(run.config),
        )
    width = None if sys.stdout.isatty() else 200  # a pipe gets whole lines
    console = Console(markup=False, highlight=False, width=width)
    console.print(table)


@database.command()
def upgrade() -> None:
    """Bring the workspace's database to this version's schema."""
    from store import schema
    from store.workspace import open_database

    opened = open_database(settings.workspace.absolute())
    try:
        before, after = schema.upgrade(opened, settings.workspace)
    finally:
        opened.close()
    typer.echo(f"schema {after}" + (": nothing to do" if before == after else f" (was {before})"))
    _describe_images()


def _describe_images() -> None:
    """Images of an older workspace get what they are compared by."""
    from curator.progress import progress

    with open_store() as store, progress("describe images", store.counts()["images"]) as advance:
        described, gone = store.describe_images(advance)
    if described:
        typer.echo(f"{described} images are now compared by their thumbnails (docs/decisions/0008)")
    if gone:
        typer.echo(
            f"{gone} images have no readable, unchanged file: they are compared by a hash until they have one"
        )


@database.command()
def check(as_json: Json = False) -> None:
    """Compare the database with this version's schema and look for damage; exit code 1 when there is any."""
    from store import schema
    from store.workspace import open_database, with_database_errors

    opened = open_database(settings.workspace.absolute())
    problems: list[str] = []
    try:
        with_database_errors(lambda: problems.extend(schema.check(opened)), opened.url)
    finally:
        opened.close()
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems}))
    else:
        typer.echo("\n".join(problems) or "the database is sound")
    if problems:
        raise typer.Exit(1)


def _commands() -> set[str]:
    """Names of the commands: a stage is called as its command."""
    return {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    }


def _plain(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "stage": run.stage,
        "status": run.status,
        "config": run.config,
        "seed": run.seed,
        "code_version": run.code_version,
        "models": list(run.models),
        "parents": list(run.parents),
        "started_at": run.started_at.isoformat(),
        "finished_at": None if run.finished_at is None else run.finished_at.isoformat(),
        "counts": run.counts,
    }


def _seconds(run: RunRecord) -> str:
    return "" if run.finished_at is None else f"{(run.finished_at - run.started_at).total_seconds():.1f}"


def _configuration(config: Any) -> str:
    hidden = ("seed", "device", "batch_size")
    return " ".join(
        f"{name}={value}"
        for name, value in config.items()
        if name not in hidden and value not in (None, "", [], {})
    )
