"""`curator versions`: which data sets were exported, what changed from one to another, and one of them again.

In: data set versions of the Store with their records (`curator.data.record`). Out: plain figures; or the
folder of a version with the bytes that it had, whatever was added, labelled or selected since. Only the
pixels are read anew: a version can be written again while the workspace's images are what they were, by a
curator that writes the format as the one did that made it, and, for added images, with the same encoder
(Pillow, and for JPEG the libjpeg in it). Where that is not so, it is refused, and no folder is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import PIL

from curator import __version__
from curator.data import export_folder
from curator.data.export_folder import Contents
from curator.data.formats.base import OutputImage
from curator.data.record import PlannedImage, VersionRecord, recorded
from curator.data.run_export import STAGE_VERSION as EXPORT_VERSION
from curator.data.run_images import Encoding, output
from curator.data.settings import VersionExportConfig
from curator.errors import InputError
from curator.jobs.outputs import require_folder
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from curator.registry import FORMATS
from store.errors import CorruptionError, ImageError, NotFoundError
from store.keys import content_key
from store.records import DatasetVersion

if TYPE_CHECKING:
    from store.store import Store

STAGE = "versions"
NAMED = 200
"""Images that a comparison names of each kind."""
SHOWN = 3
"""Changed files that a refusal names."""


def versions(store: Store) -> list[dict[str, Any]]:
    """All versions, oldest first, as plain JSON.

    Returns:
        for each "number", "name", "made" (ISO time), "format", "images" (by role), "objects" (by class; None
        where the version is older than records), "selections" and "samples" (names), "out" (where it was
        written first), "recorded" (can it be compared and written again?).
    """
    runs = {run.id: run for run in store.runs(stage="export")}
    found = []
    for version in store.version_heads():
        run, facts = runs.get(version.run_id or 0), version.manifest
        config = run.config if run else {}
        found.append(
            {
                "number": version.id,
                "name": version.name,
                "made": run.started_at.isoformat() if run else None,
                "format": facts["format"],
                "images": facts["images"],
                "objects": facts.get("objects"),
                "selections": list(config.get("selections", ())),
                "samples": list(config.get("samples", ())),
                "out": facts["out"],
                "recorded": "record" in facts,
            }
        )
    return found


def compare_versions(store: Store, first: str, second: str) -> dict[str, Any]:
    """What changed from one version to another; images are told by their content.

    Args:
        first, second: numbers or names, as `find` takes them.
    Returns:
        plain JSON: "versions" (of both: number, name, format, images by role, objects by class, encoding and
        quality of added images); "added", "removed", "labels" (of those in both: other objects, or another
        mark as pre-annotation) and "roles" (such as a selected image that is a training image by now),
        each with its "count" and up to `NAMED` "images" ("name"; "objects", "roles" and "pre_annotated"
        before and after, None where it is not).
    Raises:
        InputError: no such version, or one without a record.
    """
    pair = find(store, first), find(store, second)
    records = [_record(store, version) for version in pair]
    shared = set(records[0].images) & set(records[1].images)  # equal lines: nothing changed in them
    before, after = (
        {
            image.source: image
            for images in recorded(store.blob, [c for c in record.images if c not in shared])
            for image in images
        }
        for record in records
    )
    both = [(before[source], image) for source, image in after.items() if source in before]
    return {
        "versions": [
            {
                "number": version.id,
                "name": version.name,
                **{fact: version.manifest[fact] for fact in ("format", "images", "objects")},
                **{fact: record.head[fact] for fact in ("encoding", "quality")},
            }
            for version, record in zip(pair, records, strict=True)
        ],
        "added": _named([(None, image) for source, image in after.items() if source not in before]),
        "removed": _named([(image, None) for source, image in before.items() if source not in after]),
        "labels": _named([(old, new) for old, new in both if _relabelled(old, new)]),
        "roles": _named([(old, new) for old, new in both if old.role != new.role]),
    }


def _relabelled(old: PlannedImage, new: PlannedImage) -> bool:
    """Did its labels change? The order of the objects may differ; nothing is hashed where it does not."""
    if old.pre_annotated != new.pre_annotated:
        return True
    return old.annotations != new.annotations and _labels(old) != _labels(new)


def _labels(image: PlannedImage) -> list[str]:
    return sorted(content_key(a) for a in image.annotations)


def _named(pairs: list[tuple[PlannedImage | None, PlannedImage | None]]) -> dict[str, Any]:
    images = []
    for pair in pairs[:NAMED]:
        image = pair[1] or pair[0]
        assert image is not None  # one of both is there
        images.append(
            {
                "name": image.name + image.suffix,
                "objects": [None if one is None else len(one.annotations) for one in pair],
                "roles": [None if one is None else one.role for one in pair],
                "pre_annotated": [None if one is None else one.pre_annotated for one in pair],
            }
        )
    return {"count": len(pairs), "images": images}


def export_version(store: Store, config: VersionExportConfig) -> StageResult:
    """Write a version again, with the bytes that it had.

    Returns:
        done: images written (skipped: this version is there already, file by file). The summary is that of
        the version, with warnings where the holdout holds some of its training or selected images by now;
        what its samples were painted from is not looked up again.
    Raises:
        InputError: no such version, one without a record, `config.out` holds something else or this version
            with files that were changed, an image is gone or changed, or what would be written is not what
            was.
    """
    version = find(store, config.version)
    record = _record(store, version)
    called = f"version {version.id} ({version.name})"
    out = config.out.absolute()
    require_folder(out.parent, f"versions --export {config.version} --out {config.out}")
    present = export_folder.stands(out, record.head["key"])
    if present and export_folder.digest_of(out) != record.digest:
        raise InputError(f"{out} holds another export than {called}; choose another folder, or remove it")
    if present and (changed := list(islice(export_folder.changed_files(out), SHOWN + 1))):
        more = " and more" if len(changed) > SHOWN else ""
        raise InputError(
            f"{out} holds {called}, but its files were changed since: {', '.join(changed[:SHOWN])}{more}; "
            "choose another folder, or remove it"
        )
    count = sum(version.manifest["images"].values())
    with recorded_run(store, STAGE, config) as (run_id, counts):
        if not present:
            _require_whole(store, record, called)

            def check(digest: str) -> None:
                if digest != record.digest:
                    raise InputError(f"{called} cannot be written again: {_why(record)}")

            contents = Contents(
                head=record.head, names=record.names, notes=record.notes, left_out=record.left_out
            )
            form = FORMATS.load(record.head["format"])()
            export_folder.write(form, out, contents, _images(store, record, called, count), check=check)
        counts["skipped" if present else "done"] = count
    summary = {
        "out": str(out),
        "format": record.head["format"],
        "version": version.name,
        "version_number": version.id,
        "key": record.head["key"],
        "images": version.manifest["images"],
        "objects": version.manifest["objects"],
        "warnings": _warnings(store, version),
    }
    done, skipped = counts.get("done", 0), counts.get("skipped", 0)
    return StageResult(stage=STAGE, run_id=run_id, done=done, skipped=skipped, summary=summary)


def find(store: Store, said: str) -> DatasetVersion:
    """The version of a number, without ids, or the newest of a name; "#1" is always a number.

    Raises:
        InputError: there is none; the message lists those that are there. Or `said` is the number of one and
            the name of another.
    """
    digits = re.fullmatch(r"#?([1-9][0-9]{0,17})", said)  # what SQLite takes
    numbered = store.version_heads(number=int(digits.group(1))) if digits else []
    named = store.version_heads(name=said)[-1:]
    if numbered and named and named != numbered and not said.startswith("#"):
        other = f"#{named[0].id}"
        raise InputError(
            f"{said!r} is the number of one version ({numbered[0].name}) and the name of another (number "
            f"{named[0].id}); say #{said} or {other}"
        )
    found = numbered or named
    if not found:
        there = (
            ", ".join(f"{v.id} ({v.name})" for v in store.version_heads()[-10:])
            or "none (run `curator export`)"
        )
        raise InputError(f"no data set version {said!r}; there are: {there}")
    return found[-1]


def _record(store: Store, version: DatasetVersion) -> VersionRecord:
    if "record" not in version.manifest:
        raise InputError(
            f"version {version.id} ({version.name}) was exported before versions kept a record, so it can "
            "neither be compared nor written again; what is exported now can"
        )
    return VersionRecord.of(store.blob(version.manifest["record"]))


def _require_whole(store: Store, record: VersionRecord, called: str) -> None:
    """Refuse a version that names what was removed from the workspace.

    Raises:
        InputError: says how many images, and when something was removed last.
    """
    removals = store.runs(stage="remove")
    if not removals:
        return
    painted, lacking = store.sample_blobs(), []
    for images in recorded(store.blob, record.images):
        known = store.ids_by_sha256([image.source for image in images if image.role != "sample"])
        lacking += [
            image.name + image.suffix
            for image in images
            if image.source not in (painted if image.role == "sample" else known)
        ]
    if lacking:
        more = " and more" if len(lacking) > SHOWN else ""
        raise InputError(
            f"{called} cannot be written again: {len(lacking)} of its images were removed from the workspace "
            f"({', '.join(lacking[:SHOWN])}{more}; newest removal: run {removals[0].id} of "
            f"{removals[0].started_at:%Y-%m-%d %H:%M} UTC)"
        )


def _images(store: Store, record: VersionRecord, called: str, count: int) -> Iterator[OutputImage]:
    encoding = Encoding(kind=record.head["encoding"], quality=record.head["quality"])
    with progress(STAGE, count) as advance:
        for images in recorded(store.blob, record.images):
            known = store.ids_by_sha256([image.source for image in images if image.role != "sample"])
            ids = sorted(known.values())
            files = {i.sha256: i for i in store.images(reader="export", ids=ids)} if ids else {}
            for image in images:
                advance()
                if image.role != "sample" and image.source not in files:
                    raise InputError(f"{called} cannot be written again: the workspace lacks {image.name}")
                try:
                    item = output(store, image, files.get(image.source), encoding)
                except (ImageError, CorruptionError, NotFoundError) as error:
                    raise InputError(f"{called} cannot be written again: {error}") from error
                yield item


def _why(record: VersionRecord) -> str:
    """What may have made other bytes of the same images and labels."""
    now = {"curator": __version__, "pillow": PIL.__version__, "export stage": str(EXPORT_VERSION)}
    made_with = record.made_with.items()
    other = [f"{name} {was}, here is {now[name]}" for name, was in made_with if now[name] != was]
    made = f"; it was made with {' and '.join(other)}" if other else ""
    return f"its files would differ from those that it had{made}"


def _warnings(store: Store, version: DatasetVersion) -> list[str]:
    ids = store.version_image_ids(version.id or 0)
    leaks: Mapping[int, Any] = store.leaks(list(ids), roles=("holdout",))
    if not leaks:
        return []
    return [
        f"{len(leaks)} of its images leak to the holdout by now: a detector that is trained on them cannot "
        "be judged there (curator export leaves them out)"
    ]
