"""The command that says which method to trust: evaluate-explanations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def evaluate_explanations(
    methods: Annotated[
        str,
        typer.Option(
            help="Methods joined by commas: NAME, NAME?setting=value or NAME@K; @K overrides --samples "
            "(permutation@1: one pair of permutations)."
        ),
    ] = "e2x,e2x_kernel,ig_s,lime,kernel_shap,odam@1,permutation@1",
    samples: Annotated[str, typer.Option(help="Numbers of samples K to try, such as 16,64.")] = "16,64",
    targets: Annotated[int, typer.Option(help="Failures and successes drawn by the seed.")] = 12,
    per_image: Annotated[int, typer.Option(help="At most so many of them on one image.")] = 3,
    reference_pairs: Annotated[
        int, typer.Option(help="Antithetic pairs of permutations of the reference.")
    ] = 20,
    segments: Annotated[int, typer.Option(help="Wanted number of segments per image.")] = 100,
    target: Annotated[
        str,
        typer.Option(help="What is explained: probability, log_odds, or auto: log-odds where they exist."),
    ] = "auto",
    fill: Annotated[str, typer.Option(help="What hidden segments show.")] = "mean",
    detector: Annotated[
        str | None, typer.Option(help="Detector spec; default: the one last diagnosed.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the methods: auto, fp32 or bf16.")] = "fp32",
    out: Annotated[Path, typer.Option(help="JSON file with every target's numbers.")] = Path(
        "evaluation.json"
    ),
    plot: Annotated[Path, typer.Option(help="SVG file: fidelity against cost.")] = Path("evaluation.svg"),
    batch_size: Annotated[int, typer.Option(help="Masked images per forward pass.")] = 16,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure which explanation method is faithful for this detector and these images."""
    from curator import pipeline
    from curator.explain.settings import EvaluateConfig

    config = EvaluateConfig.from_table(
        {
            "methods": [name.strip() for name in methods.split(",") if name.strip()],
            "samples": _counts(samples),
            "targets": targets,
            "per_image": per_image,
            "reference_pairs": reference_pairs,
            "segments": segments,
            "target": target,
            "fill": fill,
            "precision": precision,
            "out": out,
            "plot": plot,
            "batch_size": batch_size,
            "device": device,
            "seed": seed,
            **({"detector": detector} if detector else {}),
        },
        where="evaluate-explanations",
    )
    with open_store() as store:
        finish(pipeline.evaluate_explanations(store, config), as_json=as_json, lines=_evaluation_lines)


def _counts(text: str) -> list[int]:
    from curator.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--samples: expected whole numbers such as 16,64, got {text!r}")
    return [int(part) for part in parts]


def _evaluation_lines(summary: Mapping[str, Any]) -> list[str]:
    from curator.cli.tables import share, table_lines

    def interval(row: Mapping[str, Any]) -> str:
        if row["r_low"] is None:
            return share(row["r"])
        return f"{row['r']:.3f} [{row['r_low']:.2f}, {row['r_high']:.2f}]"

    columns = (
        "method",
        "passes",
        "s/target",
        "r [95%]",
        "r corrected",
        "rel. error",
        "deletion",
        "insertion",
        "pointing",
        "energy in box",
    )
    rows = [
        [
            row["method"],
            f"{row['passes']:.0f}",
            share(row["seconds"]),
            interval(row),
            *(
                share(row[name])
                for name in ("r_corrected", "relative_error", "deletion", "insertion", "pointing", "energy")
            ),
        ]
        for row in summary["rows"]
    ]
    drawn = ", ".join(f"{count} {kind}" for kind, count in summary["targets"].items())
    title = (
        f"{drawn} on {summary['images']} images; reference: {summary['reference_pairs']} pairs of "
        f"permutations, reliability {share(summary['reliability'])}"
    )
    return [
        *table_lines(title, columns, rows),
        f"left out, for want of evidence: {summary['without_evidence']}",
        f"{summary['out']}, {summary['plot']}",
        summary["conclusion"],
    ]
