"""Commands that mend: index, query, synthesize, export."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def index(
    embedder: Annotated[
        str, typer.Option(help="Embedder spec, e.g. detector: or detector:?levels=NAME,NAME&dimension=N.")
    ] = "detector:",
    detector: Annotated[str | None, typer.Option(help="Detector spec; default: the diagnosed one.")] = None,
    candidates: Annotated[int, typer.Option(help="Candidate boxes per image.")] = 12,
    cells: Annotated[
        int, typer.Option(help="Grid cells per side; half as many, twice as large, are added.")
    ] = 4,
    windows: Annotated[int, typer.Option(help="Salient windows per image.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Store vectors of failures, successes and the pool, to be queried."""
    from curator import pipeline
    from curator.query.settings import IndexConfig

    config = IndexConfig(
        embedder=embedder,
        detector=detector,
        candidates=candidates,
        cells=cells,
        windows=windows,
        batch_size=batch_size,
        device=device,
    )
    with open_store() as store:
        finish(pipeline.index(store, config), as_json=as_json, lines=_index_lines)


def _index_lines(summary: Mapping[str, Any]) -> list[str]:
    images = ", ".join(f"{count} {role}" for role, count in summary["images"].items())
    return [
        f"images: {images}; views: {', '.join(summary['views'])}",
        f"culprits of {summary['culprits']} failures, {explained_by(summary)}",
    ]


def explained_by(summary: Mapping[str, Any]) -> str:
    """Whose explanations a stage used."""
    found = summary["explained_by"]
    return f"explained by {found}" if found else "nothing is explained yet (curator explain)"


@app.command()
def query(
    failures: Annotated[
        str,
        typer.Option(
            help="Which failures ask: KIND[:CAUSE][,class=NAME], alternatives "
            "joined by ';', e.g. FN:miss,class=Car; empty: all."
        ),
    ] = "",
    budget: Annotated[int, typer.Option(help="Number of pool images wanted.")] = 100,
    name: Annotated[
        str, typer.Option(help="Name of the selection; an older one of this name is replaced.")
    ] = "query",
    method: Annotated[
        str, typer.Option(help="contrastive, or the baselines similarity and random.")
    ] = "contrastive",
    view: Annotated[str, typer.Option(help="auto, object, context, sides or image.")] = "auto",
    embedder: Annotated[str, typer.Option(help="Embedder spec that the index was made with.")] = "detector:",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Select the pool images that are most like the failures and unlike what works."""
    from curator import pipeline
    from curator.query.settings import QueryConfig

    config = QueryConfig.from_table(
        {
            "failures": failures,
            "budget": budget,
            "name": name,
            "method": method,
            "view": view,
            "embedder": embedder,
            "seed": seed,
        },
        where="query",
    )
    with open_store() as store:
        finish(pipeline.query(store, config), as_json=as_json, lines=_query_lines)


def _query_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = [f"selection {summary['selection']!r}: {len(summary['hits'])} images"]
    for group in summary["groups"]:
        told = f", separation {group['separation']:.3f}" if group.get("separation") is not None else ""
        views = f" by {'+'.join(group['views'])}" if group.get("views") else ""
        lines.append(
            f"  {group['name']}: {group['failures']} failures asked{views}{told}: {group['hits']} images"
        )
    lines.append(explained_by(summary))
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += ["rank  score    group     asked by  image"]
    lines += [
        f"{h['rank']:>4}  {h['score']:>7.3f}  {h['group']:<8}  {h['outcome'] or '-':>8}  {h['uri']}"
        for h in summary["hits"]
    ]
    return lines


@app.command()
def synthesize(
    selection: Annotated[
        str | None,
        typer.Option(help="Selection whose labelled images serve as scenes, beside the training set."),
    ] = None,
    budget: Annotated[int, typer.Option(help="Number of accepted samples wanted.")] = 50,
    inpainter: Annotated[
        str,
        typer.Option(help="builtin:, curator:DIR, auto:ID (a hub id or folder) or diffusers:ClassName:ID."),
    ] = "builtin:",
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="culprit, lookalike or appearance; may be repeated; default: all."),
    ] = None,
    failures: Annotated[
        str, typer.Option(help="Which failures to answer, e.g. FN:miss,class=Car; empty: all.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the batch of samples.")] = "synthesis",
    detector: Annotated[str | None, typer.Option(help="Detector spec; default: the diagnosed one.")] = None,
    attempts: Annotated[int, typer.Option(help="Plans tried per wanted sample at most.")] = 3,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Plans per batch.")] = 8,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Paint the conditions of failures into labelled scenes; a gate accepts or rejects each sample."""
    from curator import pipeline
    from curator.synthesize.settings import SynthesizeConfig

    table = {
        "selection": selection,
        "budget": budget,
        "inpainter": inpainter,
        "failures": failures,
        "name": name,
        "detector": detector,
        "attempts": attempts,
        "steps": steps,
        "batch_size": batch_size,
        "device": device,
        "seed": seed,
    }
    config = SynthesizeConfig.from_table(table | ({"recipes": recipe} if recipe else {}), where="synthesize")
    with open_store() as store:
        finish(pipeline.synthesize(store, config), as_json=as_json, lines=_synthesize_lines)


def _synthesize_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        f"samples {summary['name']!r}: {summary['accepted']} accepted of {summary['budget']} wanted, "
        f"{summary['rejected']} rejected, {summary['unplaced']} without a fitting place"
    ]
    lines += [f"  {group}: {count}" for group, count in summary["per_group"].items()]
    lines += [f"  rejected, {reason}: {count}" for reason, count in summary["reasons"].items()]
    lines.append(explained_by(summary))
    lines += [f"note: {note}" for note in summary["notes"]]
    return lines


