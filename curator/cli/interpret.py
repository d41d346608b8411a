"""The command that shows what a detector's features respond to: interpret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def interpret(
    detector: Annotated[
        str | None, typer.Option(help="Detector spec; default: the diagnosed one.")
    ] = None,
    mu: Annotated[
        float, typer.Option(help="Bound of a class's weights, ||w||_1; smaller is sparser.")
    ] = 10.0,
    role: Annotated[
        list[str] | None,
        typer.Option(help="Whose labelled images: train, mine (default: both); may be repeated."),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="conv (every convolution but the last) or levels (the feature levels).")
    ] = "conv",
    pooling: Annotated[
        str, typer.Option(help="Features inside each object's box, or over the whole image.")
    ] = "box",
    features: Annotated[int, typer.Option(help="Features shown per class.")] = 3,
    patches: Annotated[int, typer.Option(help="Patches of an average image, at most.")] = 100,
    class_map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="DETECTOR=CLASS", help="As for diagnose; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the model, the summary and the page.")] = Path(
        "interpretation"
    ),
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find the internal features that speak for each class, and show what they respond to (VEBI)."""
    from curator import pipeline
    from curator.cli.tables import parse_map
    from curator.explain.settings import InterpretConfig

    config = InterpretConfig.from_table(
        {
            "mu": mu,
            "roles": role or ["train", "mine"],
            "layers": layers,
            "pooling": pooling,
            "features": features,
            "patches": patches,
            "class_map": parse_map(class_map or ()),
            "out": out,
            "device": device,
            "seed": seed,
            **({"detector": detector} if detector else {}),
        },
        where="interpret",
    )
    with open_store() as store:
        finish(pipeline.interpret(store, config), as_json=as_json, lines=_lines)


def _lines(summary: Mapping[str, Any]) -> list[str]:
    from curator.cli.tables import share, table_lines

    rows = [
        [
            row["class"],
            str(row["samples"]),
            str(row["relevant"]),
            ", ".join(f"{f['layer']}:{f['channel']}" for f in row["features"]) or "-",
        ]
        for row in summary["classes"]
    ]
    return [
        *table_lines(
            f"{summary['samples']} objects, {summary['filters']} filters, mu {summary['mu']:g}: "
            f"{summary['relevant']} relevant, which tell {share(summary['accuracy'])} of the objects",
            ("class", "objects", "relevant", "strongest"),
            rows,
        ),
        f"explain with them: --method 'vebi?model={summary['model']}'",
        f"look at them: {summary['page']}",
    ]
