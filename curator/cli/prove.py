"""Commands that prove: train, verify."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def train(
    detector: Annotated[
        str, typer.Option(help="Initial weights: torchvision:..., curator:PATH, curator:ssd?..., builtin:.")
    ],
    out: Annotated[
        Path, typer.Option(help="File of the trained weights (.safetensors); curator:PATH reads it.")
    ],
    selection: Annotated[list[str] | None, typer.Option(help="Selection to add; may be repeated.")] = None,
    samples: Annotated[
        list[str] | None, typer.Option(help="Batch of samples to add; may be repeated.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 0.003,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 0.0005,
    added_weight: Annotated[
        float, typer.Option(help="How often an added image is drawn relative to an original.")
    ] = 3.0,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="DETECTOR=CLASS",
            help="A detector class in terms of the data set's; may be repeated.",
        ),
    ] = None,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    zoom: Annotated[float, typer.Option(help="Scale images at random by up to this share; 0: none.")] = 0.15,
    batch_norm: Annotated[
        str, typer.Option(help="frozen (fine-tuning) or train (fresh weights).")
    ] = "frozen",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune a detector on the training images, selections and accepted samples."""
    from curator import pipeline
    from curator.cli.tables import parse_map
    from curator.jobs.outputs import require_file
    from curator.prove.settings import TrainConfig

    require_file(out)
    config = TrainConfig.from_table(
        {
            "detector": detector,
            "out": out,
            "selections": selection or [],
            "samples": samples or [],
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "added_weight": added_weight,
            "class_map": parse_map(class_map or ()),
            "flip": flip,
            "zoom": zoom,
            "batch_norm": batch_norm,
            "precision": precision,
            "device": device,
            "seed": seed,
        },
        where="train",
    )
    with open_store() as store:
        finish(pipeline.train(store, config), as_json=as_json, lines=_training_lines)


def _training_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        f"trained on {summary['images']} images and {summary['added']} added ones: "
        f"loss {summary['loss_first']:.3f} to {summary['loss_last']:.3f}; "
        f"use it as --detector {shlex.quote(summary['detector'])}",
        *(f"warning: {warning}" for warning in summary["warnings"]),
    ]
    if summary["missing_classes"]:
        lines.append(f"the detector cannot produce: {', '.join(summary['missing_classes'])} (left out)")
    return lines


@app.command()
def verify(
    detector: Annotated[
        str | None, typer.Option(help="Initial weights; default: the diagnosed ones.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the verification.")] = "verify",
    arms: Annotated[
        str, typer.Option(help="Comma-separated, of nothing, random, query, synthesis, both, oracle.")
    ] = "nothing,random,query,synthesis,both,oracle",
    selection: Annotated[str, typer.Option(help="Selection of the query arm.")] = "query",
    samples: Annotated[str, typer.Option(help="Batch of samples of the synthesis arm.")] = "synthesis",
    budget: Annotated[int, typer.Option(help="Images that every arm adds.")] = 100,
    seeds: Annotated[str, typer.Option(help="Comma-separated training seeds.")] = "0",
    steps: Annotated[int, typer.Option(help="Optimiser steps of every training.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 0.003,
    added_weight: Annotated[
        float, typer.Option(help="How often an added image is drawn relative to an original.")
    ] = 3.0,
    score_threshold: Annotated[float, typer.Option(help="The base's threshold.")] = 0.5,
    iou_threshold: Annotated[float, typer.Option(help="Overlap that a match needs at least.")] = 0.5,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="DETECTOR=CLASS",
            help="As for diagnose, whose map is the default; may be repeated.",
        ),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Retrain on every arm's images and measure on the holdout what that fixes and breaks."""
    from curator import pipeline
    from curator.cli.tables import parse_map, parse_seeds
    from curator.prove.settings import VerifyConfig

    config = VerifyConfig(
        detector=detector,
        name=name,
        arms=tuple(arm.strip() for arm in arms.split(",")),
        selection=selection,
        samples=samples,
        budget=budget,
        seeds=parse_seeds(seeds),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        added_weight=added_weight,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        class_map=parse_map(class_map or ()),
        device=device,
        seed=seed,
    )
    with open_store() as store:
        finish(pipeline.verify(store, config), as_json=as_json, lines=_verification_lines)


def _verification_lines(summary: Mapping[str, Any]) -> list[str]:
    from curator.cli.tables import table_lines

    base = summary["base"]
    lines = [f"warning: {warning}" for warning in summary["warnings"]]
    if base:
        lines += table_lines(
            f"holdout: {base['images']} images, {base['objects']} objects",
            summary["columns"],
            summary["rows"],
        )
        lines.append(
            "each figure is the worse of two readings: at the base's threshold, and at the base's number of "
            "false positives (FN fixed, broken) or of found objects (FP fixed, new FP)"
        )
    if summary["unscored_gaps"]:
        lines.append(f"fewer than 30 holdout failures, not scored: {', '.join(summary['unscored_gaps'])}")
    if summary["missing_classes"]:
        lines.append(f"the detector cannot produce: {', '.join(summary['missing_classes'])} (left out)")
    return lines
