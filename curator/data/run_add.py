"""`curator add`: bring a data set's images and labels into the workspace.

In: files in a format of `curator.registry.FORMATS`, here or in a bucket (`run_mirror`). Out: images (by URI
and sha256, never copied), memberships, annotation versions. Items stream through in batches; a batch is
probed by a few threads and stored in one transaction. Adding again changes nothing; a corrected file gives
the images concerned a new annotation version.

An image counts as labelled when no object can be missing from its labels. A broken object that may show in
the picture (no finite box, a negative size, a class that the data set does not name) makes them incomplete:
the image is stored without them and named, as what they leave out would teach "nothing is there", and a hit
there would count as false. It keeps the labels of an earlier, sound file. No region to ignore is kept
instead: trainers and the YOLO format take one for background. A box of no area or outside the picture holds
no pixel: it is dropped alone, and named (`formats.checking` holds these rules for every format).

An exported selection that comes back corrected is recognised: its re-encoded files stand for the pool
images that they were made from (the export remembers the hashes), so the labels reach those images and no
copy of them enters the workspace.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from curator.data.formats.base import Broken, LabelledImage, Source
from curator.data.formats.placement import place
from curator.data.run_changes import Returned
from curator.data.run_equals import NAMED, EqualTally, Seen, name_equals
from curator.data.run_mirror import THREADS, Mirror
from curator.data.run_returned import Exported, repeated
from curator.data.settings import AddConfig
from curator.errors import ConfigError, FormatError
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from curator.registry import FORMATS
from store.blas import one_blas_thread
from store.errors import ImageError
from store.images import ImageProbe
from store.keys import content_key
from store.records import ItemStatus, NewImage

if TYPE_CHECKING:
    from store.store import Store

STAGE = "add"
STAGE_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Ready:
    """A readable image with its labels in the one frame, and where it lies."""

    image: LabelledImage
    probe: ImageProbe
    uri: str


@dataclass(slots=True)
class _Tally(EqualTally):
    """What the summary says; these are its keys, and `EqualTally`'s. Of the failures `broken_images` are
    images, `dropped_objects` objects, `incomplete_images` the labels of images, and the rest are files with
    the bytes of another and other labels."""

    images: int = 0
    new_images: int = 0
    objects: int = 0
    unlabelled: int = 0
    new_annotation_versions: int = 0
    still_pre_annotated: int = 0
    passed_over: int = 0
    changed_objects: int = 0
    dropped_objects: int = 0
    incomplete_images: int = 0
    broken_images: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def add(store: Store, config: AddConfig) -> StageResult:
    """Add a data set, or the labels that correct one.

    Returns:
        counts of images (done: stored or changed; skipped: known already; failed: broken images, dropped
        objects and labels left out as incomplete, each with its reason) and a summary that names duplicates
        and leaks. An image of another role equal to a holdout image, or a pool image equal to a mined one,
        is a leak: it is stored and named, and left out by queries, exports and trainings.
    Raises:
        FormatError: no data set of this format at `config.path`.
        ConfigError: a setting that the format does not take.
    """
    mirror = Mirror(store.path)
    try:
        return _add(store, config, mirror)
    except FormatError as error:
        raise FormatError(mirror.said(str(error))) from error
    finally:
        mirror.close()


def _add(store: Store, config: AddConfig, mirror: Mirror) -> StageResult:
    source, folder = _open(store, config, mirror)
    dataset = config.dataset or dataset_name(folder)
    tally, failures, left = _Tally(), [], source.count
    workers = max(config.workers, THREADS) if mirror.used else config.workers
    with (
        recorded_run(store, STAGE, config) as (run_id, counts),
        Seen() as seen,
        Returned() as returned,
        ThreadPoolExecutor(workers) as threads,
        progress(f"add {dataset}", source.count) as advance,
        one_blas_thread(),  # its products are small, and the threads have the cores
    ):
        counts.update(done=0, skipped=0, failed=0)
        notes = [*mirror.notes, *map(mirror.said, source.notes[:NAMED])]
        tally.notes += [*notes, *_twins(source.categories, store)]
        exported = Exported(store)
        store.put_categories(source.categories)
        for batch in _batches(_part(source.items, *config.part_bounds), config.batch_size):
            located, passed_over = exported.located(batch, config.role)
            tally.passed_over += passed_over
            held = _held(store, mirror, located)
            ready = list(threads.map(lambda item: _probe(item, mirror, held), located))  # noqa: B023
            with store.transaction():
                failures += _store_batch(
                    *(store, run_id, config, dataset, source.listed, ready),
                    *(seen, exported, returned, tally, counts),
                )
            mirror.remember({r.image.path: r.probe for r in ready if isinstance(r, _Ready)})
            counts["failed"] = len(failures)
            step = len(batch) if left is None else min(len(batch), left)  # broken rows are no images
            left = None if left is None else left - step
            advance(step)
        changed = returned.summary(
            store, exported.recognised, source.categories, source.listed is not None
        )
    summary = {
        "dataset": dataset,
        "role": config.role,
        "categories": list(source.categories),
        "near_duplicates": store.near_threshold,
        **{key.name: getattr(tally, key.name) for key in fields(tally)},
        "returned": changed,
    }
    return StageResult(stage=STAGE, run_id=run_id, failures=tuple(failures), summary=summary, **counts)


def _twins(names: Sequence[str], store: Store) -> list[str]:
    """A line for every new class whose name differs from another's by case or blanks alone: they are two
    classes to all that follows."""
    stored = [category.name for category in store.categories()]
    known = {"".join(name.casefold().split()): name for name in stored}
    others = {name: known.setdefault("".join(name.casefold().split()), name) for name in names}
    return [
        f"the class {name!r} differs from {other!r} by case or blanks alone and is another class; where they "
        "are the same, give them one name in the data set's files"
        for name, other in others.items()
        if other != name and name not in stored
    ]


def _open(store: Store, config: AddConfig, mirror: Mirror) -> tuple[Source, Path]:
    """Open the data set; returns it and where its names lie. A format class lists in `takes` which settings
    of its own it is made with, in `reads` which files it opens."""
    factory = FORMATS.load(config.format)
    takes: tuple[str, ...] = getattr(factory, "takes", ())
    given: dict[str, object] = {"background": config.background, "every": config.every}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in takes:
            raise ConfigError(f"{name}: the format {config.format} has no such setting; leave it out")
    if "frames" in takes:
        given["frames"] = store.path / "frames"
    reads: tuple[str, ...] | None = getattr(factory, "reads", None)
    folder = mirror.local(config.path, reads)
    source: Source = factory(**given).open(
        folder,
        images=mirror.local(config.images, reads) if config.images else None,
        classes=config.classes or None,
        split=config.split,
    )
    return source, folder


def dataset_name(path: Path) -> str:
    """The folder's name, passing over those that only hold the format's parts."""
    path = path.resolve()
    folder = path if path.is_dir() else path.parent
    while (
        folder.name.lower() in ("annotations", "labels", "images", "jpegimages") and folder.parent != folder
    ):
        folder = folder.parent
    return folder.name or "dataset"


def _part(
    items: Iterable[LabelledImage | Broken], low: float, high: float
) -> Iterator[LabelledImage | Broken]:
    """The items whose names hash into [low, high)."""
    for item in map(_sayable, items):
        digest = hashlib.sha256(Path(item.name).name.encode()).digest()
        if low <= int.from_bytes(digest[:8], "big") / 2**64 < high:
            yield item


def _sayable(item: LabelledImage | Broken) -> LabelledImage | Broken:
    """`item`, broken where the name of its file is no text: no database and no terminal takes it."""
    try:
        item.name.encode()
        if isinstance(item, LabelledImage):
            str(item.path).encode()
    except UnicodeEncodeError:
        reason = "expected a file name that is UTF-8 text; rename the file"
        return Broken(name=ascii(item.name), reason=reason)
    return item


def _batches(items: Iterable[LabelledImage | Broken], size: int) -> Iterator[list[LabelledImage | Broken]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def _held(store: Store, mirror: Mirror, batch: Sequence[LabelledImage | Broken]) -> dict[Path, ImageProbe]:
    """Images of a bucket that were read before, are unchanged there, and are in the workspace."""
    known = {i.path: p for i in batch if isinstance(i, LabelledImage) and (p := mirror.known(i.path))}
    stored = store.ids_by_sha256([found.sha256 for found in known.values()]) if known else {}
    return {path: found for path, found in known.items() if found.sha256 in stored}


def _probe(
    item: LabelledImage | Broken, mirror: Mirror, held: Mapping[Path, ImageProbe]
) -> _Ready | Broken:
    """Read, hash and measure the image; bring its labels to stored-image pixels. Runs in a thread."""
    if isinstance(item, Broken):
        return replace(item, reason=mirror.said(item.reason))
    if not item.path.is_file():
        where = mirror.uri(item.path)
        return Broken(name=item.name, reason=f"missing image: {where}; --images names the folder")
    try:
        found = held.get(item.path) or mirror.probe(item.path)
        placed = place(item, (found.width, found.height), found.orientation)
        return _Ready(placed, found, mirror.uri(item.path))
    except (ImageError, FormatError) as error:
        return Broken(name=item.name, reason=mirror.said(str(error)))


def _store_batch(
    store: Store,
    run_id: int,
    config: AddConfig,
    dataset: str,
    listed: tuple[str, ...] | None,
    items: Sequence[_Ready | Broken],
    seen: Seen,
    exported: Exported,
    returned: Returned,
    tally: _Tally,
    counts: dict[str, int],
) -> list[tuple[str, str]]:
    """Store one batch; returns (name, reason) of what is broken."""
    failures: list[tuple[str, str]] = []
    statuses: list[ItemStatus] = []
    new: list[NewImage] = []
    names: list[str] = []
    for item in items:
        if isinstance(item, Broken):
            tally.broken_images += 1
            failures.append((item.name, item.reason))
            key = content_key(STAGE, STAGE_VERSION, dataset, config.role, item.name)
            statuses.append(ItemStatus(key=key, status="failed", message=item.reason))
            continue
        image = item.image
        tally.dropped_objects += len(image.problems)
        tally.changed_objects += len(image.notes)
        tally.notes += [f"{image.name}: {note}" for note in image.notes[: max(0, NAMED - len(tally.notes))]]
        failures += [(image.name, problem) for problem in image.problems]
        if image.incomplete:
            tally.incomplete_images += 1
            failures.append(
                (image.name, "its labels are incomplete, all are left out; correct the file and add it again")
            )
            item = replace(item, image=replace(image, annotations=None))
        elif image.status == "pre-annotation" and not config.reviewed:
            tally.still_pre_annotated += 1
            item = replace(item, image=replace(image, annotations=None))
        if first := seen.first(item.probe.sha256, image):
            seen.twin(image.name, item.probe.sha256, first[0], tally)
            if first[1]:
                failures.append(
                    (image.name, f"same file as {first[0]} with other labels; those of {first[0]} are kept")
                )
            continue
        record = replace(_new_image(item, config, dataset), listed=listed)
        if config.role != "train" and exported.is_sample(record.sha256, image.name):
            tally.passed_over += 1  # a synthetic image is no field image
            continue
        new.append(record)
        names.append(image.name)
    origins = exported.origins(new, names, config.role)
    failures += [(n, repeated(o.repeats)) for n, o in zip(names, origins, strict=True) if o.repeats]
    kept = [(name, origin) for name, origin in zip(names, origins, strict=True) if not origin.repeats]
    names, new = [name for name, _ in kept], [origin.image for _, origin in kept]
    for _, origin in kept:
        if origin.sent is not None:
            returned.note(origin.sent, origin.image.sha256, origin.image.annotations)
    keys = [_key(record) for record in new]
    known = store.done_keys(STAGE, keys)
    added = store.add_images(run_id, new)
    for record, key, result in zip(new, keys, added, strict=True):
        counts["skipped" if key in known and not result.annotation_changed else "done"] += 1
        tally.images += 1
        tally.new_images += result.created
        tally.new_annotation_versions += result.annotation_changed
        tally.unlabelled += record.annotations is None
        tally.objects += len(record.annotations or ())
        split = record.split or ""
        tally.splits[split] = tally.splits.get(split, 0) + 1
        statuses.append(ItemStatus(key=key, status="done", image_id=result.image_id))
    store.record_items(run_id, statuses)
    name_equals(store, new, names, added, seen, tally)
    return failures


def _new_image(item: _Ready, config: AddConfig, dataset: str) -> NewImage:
    image = item.image
    group = image.group_key
    if config.group_pattern and (match := re.search(config.group_pattern, image.name)):
        group = match.group(1) if match.re.groups else match.group(0)
    return NewImage(
        uri=item.uri,
        sha256=item.probe.sha256,
        phash=item.probe.phash,
        appearance=item.probe.appearance,
        width=item.probe.width,
        height=item.probe.height,
        dataset=dataset,
        role=config.role,
        split=config.split or image.split,
        group_key=group,
        captured_at=_time(image.captured_at),
        source=image.name,
        annotations=image.annotations,
        status="human",
        tags=image.tags,
    )


def _time(text: str | None) -> datetime | None:
    """ISO 8601 or EXIF's colons; anything else is no time."""
    try:
        return datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text)) if text else None
    except ValueError:
        return None


def _key(image: NewImage) -> str:
    return content_key(
        STAGE,
        STAGE_VERSION,
        image.dataset,
        image.role,
        image.split,
        image.source,
        image.sha256,
        image.annotations,
        dict(image.tags),
    )
