"""The command that fits what PDA draws patches from: fit-patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def fit_patches(
    out: Annotated[Path, typer.Option(help="File of the fitted patches; one that is there is replaced.")],
    detector: Annotated[
        str | None, typer.Option(help="Detector spec; default: the diagnosed one.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Whose images: train (default), mine; may be repeated.")
    ] = None,
    images: Annotated[int, typer.Option(help="Images drawn by the seed, at most.")] = 200,
    patch: Annotated[int, typer.Option(help="Side of a window, pixels of the detector's input.")] = 10,
    pad: Annotated[int, typer.Option(help="Pixels around a window that its draws are given.")] = 2,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit the Gaussian over image patches that --method pda draws from, on training images alone."""
    from curator import pipeline
    from curator.explain.settings import FitPatchesConfig

    config = FitPatchesConfig.from_table(
        {
            "out": out,
            "roles": role or ["train"],
            "images": images,
            "patch": patch,
            "pad": pad,
            "device": device,
            "seed": seed,
            **({"detector": detector} if detector else {}),
        },
        where="fit-patches",
    )
    with open_store() as store:
        finish(pipeline.fit_patches(store, config), as_json=as_json, lines=_lines)


def _lines(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"{summary['squares']} squares of {summary['images']} images, {summary['patch']} px and "
        f"{summary['pad']} px around, for {summary['detector']}",
        f"explain with them: --method 'pda?model={summary['model']}'",
    ]