@app.command()
def samples(
    name: Annotated[str | None, typer.Option(help="Batch of samples; default: all.")] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show the rejected ones alone.")] = False,
    as_json: Json = False,
) -> None:
    """List synthetic samples with the gate's verdicts."""
    import dataclasses
    import json

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


@app.command()
def export(
    format: Annotated[str, typer.Argument(help="coco, yolo or voc.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; it must not exist, or be empty.")],
    selection: Annotated[list[str] | None, typer.Option(help="Selection to add; may be repeated.")] = None,
    samples: Annotated[list[str] | None, typer.Option(help="Batch of samples to add; repeatable.")] = None,
    encoding: Annotated[str, typer.Option(help="jpeg or png, for all added images alike.")] = "jpeg",
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.")] = 95,
    score_threshold: Annotated[
        float,
        typer.Option(help="Detections at or above it pre-annotate selected images that have no labels."),
    ] = 0.5,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="DETECTOR=CLASS",
            help="A detector class in terms of the data set's; may be repeated.",
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Name of the version; default: the folder's.")] = None,
    as_json: Json = False,
) -> None:
    """Write the training set with selected images and accepted samples, in the trainer's format."""
    from curator import pipeline
    from curator.cli.tables import parse_map
    from curator.data.settings import ExportConfig

    config = ExportConfig.from_table(
        {
            "format": format,
            "out": out,
            "selections": selection or [],
            "samples": samples or [],
            "encoding": encoding,
            "quality": quality,
            "score_threshold": score_threshold,
            "class_map": parse_map(class_map or ()),
            "version": version,
        },
        where="export",
    )
    with open_store() as store:
        finish(pipeline.export(store, config), as_json=as_json, lines=_export_lines)


def _export_lines(summary: Mapping[str, Any]) -> list[str]:
    images = summary["images"]
    lines = [
        f"{summary['out']}: {images['train']} training images, {images['pool']} selected, "
        f"{images['sample']} samples ({summary['format']}, version {summary['version']!r}; "
        "manifest.json lists every file)"
    ]
    if summary["pre_annotated"]:
        lines.append(
            f"{summary['pre_annotated']} selected images carry the detector's boxes: correct them, "
            f"then `curator add {summary['format']} {shlex.quote(summary['out'])} --role pool`"
        )
    if summary["without_detections"]:
        lines.append(
            f"{summary['without_detections']} of these have no stored detections: "
            "`curator detect --role pool` first would give them boxes"
        )
    lines += [f"  note: {note}" for note in summary["notes"]]
    return lines
