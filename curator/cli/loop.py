"""Commands over the whole loop: run, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli.app import Device, Json, Seed, app, settings

if TYPE_CHECKING:
    from curator.jobs.stage import StageResult
    from curator.pipeline.loop import Step


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file with a table per stage.")],
    as_json: Json = False,
) -> None:
    """Run every stage that a TOML file asks for, skipping what is done."""
    from curator.pipeline import run_config

    steps: list[dict[str, object]] = []

    def announce(step: Step, result: StageResult, seconds: float) -> None:
        steps.append(
            {
                "stage": step.stage,
                "run": result.run_id,
                "done": result.done,
                "skipped": result.skipped,
                "failed": result.failed,
                "failures": [list(f) for f in result.failures],
                "seconds": round(seconds, 2),
                **result.summary,
            }
        )
        if not as_json:
            typer.echo(
                f"{step.stage:10s} {seconds:7.1f} s  {result.done} done, {result.skipped} already stored, "
                f"{result.failed} failed{_remark(result)}"
            )
            for item, reason in result.failures[:5]:
                typer.echo(f"  failed: {item}: {reason}", err=True)

    results = run_config(
        config, workspace=settings.workspace if settings.workspace_given else None, announce=announce
    )
    if as_json:
        typer.echo(json.dumps({"steps": steps}))
    codes = [result.exit_code for result in results if result.exit_code]
    if codes:
        raise typer.Exit(min(codes))


def _remark(result: StageResult) -> str:
    shown = {key: value for key, value in result.summary.items() if isinstance(value, int | float | str)}
    return "".join(f"; {key} {value}" for key, value in list(shown.items())[:4])


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, workspace and report.")] = Path("curator-demo"),
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Mend the built-in example's detector, from rendering to the report, in a few minutes."""
    from curator.pipeline import demo as run_demo

    result = run_demo(out, seed=seed, device=device, announce=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        for line in result["lines"]:
            typer.echo(line)
