"""Commands that bring data in: add."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Json, app, finish, open_store


@app.command()
def add(
    format: Annotated[
        str, typer.Argument(help="coco, yolo, voc, images (a folder without labels), video, or deeppcb.")
    ],
    path: Annotated[
        Path,
        typer.Argument(
            help="coco: JSON file or folder; yolo: data.yaml or folder; voc, images, deeppcb: folder; "
            "video: file or folder."
        ),
    ],
    role: Annotated[
        str,
        typer.Option(
            help="train, mine (failures are mined here), pool (samples are sought here) "
            "or holdout (verify alone reads it)."
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the image files, where it is not found.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, joined by commas; yolo: by class id.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the data set, e.g. train, valid; default: all.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Name in the workspace; default: the folder's.")] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression on image names; its first group "
            "names what belongs together, such as a video."
        ),
    ] = None,
    reviewed: Annotated[
        bool,
        typer.Option("--reviewed", help="Boxes still marked as pre-annotations were checked by a human."),
    ] = False,
    part: Annotated[
        str | None, typer.Option(help="FROM-TO in percent: the images whose names hash into it, e.g. 0-35.")
    ] = None,
    background: Annotated[
        bool | None,
        typer.Option(
            "--background/--unlabelled",
            help="yolo: images without a label file hold no objects, or wait for labels; "
            "default: the data set tells.",
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(help="video: a frame each so many seconds (1s, the default; 0.5s) or frames (10f)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add images and labels; a corrected file added again gives its images new labels.

    Broken items are listed and skipped (exit code 3); equal images and leaks are named.
    """
    from curator import pipeline
    from curator.data.settings import AddConfig

    names = [name.strip() for name in classes.split(",") if name.strip()] if classes else []
    config = AddConfig.from_table(
        {
            "format": format,
            "path": path,
            "role": role,
            "images": images,
            "classes": names,
            "split": split,
            "dataset": dataset,
            "group_pattern": group_pattern,
            "part": part,
            "reviewed": reviewed,
            "background": background,
            "every": every,
        },
        where="add",
    )
    with open_store() as store:
        result = pipeline.add(store, config)
    for leak in result.summary["leaks"][:20]:
        typer.echo(f"leak: {leak}", err=True)
    if result.summary["leak_count"] > 20:
        typer.echo(f"leak: ... {result.summary['leak_count']} in all (--json names up to 200)", err=True)
    finish(result, as_json=as_json, lines=_add_lines)


def _add_lines(summary: Mapping[str, Any]) -> list[str]:
    splits = {name: count for name, count in summary["splits"].items() if name}
    parts = f" ({', '.join(f'{name} {count}' for name, count in splits.items())})" if splits else ""
    lines = [
        f"{summary['dataset']} as {summary['role']}: {summary['images']} images{parts}, "
        f"{summary['new_images']} new; {summary['objects']} objects, "
        f"{summary['new_annotation_versions']} images with new labels, {summary['unlabelled']} without labels"
    ]
    counted = {
        "dropped_objects": "objects dropped",
        "incomplete_images": "images without their labels, which a dropped object made incomplete",
        "changed_objects": "objects or images read otherwise than written (clipped, listed twice, ...)",
        "duplicate_count": "images equal or nearly equal to others",
        "leak_count": "leaks (named on stderr): queries refuse these images",
        "passed_over": "synthetic images of an export passed over",
        "still_pre_annotated": "images still marked as pre-annotations: their boxes were not taken as labels "
        "(correct them and remove the mark, or add with --reviewed)",
    }
    lines += [f"{summary[name]} {text}" for name, text in counted.items() if summary[name]]
    lines += [f"  note: {note}" for note in summary["notes"][:10]]
    lines += [f"  duplicate: {pair}" for pair in summary["duplicates"][:10]]
    if summary["duplicate_count"] > 10:
        lines.append(
            f"  ... {summary['duplicate_count']} in all (--json lists up to {len(summary['duplicates'])})"
        )
    return lines
