"""Commands that take away: `curator remove ...` and `curator gc`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curator.cli.app import Json, app, open_store

if TYPE_CHECKING:
    from curator.data.settings import RemoveConfig

remove = typer.Typer(
    no_args_is_help=True,
    help="Remove images, or what was computed of them, from the workspace. Your files are never touched.",
)
app.add_typer(remove, name="remove")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]

NOUNS = {
    "images": "images",
    "memberships": "roles of images",
    "annotation_versions": "versions of labels",
    "detections": "detections (images)",
    "outcomes": "failures and successes",
    "attributions": "explanations",
    "regions": "regions",
    "segmentations": "segmentations",
    "indexed_images": "indexed images",
    "hits": "hits of selections",
    "feedback": "judgements of hits",
    "selections": "selections",
    "samples": "samples",
    "trials": "trials",
    "spaces": "vector spaces",
    "models": "models",
}
"""Tables that people are told of; --json lists all."""


@remove.command()
def images(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Numbers of images.")] = None,
    sha256: Annotated[
        list[str] | None, typer.Option(help="Hash of an image's file; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Text file with the path of an image a line, or the end of its path."),
    ] = None,
    role: Annotated[str | None, typer.Option(help="train, mine, pool or holdout.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of a data set.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove images with all that is derived of them alone: labels, detections, explanations, vectors, hits
    and samples.

    With --role or --dataset images lose that part, and stay where they play another one.
    """
    from curator.data.settings import RemoveConfig

    config = RemoveConfig.from_table(
        {
            "kind": "images",
            "names": list(ids or ()),
            "sha256": list(sha256 or ()),
            "file": None if file is None else str(file),
            "role": role,
            "dataset": dataset,
        },
        where="remove images",
    )
    _remove(config, yes, dry_run, as_json)


@remove.command()
def dataset(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a data set: its images, where they are in no other one."""
    _named("dataset", [name], yes, dry_run, as_json)


@remove.command()
def selection(
    name: Annotated[str, typer.Argument(help="Name of the selection.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a selection and what was said of its hits: the labels of its images are hidden again."""
    _named("selection", [name], yes, dry_run, as_json)


@remove.command()
def samples(
    names: Annotated[list[str], typer.Argument(metavar="NAME|ID...", help="A batch, or numbers of samples.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a batch of samples, or some samples."""
    _named("samples", names, yes, dry_run, as_json)


@remove.command()
def verification(
    name: Annotated[str, typer.Argument(help="Name of the verification.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove the trials of a verification."""
    _named("verification", [name], yes, dry_run, as_json)


@remove.command()
def index(
    name: Annotated[str, typer.Argument(help="Name of the vector space; curator index says it.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a vector space: curator index fits and embeds anew."""
    _named("index", [name], yes, dry_run, as_json)


@remove.command()
def model(
    name: Annotated[str, typer.Argument(metavar="SPEC|FINGERPRINT", help="Which detector.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a detector's detections, failures, explanations and vectors, under every spec of equal weights;
    selections, samples and trials stay."""
    _named("model", [name], yes, dry_run, as_json)


def _named(kind: str, names: list[str], yes: bool, dry_run: bool, as_json: bool) -> None:
    from curator.data.settings import RemoveConfig

    _remove(RemoveConfig(kind=kind, names=tuple(names)), yes, dry_run, as_json)


def _remove(config: RemoveConfig, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Say what goes; then do it, where it may."""
    from curator import pipeline
    from curator.errors import InputError

    with open_store() as store:
        plan = pipeline.plan_removal(store, config)
        nothing = not any(plan["counts"].values())
        if not as_json:
            typer.echo("\n".join(plan_lines(plan)))
        if nothing or dry_run:
            if as_json:
                typer.echo(json.dumps({"removed": False, "plan": plan}))
            return
        if not yes and not as_json and sys.stdin.isatty():
            yes = typer.confirm("Remove it?")
            if not yes:
                typer.echo("nothing was removed")
                return
        if not yes:
            if as_json:
                typer.echo(json.dumps({"removed": False, "plan": plan}))
            raise InputError("nothing was removed: say --yes to do it, or --dry-run to look only")
        result = pipeline.remove(store, config)
    counts = result.summary["counts"]
    if as_json:
        typer.echo(json.dumps({"removed": True, "plan": plan, "run": result.run_id, "counts": counts}))
    else:
        typer.echo(f"removed: {_listed(counts)}; curator gc frees the files of the workspace")


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """What goes, and what stays and named it."""
    lines = []
    if plan["missing"]:
        lines.append(f"{plan['missing']} of those named are not in the workspace")
    if not any(plan["counts"].values()):
        return [*lines, "nothing to remove"]
    lines.append(f"goes: {_listed(plan['counts'])}")
    if plan["kept"]:
        lines.append(f"stays: {plan['kept']} images, in another role or data set")
    lines += [
        f"selection {name!r} loses {count} hits; curator query makes it anew"
        for name, count in plan["selections"].items()
    ]
    if plan["unlinked"]:
        lines.append(f"stays: {plan['unlinked']} hits and samples, without the failure they were made for")
    for version in plan["versions"]:
        parts = [f"{version[part]} {part}" for part in ("images", "samples") if version[part]]
        lines.append(
            f"version {version['number']} ({version['name']}) names {' and '.join(parts)} of these: its "
            "record stays, but curator versions --export cannot write it again"
        )
    if plan["verifications"]:
        lines.append(
            f"stays as it was measured, on the holdout with these images: {', '.join(plan['verifications'])}"
        )
    if plan["spaces"]:
        lines.append(
            f"stays: the projections of {', '.join(plan['spaces'])}, fitted on mined images, these perhaps "
            "among them (curator remove index NAME, then curator index, fits anew)"
        )
    return [*lines, "your files stay where they are"]


def _listed(counts: Mapping[str, int]) -> str:
    told = [f"{counts[table]:,} {noun}" for table, noun in NOUNS.items() if counts.get(table)]
    return ", ".join(told) or f"{sum(counts.values()):,} rows"


@app.command()
def gc(
    dry_run: DryRun = False,
    grace: Annotated[
        float, typer.Option(min=0, help="Minutes for which a file is left alone: a stage may yet name it.")
    ] = 60.0,
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum",
            help="Give the free pages of SQLite's file back to the disk; needs as much space as the file.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove files of the workspace that nothing names any more: of removed samples, killed runs, and so on.

    Refused while another command is at work here. Nothing younger than an hour, or than the oldest run that
    is not finished, is touched.
    """
    from curator import pipeline

    with open_store() as store:
        found = pipeline.collect(
            store, pipeline.CollectConfig(dry_run=dry_run, grace=grace, vacuum=vacuum)
        ).summary
    typer.echo(json.dumps(found) if as_json else "\n".join(gc_lines(found)))


def gc_lines(found: Mapping[str, Any]) -> list[str]:
    """What went, by kind."""
    would = "would free" if found["dry_run"] else "freed"
    lines = [
        f"  {kind:<9} {part['files']:>7,} files  {_size(part['bytes']):>9}"
        for kind, part in found["parts"].items()
        if part["files"]
    ]
    lines.insert(0, f"gc: {would} {_size(found['bytes'])}")
    if found["waiting"]:
        lines.append(f"not finished, and nothing younger was touched: {', '.join(found['waiting'])}")
    if found["database"]:
        lines.append(f"free pages of the database: {_size(found['database'])} (--vacuum gives them back)")
    return lines


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
