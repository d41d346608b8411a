"""The commands that look at synthetic samples: samples, reproduce."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from curator.cli.app import Json, app, open_store


@app.command()
def samples(
    name: Annotated[str | None, typer.Option(help="Batch of samples; default: all.")] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show the rejected ones alone.")] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML file with pictures instead: before and after, accepted and rejected."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List synthetic samples with the gate's verdicts."""
    from curator.errors import InputError

    with open_store() as store:
        batches = dict.fromkeys(
            [s.name for s in store.samples()] + [r.config["name"] for r in store.runs(stage="synthesize")]
        )
        if name is not None and name not in batches:
            raise InputError(
                f"--name: no batch of samples called {name!r}; "
                f"there are: {', '.join(batches) or 'none (run `curator synthesize`)'}"
            )
        found = store.samples(name=name, accepted=False if rejected else None)
        if sheet is not None:
            from curator.synthesize.run_sheet import sheet as written

            writable("--sheet", sheet)
            sheet.write_text(written(store, found), encoding="utf-8")
    if as_json:
        typer.echo(
            json.dumps({"samples": [{**dataclasses.asdict(s), "accepted": s.accepted} for s in found]})
        )
        return
    if sheet is not None:
        accepted = sum(s.accepted for s in found)
        typer.echo(f"{sheet}: {accepted} accepted and {len(found) - accepted} rejected samples")
        return
    for sample in found:
        refused = "; ".join(str(verdict) for verdict in sample.verdicts if not verdict.accepted)
        typer.echo(
            f"{sample.id:>5}  {'accepted' if sample.accepted else 'rejected'}  {sample.recipe:<10}  "
            f"{sample.group}  scene {sample.scene_image_id}  {sample.blob[:12]}  {refused}".rstrip()
        )
    typer.echo(f"{len(found)} samples, {sum(s.accepted for s in found)} accepted")


def writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before anything is painted.

    Raises:
        InputError: its folder is missing, or it is a folder itself.
    """
    from curator.errors import InputError

    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{option}: expected a file in an existing folder, got {path}")


@app.command()
def reproduce(
    sample: Annotated[int, typer.Argument(help="Number of the sample, as `curator samples` lists it.")],
    out: Annotated[Path | None, typer.Option(help="Write the picture there too.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Paint a sample anew from its lineage and compare it with the stored one, byte by byte."""
    from curator.synthesize.run_reproduce import reproduce as again

    if out is not None:
        writable("--out", out)
    with open_store() as store:
        png, lineage = again(store, sample, device=device)
    if out is not None:
        out.write_bytes(png)
    if as_json:
        typer.echo(json.dumps(lineage))
    else:
        for key, value in lineage.items():
            typer.echo(f"{key:<12} {value}")
    if not lineage["equal"]:
        raise typer.Exit(1)
