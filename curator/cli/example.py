"""The built-in example: `curator example render | train-detector | train-inpainter`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from curator.cli.app import Json, Seed, app
from curator.cli.derive import add_command
from curator.example.settings import ExampleDetectorConfig, InpainterConfig

example = typer.Typer(
    no_args_is_help=True, help="Flowers with planted gaps: data whose failures and causes are known."
)
app.add_typer(example, name="example")


@example.command()
def render(
    out: Annotated[Path, typer.Argument(help="Folder; each role becomes a sub-folder in COCO format.")],
    train: Annotated[int, typer.Option(help="Clean scenes to train on.")] = 300,
    mine: Annotated[int, typer.Option(help="Scenes to mine failures on.")] = 300,
    pool: Annotated[int, typer.Option(help="Scenes of the pool, where gaps are rare.")] = 3000,
    holdout: Annotated[int, typer.Option(help="Scenes to verify on.")] = 600,
    pool_rate: Annotated[float, typer.Option(help="Share of pool scenes that has each gap.")] = 0.015,
    size: Annotated[int, typer.Option(help="Side of a scene in pixels.")] = 192,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Render the example's data sets; a role that is there already with equal parameters is kept."""
    from curator.example.dataset import GapRates, write_dataset

    folders = write_dataset(
        out,
        sizes={"train": train, "mine": mine, "pool": pool, "holdout": holdout},
        seed=seed,
        size=size,
        rates=GapRates(pool=pool_rate),
    )
    if as_json:
        typer.echo(json.dumps({role: str(folder) for role, folder in folders.items()}))
        return
    for role, folder in folders.items():
        typer.echo(f"{role}: {folder}   (curator add coco {folder} --role {role})")


def _train_detector(config: ExampleDetectorConfig, as_json: bool) -> None:
    from curator.example.detector import train_example_detector

    result = train_example_detector(config)
    typer.echo(
        json.dumps(result)
        if as_json
        else f"{result['out']}: {result['steps']} steps, loss {result['loss_last']:.3f}; clean: recall "
        f"{result['recall']:.3f}, precision {result['precision']:.3f}"
    )


def _train_inpainter(config: InpainterConfig, as_json: bool) -> None:
    from curator.example.inpainter import train_example_inpainter

    result = train_example_inpainter(config)
    typer.echo(
        json.dumps(result)
        if as_json
        else f"{result['out']}: {result['steps']} steps, loss {result['loss_first']:.3f} to "
        f"{result['loss_last']:.3f}"
    )


add_command(
    example,
    "train-detector",
    ExampleDetectorConfig,
    _train_detector,
    help="Train the detector that the example ships, or one of another family, on clean scenes alone.",
)
add_command(
    example,
    "train-inpainter",
    InpainterConfig,
    _train_inpainter,
    help="Train the exemplar-conditioned inpainter that the example ships, without labels.",
)
