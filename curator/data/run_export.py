"""`curator export`: the training set, augmented, in the trainer's format.

In: images of role "train" with their labels, selections (chosen pool images), accepted samples. Out: a
folder in a format of `curator.registry.FORMATS` with `manifest.json` (every file with its hash; every image
with its lineage: failure -> query or sample -> file), and a data set version in the Store, with the record
that it can be written again from (`curator versions`).

Training images are copied byte for byte (with their EXIF orientation, where they have one; labels refer to
the upright image). All added images, selected or synthetic, are written in one encoding, and no more is
claimed: training images keep the encoding that they came with, so the added ones may differ from them in it.
Selected images without labels carry the detector's boxes, marked as pre-annotations.

Images whose files cannot be read are left out and named. The same command tries them again; once one can be
read, the whole folder is written anew, as a first export would write it, and takes the old one's place.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from curator import __version__
from curator.data import export_folder
from curator.data.export_folder import MANIFEST, Contents, Told
from curator.data.formats.base import Format, OutputImage
from curator.data.formats.checking import class_names
from curator.data.record import PlannedImage, Recorder, VersionRecord
from curator.data.run_additions import Additions, PreAnnotator, gather
from curator.data.run_images import Encoding, output, planned, training, training_ids
from curator.data.settings import ExportConfig
from curator.errors import InputError
from curator.jobs.outputs import require_folder
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from curator.registry import FORMATS
from store.errors import CorruptionError, ImageError, NotFoundError
from store.keys import canonical_json, content_key
from store.records import DatasetVersion, ImageRecord, ItemStatus

if TYPE_CHECKING:
    from store.store import Store

STAGE = "export"
STAGE_VERSION = 4  # 3: data.yaml names `val`; the manifest counts objects; 4: the key holds file names
REMEDY = "put the file back, or add the images again from where they lie, then give the same command again"


@dataclass(slots=True)
class _Written:
    """What reaches the folder, as it is noted on the way: the record's lines, ids of the Store's images."""

    recorder: Recorder
    image_ids: list[int] = field(default_factory=list)

    def add(self, image: PlannedImage, of: ImageRecord | None) -> None:
        self.recorder.add(image)
        if of is not None:
            self.image_ids.append(of.id)


def export(store: Store, config: ExportConfig, *, annotator: PreAnnotator | None = None) -> StageResult:
    """Write the augmented training set to `config.out`.

    Args:
        annotator: gives selected images without labels boxes to correct.
    Returns:
        done: images written (skipped: the same export is there already, and what it left out cannot be read
        yet; failed: images left out, with reasons).
        The summary names the folder, its manifest's key, the version's number and the counts by role and by
        class.
    Raises:
        InputError: `config.out` holds something else or cannot be made, there is nothing to export, or an
            unfinished export there was changed by hand.
        StageError: what was read back is not what was to be written.
    """
    form: Format = FORMATS.load(config.format)()
    out = config.out.absolute()
    require_folder(out.parent, f"export {config.format} {config.out}")
    additions = gather(store, config, annotator)
    names, notes = class_names({c.name: c.name for c in store.categories()}, "the workspace")
    encoding = Encoding(kind=config.encoding, quality=config.quality if config.encoding == "jpeg" else None)
    categories = list(dict.fromkeys(names.values()))
    key = _key(store, config.format, encoding, categories, additions)
    head = {
        "key": key,
        "curator_version": __version__,
        "format": config.format,
        "categories": categories,
        "encoding": encoding.kind,
        "quality": encoding.quality,
        "selections": list(config.selections),
        "samples": list(config.samples),
    }
    present = export_folder.stands(out, key)
    before = export_folder.told(out).left_out if present else ()
    unfinished = bool(before) and _readable_now(store, additions, encoding, out)
    if unfinished:
        export_folder.require_untouched(out)
        present = False
    with recorded_run(store, STAGE, config) as (run_id, counts):
        counts.update(done=0, skipped=0, failed=0)
        written = _Written(Recorder(store.put_blob))
        if present:
            for image, of in _named(store, additions, encoding, out):
                written.add(image, of)
        else:
            left_out = list(additions.left_out)
            contents = Contents(head=head, names=names, notes=notes, left_out=left_out)
            images = _images(store, additions, encoding, written, left_out)
            if unfinished:
                images = _no_fewer(images, before, left_out, out)
            export_folder.write(form, out, contents, images, replacing=unfinished)
        told = export_folder.told(out)
        version = _version(store, config, out, told, additions, written, names, notes)
        facts = version.manifest["images"]
        counts["skipped" if present else "done"] = sum(facts.values())
        counts["failed"] = len(told.left_out)
        with store.transaction():
            number = store.put_version(run_id, version)
            store.record_items(run_id, [ItemStatus(key=key, status="done")])
    summary = {
        "out": str(out),
        "notes": list(told.notes),
        "format": config.format,
        "version": version.name,
        "version_number": number,
        "key": key,
        "images": facts,
        "objects": version.manifest["objects"],
        **additions.facts,
        **additions.without.summary(),
    }
    return StageResult(stage=STAGE, run_id=run_id, failures=told.left_out, summary=summary, **counts)


def _key(
    store: Store, format: str, encoding: Encoding, categories: list[str], additions: Additions
) -> str:
    """Hash of everything that the files depend on; the training set streams through."""
    digest = hashlib.sha256()
    encoded = [encoding.kind, encoding.quality]
    digest.update(canonical_json([STAGE, STAGE_VERSION, format, encoded, categories]).encode())
    for image, labels in training(store, additions):
        name = image.uri.rsplit("/", 1)[-1]  # names the exported file, and stands in the manifest
        digest.update(b"\n" + canonical_json([image.sha256, labels.key if labels else None, name]).encode())
    for item in additions.items:
        digest.update(
            b"\n" + content_key(item.name, item.annotations, item.pre_annotated, item.lineage).encode()
        )
    digest.update(canonical_json(additions.left_out).encode())
    return digest.hexdigest()


def _images(
    store: Store,
    additions: Additions,
    encoding: Encoding,
    written: _Written,
    left_out: list[tuple[str, str]],
) -> Iterator[OutputImage]:
    """Training images, then additions, as they are written; what cannot be read is left out."""
    with progress(STAGE, len(training_ids(store, additions)) + len(additions.items)) as advance:
        for image, of in planned(store, additions, encoding, left_out, advance):
            try:
                item = output(store, image, of, encoding)
            except (ImageError, CorruptionError, NotFoundError) as error:
                source = image.lineage["source"] if image.role == "train" else image.name
                remedy = f"; {REMEDY}" if isinstance(error, ImageError) else ""
                left_out.append((source, f"{error}{remedy}"))
                continue
            written.add(image, of)
            yield item


def _no_fewer(
    images: Iterator[OutputImage],
    before: Sequence[tuple[str, str]],
    left_out: list[tuple[str, str]],
    out: Path,
) -> Iterator[OutputImage]:
    """The images, unless one is left out that the folder there holds.

    Raises:
        InputError: names the first.
    """
    yield from images
    known = Counter(name for name, _ in before)
    for name, reason in left_out:
        known[name] -= 1
        if known[name] < 0:
            raise InputError(f"{out} stays as it is; it holds {name}, now unreadable: {reason}")


def _readable_now(store: Store, additions: Additions, encoding: Encoding, out: Path) -> bool:
    """Can an image be read that the export in `out` had to leave out?"""
    for image, of, entry in _compared(store, additions, encoding, out):
        if entry is None:
            with suppress(ImageError, CorruptionError, NotFoundError):
                output(store, image, of, encoding)
                return True
    return False


def _named(
    store: Store, additions: Additions, encoding: Encoding, out: Path
) -> Iterator[tuple[PlannedImage, ImageRecord | None]]:
    """The images that the folder there holds. Their lineage is what its manifest says, as the version is
    written again with that."""
    for image, of, entry in _compared(store, additions, encoding, out):
        if entry is not None:
            yield replace(image, lineage=entry["lineage"]), of


def _compared(
    store: Store, additions: Additions, encoding: Encoding, out: Path
) -> Iterator[tuple[PlannedImage, ImageRecord | None, Mapping[str, Any] | None]]:
    """The plan's images with the manifest's entry of each, None for those that were left out: the folder's
    order is that of the plan.

    Raises:
        InputError: an entry that is not of the plan.
    """
    entries = (entry for entry in export_folder.files(out) if "lineage" in entry)
    entry = next(entries, None)
    for image, of in planned(store, additions, encoding, []):
        if entry is not None and Path(entry["path"]).name == image.name + image.suffix:
            yield image, of, entry
            entry = next(entries, None)
        else:
            yield image, of, None
    if entry is not None:
        raise InputError(f"{out}: its {MANIFEST} was changed; remove the folder, and export again")


def _version(
    store: Store,
    config: ExportConfig,
    out: Path,
    told: Told,
    additions: Additions,
    written: _Written,
    names: Mapping[str, str],
    notes: tuple[str, ...],
) -> DatasetVersion:
    """The stored record of the export; its manifest lists the added files only, the folder's lists all.

    Its key is the digest of the folder's manifest: the same images may be exported with others left out.
    """
    by_name = {item.name: item for item in additions.items}
    added, samples, images = [], [], {"train": 0, "pool": 0, "sample": 0}
    for entry in export_folder.files(out):
        role = entry.get("lineage", {}).get("role")
        if role is None:
            continue
        images[role] += 1
        item = by_name.get(Path(entry["path"]).stem)
        if role != "train" and item is not None:
            added.append(
                {
                    "path": entry["path"],
                    "sha256": entry["sha256"],
                    "image_id": item.image.id if item.image else None,
                    "sample": item.sample.key if item.sample else None,
                }
            )
            if item.sample is not None and item.sample.id is not None:
                samples.append(item.sample.id)
    head = export_folder.head_of(out)
    record = VersionRecord(
        head=head,
        names=names,
        notes=notes,
        left_out=told.left_out,
        images=tuple(written.recorder.chunks()),
        digest=export_folder.digest_of(out),
        made_with={
            "curator": head["curator_version"],
            "pillow": PIL.__version__,
            "export stage": str(STAGE_VERSION),
        },
    )
    manifest = {
        "key": head["key"],
        "format": config.format,
        "out": str(out),
        "categories": head["categories"],
        "images": images,
        "objects": dict(told.objects),
        "encoding": config.encoding,
        "added": added,
        "record": store.put_blob(record.data()),
    }
    return DatasetVersion(
        name=config.version or out.name,
        image_ids=tuple(written.image_ids),
        sample_ids=tuple(samples),
        manifest=manifest,
        key=record.digest,
    )
