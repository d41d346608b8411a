"""`curator export`: the training set, augmented, in the trainer's format.

In: images of role "train" with their labels, selections (chosen pool images), accepted samples. Out: a
folder in a format of `curator.registry.FORMATS` with `manifest.json` (every file with its hash; every image
with its lineage: failure -> query or sample -> file), and a data set version in the Store.

Training images are copied byte for byte (with their EXIF orientation, where they have one; labels refer to
the upright image). All added images, selected or synthetic, are written in one encoding, and no more is
claimed: training images keep the encoding that they came with, so the added ones may differ from them in it.
Selected images without labels carry the detector's boxes, marked as pre-annotations.

The folder is written beside OUT, read back, compared, and renamed: OUT is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from curator import __version__
from curator.data.formats.base import Format, OutputImage
from curator.data.formats.checking import class_names
from curator.data.formats.jsonstream import array_elements
from curator.data.readback import Expected, read_back
from curator.data.run_additions import Addition, Additions, PreAnnotator, file_stem, gather, plain
from curator.data.settings import ExportConfig
from curator.errors import InputError
from curator.jobs.outputs import require_folder
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from curator.registry import FORMATS
from store.errors import CorruptionError, ImageError
from store.images import encode_png, read_bytes, read_bytes_as_pixels
from store.keys import canonical_json, content_key
from store.records import AnnotationSet, DatasetVersion, ImageRecord, ItemStatus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from store.store import Store

STAGE = "export"
STAGE_VERSION = 2
MANIFEST = "manifest.json"
_CHUNK = 64
_PARTIAL = ".curator-export-"


def export(store: Store, config: ExportConfig, *, annotator: PreAnnotator | None = None) -> StageResult:
    """Write the augmented training set to `config.out`.

    Args:
        annotator: gives selected images without labels boxes to correct.
    Returns:
        done: images written (skipped: the same export is there already; failed: images left out, with
        reasons).
        The summary names the folder, its manifest's key and the counts by role.
    Raises:
        InputError: `config.out` holds something else or cannot be made, or there is nothing to export.
        StageError: what was read back is not what was to be written.
    """
    form: Format = FORMATS.load(config.format)()
    out = config.out.absolute()
    require_folder(out.parent, f"export {config.format} {config.out}")
    additions = gather(store, config, annotator)
    names, notes = class_names({c.name: c.name for c in store.categories()}, "the workspace")
    categories = list(dict.fromkeys(names.values()))
    key = _key(store, config, categories, additions)
    _clean(out)
    present = _present_key(out)
    if present is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no export of curator; choose another folder")
    if present not in (None, key):
        raise InputError(f"{out} holds another export; choose another folder, or remove it first")
    with recorded_run(store, STAGE, config) as (run_id, counts):
        counts.update(done=0, skipped=0, failed=0)
        if present is None:
            left_out = _write(store, config, form, out, names, notes, additions, key)
        else:
            left_out = [(str(name), str(reason)) for name, reason in _elements(out / MANIFEST, "left_out")]
        version = _version(store, config, out, additions, categories, key)
        facts = version.manifest["images"]
        counts["skipped" if present else "done"] = sum(facts.values())
        counts["failed"] = len(left_out)
        with store.transaction():
            store.put_version(run_id, version)
            store.record_items(run_id, [ItemStatus(key=key, status="done")])
    summary = {
        "out": str(out),
        "notes": list(_elements(out / MANIFEST, "notes")),
        "format": config.format,
        "version": version.name,
        "key": key,
        "images": facts,
        **additions.facts,
        **additions.without.summary(),
    }
    return StageResult(stage=STAGE, run_id=run_id, failures=tuple(left_out), summary=summary, **counts)


# ---------------------------------------------------------------- the key, and what is there already


def _training(
    store: Store, additions: Additions
) -> Iterator[tuple[ImageRecord, AnnotationSet | None]]:
    """Training images with their labels, without those that leak."""
    ids = _training_ids(store, additions)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        labels = store.annotations(chunk, reader="export")
        for image in store.images(reader="export", ids=chunk):
            yield image, labels.get(image.id)


def _training_ids(store: Store, additions: Additions) -> list[int]:
    return [i for i in store.image_ids(role="train") if i not in additions.without.originals]


def _key(store: Store, config: ExportConfig, categories: list[str], additions: Additions) -> str:
    """Hash of everything that the files depend on; the training set streams through."""
    digest = hashlib.sha256()
    encoding = [config.encoding, config.quality if config.encoding == "jpeg" else None]
    digest.update(canonical_json([STAGE, STAGE_VERSION, config.format, encoding, categories]).encode())
    for image, labels in _training(store, additions):
        digest.update(f"\n{image.sha256} {labels.key if labels else None}".encode())
    for item in additions.items:
        digest.update(
            b"\n" + content_key(item.name, item.annotations, item.pre_annotated, item.lineage).encode()
        )
    digest.update(canonical_json(additions.left_out).encode())
    return digest.hexdigest()


def _present_key(out: Path) -> str | None:
    """The key of the export in `out`; the manifest starts with it."""
    try:
        with (out / MANIFEST).open(encoding="utf-8") as handle:
            match = re.match(r'\{"key": "([0-9a-f]{64})"', handle.read(100))
    except (OSError, UnicodeDecodeError):
        return None
    return match.group(1) if match else None


def _elements(manifest: Path, name: str) -> Iterator[Any]:
    return (element for key, element in array_elements(manifest) if key == name)


def _clean(out: Path) -> None:
    """Remove what killed exports to `out` left: folders of processes that are gone, or a day old."""
    for path in out.parent.glob(f".{out.name}{_PARTIAL}*"):
        host, _, pid = path.name.removeprefix(f".{out.name}{_PARTIAL}").rpartition("-")
        gone = (
            host == socket.gethostname()
            and pid.isdigit()
            and (int(pid) == os.getpid() or not _alive(int(pid)))
        )
        if gone or time.time() - path.stat().st_mtime > 86400:
            shutil.rmtree(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# ---------------------------------------------------------------- writing


def _write(
    store: Store,
    config: ExportConfig,
    form: Format,
    out: Path,
    names: Mapping[str, str],
    notes: Sequence[str],
    additions: Additions,
    key: str,
) -> list[tuple[str, str]]:
    """Write, read back and rename; returns what was left out and why.

    Args:
        names: class name in the workspace -> in the files. notes: what the manifest should say of them.
    """
    left_out, categories = list(additions.left_out), list(dict.fromkeys(names.values()))
    part = out.parent / f".{out.name}{_PARTIAL}{socket.gethostname()}-{os.getpid()}"
    try:
        part.mkdir(parents=True)
        with Expected(names) as expected:
            items = _items(store, config, form, additions, expected, left_out)
            head = {
                "key": key,
                "curator_version": __version__,
                "format": config.format,
                "categories": categories,
                "encoding": config.encoding,
                "quality": config.quality if config.encoding == "jpeg" else None,
                "selections": list(config.selections),
                "samples": list(config.samples),
            }
            with (part / MANIFEST).open("x", encoding="utf-8") as manifest:
                manifest.write(json.dumps(head, ensure_ascii=False)[:-1] + ',\n"files": [')
                for number, entry in enumerate(form.write(part, categories, items)):
                    manifest.write(",\n" * (number > 0) + json.dumps(entry, ensure_ascii=False))
                    if "lineage" in entry:
                        expected.written(entry["path"], entry["sha256"])
                said = [*notes, *_crowd_note(config.format, expected)]
                manifest.write('],\n"notes": ' + json.dumps(said, ensure_ascii=False))
                manifest.write(',\n"left_out": ' + json.dumps(left_out, ensure_ascii=False) + "}\n")
                manifest.flush()
                os.fsync(manifest.fileno())
            read_back(form, part, expected, left_out)
        os.replace(part, out)  # an empty folder may stand there
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return left_out


def _crowd_note(format: str, expected: Expected) -> list[str]:
    if not expected.crowd_regions:
        return []
    return [
        f"{expected.crowd_regions} crowd regions in {expected.crowd_images} images are left out: {format} "
        "files hold none, and trainers will take what lies there for background (coco and voc keep them)"
    ]


def _items(
    store: Store,
    config: ExportConfig,
    form: Format,
    additions: Additions,
    expected: Expected,
    left_out: list[tuple[str, str]],
) -> Iterator[OutputImage]:
    """Training images, then additions; what cannot be read is left out."""
    count = len(_training_ids(store, additions)) + len(additions.items)
    with progress("export", count) as advance:
        for image, labels in _training(store, additions):
            advance()
            source = _source(image)
            if labels is None:
                left_out.append(
                    (
                        source,
                        "training image without labels: label it, or it would teach that nothing is there",
                    )
                )
                continue
            try:
                data = read_bytes(image.uri, sha256=image.sha256)
            except (ImageError, CorruptionError) as error:
                left_out.append((source, str(error)))
                continue
            suffix = Path(source).suffix.lower()
            yield expected.note(
                form,
                OutputImage(
                    name=file_stem(source, image.sha256),
                    data=data,
                    suffix=suffix if len(suffix) > 1 else ".jpg",
                    width=image.width,
                    height=image.height,
                    annotations=plain(labels),
                    lineage={"role": "train", "source": source},
                    pre_annotated=labels.status == "pre-annotation",
                ),
            )
        for item in additions.items:
            advance()
            try:
                pixels = _pixels(store, item)
            except (ImageError, CorruptionError) as error:
                left_out.append((item.name, str(error)))
                continue
            yield expected.note(
                form,
                OutputImage(
                    name=item.name,
                    data=_encode(pixels, config),
                    suffix=".jpg" if config.encoding == "jpeg" else ".png",
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    annotations=item.annotations,
                    lineage=item.lineage,
                    pre_annotated=item.pre_annotated,
                ),
            )


def _source(image: ImageRecord) -> str:
    return image.uri.rsplit("/", 1)[-1]


def _pixels(store: Store, item: Addition) -> NDArray[np.uint8]:
    if item.image is not None:
        return store.pixels(item.image, reader="export")
    assert item.sample is not None  # an addition has one of both
    return read_bytes_as_pixels(store.blob(item.sample.blob), where=item.name)


def _encode(pixels: NDArray[np.uint8], config: ExportConfig) -> bytes:
    if config.encoding == "png":
        return encode_png(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=config.quality, subsampling=0)
    return buffer.getvalue()


def _version(
    store: Store, config: ExportConfig, out: Path, additions: Additions, categories: list[str], key: str
) -> DatasetVersion:
    """The stored record of the export; its manifest lists the added files only, the folder's lists all."""
    by_name = {item.name: item for item in additions.items}
    added, images = [], {"train": 0, "pool": 0, "sample": 0}
    for entry in _elements(out / MANIFEST, "files"):
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
    manifest = {
        "key": key,
        "format": config.format,
        "out": str(out),
        "categories": categories,
        "images": images,
        "encoding": config.encoding,
        "added": added,
    }
    selected = [item.image.id for item in additions.items if item.image is not None]
    samples = [
        item.sample.id for item in additions.items if item.sample is not None and item.sample.id is not None
    ]
    return DatasetVersion(
        name=config.version or out.name,
        image_ids=(*_training_ids(store, additions), *selected),
        sample_ids=tuple(samples),
        manifest=manifest,
        key=key,
    )
