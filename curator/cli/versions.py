"""The command of data set versions: list, compare, write again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Json, app, finish, open_store

SHOWN = 10  # images that people are named of each kind


@app.command()
def versions(
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="What changed from version A to version B."),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Write this version again, byte by byte what it was; needs --out, the same curator, and for "
            "added images the same encoder."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; it must not exist, or be empty.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the data sets that were exported; compare two of them, or write one again.

    A version is named by its number, or by its name: the newest one called so. #1 is number 1 where another
    version is called 1.

    It can be written again while the workspace's image files are there and unchanged, by a curator that
    writes them as it did; what would differ is refused.
    """
    from curator import pipeline
    from curator.errors import InputError

    if diff is not None and export is not None:
        raise InputError("versions: expected --diff or --export, got both")
    if (export is None) != (out is None):
        raise InputError("versions: --export N and --out FOLDER go together")
    with open_store() as store:
        if export is not None and out is not None:
            result = pipeline.export_version(store, pipeline.VersionExportConfig(version=export, out=out))
        elif diff is not None:
            found, lines = pipeline.compare_versions(store, *diff), compared_lines
        else:
            found, lines = {"versions": pipeline.versions(store)}, version_lines
    if export is not None:
        finish(result, as_json=as_json, lines=again_lines)
    else:
        typer.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


def version_lines(found: Mapping[str, Any]) -> list[str]:
    """A table of all versions."""
    from curator.cli.tables import table_lines

    if not found["versions"]:
        return ["no data set versions; `curator export` makes one"]
    columns = ("version", "name", "made (UTC)", "format", "train", "pool", "samples", "objects", "made of")
    rows = [
        (
            str(version["number"]),
            version["name"],
            (version["made"] or "-")[:16].replace("T", " "),
            version["format"],
            *(str(version["images"][role]) for role in ("train", "pool", "sample")),
            "-" if version["objects"] is None else str(sum(version["objects"].values())),
            ", ".join(
                [
                    *(f"selection {name}" for name in version["selections"]),
                    *(f"samples {name}" for name in version["samples"]),
                ]
            )
            or "-",
        )
        for version in found["versions"]
    ]
    lines = table_lines("Data set versions", columns, rows)
    old = [str(version["number"]) for version in found["versions"] if not version["recorded"]]
    if old:
        lines.append(
            f"without a record of their labels, so neither compared nor written again: {', '.join(old)}"
        )
    return lines


def compared_lines(found: Mapping[str, Any]) -> list[str]:
    """What changed from one version to another."""
    lines = [_facts(version) for version in found["versions"]]
    before, after = (version["objects"] for version in found["versions"])
    changed = [
        f"{name} {before.get(name, 0)} -> {after.get(name, 0)}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name, 0) != after.get(name, 0)
    ]
    if changed:
        lines.append(f"objects: {', '.join(changed)}")
    lines += _images("images added", found["added"], lambda image: f"{image['objects'][1]} objects")
    lines += _images("images removed", found["removed"], lambda image: f"{image['objects'][0]} objects")
    lines += _images("images with other labels", found["labels"], _labels)
    lines += _images("images in another role", found["roles"], lambda image: " -> ".join(image["roles"]))
    return lines


def _facts(version: Mapping[str, Any]) -> str:
    images, objects = version["images"], sum(version["objects"].values())
    encoded = ""
    if "encoding" in version and images["pool"] + images["sample"]:
        quality = "" if version["quality"] is None else f" {version['quality']}"
        encoded = f", added as {version['encoding']}{quality}"
    return (
        f"version {version['number']} ({version['name']}, {version['format']}{encoded}): "
        f"{sum(images.values())} images ({images['train']} training, {images['pool']} selected, "
        f"{images['sample']} samples), {objects} objects"
    )


def _labels(image: Mapping[str, Any]) -> str:
    (before, after), (waited, waits) = image["objects"], image["pre_annotated"]
    count = f"{before} -> {after} objects" if before != after else f"{after} objects"
    if waited != waits:
        return f"{count}, {'pre-annotations by now' if waits else 'no pre-annotations any more'}"
    return count if before != after else f"{count}, other boxes, classes or attributes"


def _images(what: str, changed: Mapping[str, Any], say: Callable[[Mapping[str, Any]], str]) -> list[str]:
    lines = [f"{changed['count']} {what}"]
    lines += [f"  {image['name']}: {say(image)}" for image in changed["images"][:SHOWN]]
    if changed["count"] > SHOWN:
        lines.append(f"  ... {changed['count']} in all (--json names up to {len(changed['images'])})")
    return lines


def again_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator versions --export`."""
    number = {"number": summary["version_number"], "name": summary["version"]}
    return [
        f"{summary['out']}: {_facts({**summary, **number})}",
        *(f"warning: {warning}" for warning in summary["warnings"]),
    ]
