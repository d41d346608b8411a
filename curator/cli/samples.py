"""The command that lists synthetic samples: samples."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from curator.cli.app import Json, app, open_store


@app.command()
def samples(
    name: Annotated[str | None, typer.Option(help="Batch of samples; default: all.")] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show the rejected ones alone.")] = False,
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
    if as_json:
        typer.echo(
            json.dumps({"samples": [{**dataclasses.asdict(s), "accepted": s.accepted} for s in found]})
        )
        return
    for sample in found:
        refused = "; ".join(
            f"{v.check} {v.value:g} against {v.bound:g}: {v.reason}"
            for v in sample.verdicts
            if not v.accepted
        )
        typer.echo(
            f"{sample.id:>5}  {'accepted' if sample.accepted else 'rejected'}  {sample.recipe:<10}  "
            f"{sample.group}  scene {sample.scene_image_id}  {sample.blob[:12]}  {refused}".rstrip()
        )
    typer.echo(f"{len(found)} samples, {sum(s.accepted for s in found)} accepted")
