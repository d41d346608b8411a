"""Exports that come back: which files of a data set are the workspace's own, sent out for labelling.

In: names, hashes and pictures of files. Out: the images that they were made from, so that the labels of a
corrected export reach those images, and no copy of them enters the workspace.

An export calls each file NAME-HASH, the hash being the first twelve digits of its source's sha256. So a file
is recognised

    by its bytes              they are those that an export wrote, or a workspace's image
    by its name and picture   a tool wrote it anew or resized it, under a name that holds the exported one;
                              its picture lies on the image's as it is, neither cut nor mirrored
    by its name alone         where the tool gave labels and no files back

A name alone is never enough where a file is there: another picture is another image, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.checking import rounded
from curator.data.formats.labelling import original_stems
from store.records import ImageRecord, NewAnnotation, NewImage, Role

if TYPE_CHECKING:
    from store.store import Store

_HASH = re.compile(r"-([0-9a-f]{12})$")
_DIGITS = 12


@dataclass(slots=True)
class Recognised:
    """How many files were recognised how; `unlike`: bear an exported name and show another picture;
    `repeated`: show an image that came before, as a tool's augmented copies do."""

    by_bytes: int = 0
    by_picture: int = 0
    by_name: int = 0
    unlike: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """A file of the data set with what it stands for.

    Attributes:
        image: to store; of the workspace's own where it was recognised. sent: the id of that, where an export
            sent it out. repeats: the file that came before with the same image; this one is left out.
    """

    image: NewImage
    sent: int | None = None
    repeats: str | None = None


class Exported:
    """Files of the workspace's own exports.

    Added images are re-encoded, so a version's manifest says what each was made from; exports add few images
    to many, so that list is small. Training images are copied: their own hash tells; where
    those lie is told by who gives them, since a file may have been renamed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: dict[str, int | None] = {}
        self.covered: set[int] = set()
        self.recognised = Recognised()
        self._named: dict[str, int | None] | None = None
        self._taken: dict[int, str] = {}
        self._samples: set[str] = set()
        for version in store.versions():
            self.covered.update(version.image_ids)
            for entry in version.manifest.get("added", ()):
                self.made[entry["sha256"]] = entry["image_id"]
                if entry["image_id"] is None and (match := _HASH.search(Path(entry["path"]).stem)):
                    self._samples.add(match[1])

    def is_sample(self, sha256: str, name: str = "") -> bool:
        """True for a synthetic image's exported file, also one that a tool wrote anew."""
        if sha256 in self.made:
            return self.made[sha256] is None
        return any(digits in self._samples for digits in _digits(name))

    def located(
        self, items: Sequence[LabelledImage | Broken], role: Role
    ) -> tuple[list[LabelledImage | Broken], int]:
        """The items, and how many synthetic images without files are left out of them.

        Those whose files did not come back, and whose names an export gave, get the files of the workspace's
        images. One of another size than the file says is left as it is.
        """
        if not self.covered and not self.made:
            return list(items), 0
        found: dict[int, int] = {}
        samples: set[int] = set()
        for place, item in enumerate(items):
            if isinstance(item, LabelledImage) and not item.path.is_file():
                image_id = self._of_name(item.path.name)
                if image_id is not None:
                    found[place] = image_id
                elif role != "train" and self.is_sample("", item.path.name):
                    samples.add(place)
        records = self._records(list(found.values()))
        result = list(items)
        for place, image_id in found.items():
            item, record = items[place], records.get(image_id)
            if record is None or isinstance(item, Broken) or "://" in record.uri:
                continue
            if item.declared_size in (None, (record.width, record.height)) and Path(record.uri).is_file():
                result[place] = replace(item, path=Path(record.uri))
                self.recognised.by_name += 1
        return [item for place, item in enumerate(result) if place not in samples], len(samples)

    def origins(self, images: Sequence[NewImage], names: Sequence[str], role: Role) -> list[Origin]:
        """Let exported files stand for the images that they were made from: these keep their memberships, and
        get the asked one beside them unless that is "pool".

        Args:
            names: of the files, as people know them.
        """
        if not self.covered:
            return [Origin(image) for image in images]
        known = self.store.ids_by_sha256([image.sha256 for image in images])
        by_bytes = {image.sha256: self.made.get(image.sha256) or known.get(image.sha256) for image in images}
        by_name = {name: self._of_name(name) for name in names}
        wanted = {i for i in (*by_bytes.values(), *by_name.values()) if i is not None and i in self.covered}
        records = self._records(sorted(wanted))
        parts = {m.image_id: m for m in reversed(self.store.memberships(sorted(records)))} if records else {}
        found = []
        for image, name in zip(images, names, strict=True):
            record = records.get(by_bytes[image.sha256] or -1)
            sent = by_name[name]
            if record is None and sent is not None and image.sha256 not in known:
                record = self._of_picture(image, records.get(sent))
            if record is None:
                found.append(Origin(image))
                continue
            came_back = sent == record.id or self.made.get(image.sha256) == record.id
            first = self._taken.setdefault(record.id, name) if came_back else name
            if first != name:
                self.recognised.repeated += 1
                found.append(Origin(image, repeats=first))
                continue
            if came_back and image.uri != record.uri:  # `located` counted those
                self.recognised.by_bytes += by_bytes[image.sha256] is not None
                self.recognised.by_picture += by_bytes[image.sha256] is None
            image = _standing_for(image, record)
            if role == "pool":
                part = parts[record.id]
                image = replace(
                    image,
                    dataset=part.dataset,
                    role=part.role,
                    split=part.split,
                    group_key=part.group_key,
                    captured_at=part.captured_at,
                    source=part.source,
                )
            found.append(Origin(image, sent=record.id if came_back else None))
        return found

    def _of_picture(self, image: NewImage, record: ImageRecord | None) -> ImageRecord | None:
        """The image of that name, where the file shows it."""
        if record is None or image.appearance is None:
            return None
        if not self.store.same_picture(record.id, image.appearance):
            self.recognised.unlike += 1
            return None
        return record

    def _of_name(self, name: str) -> int | None:
        """The image that an export called so."""
        if self._named is None:
            hashes = self.store.hashes_of(sorted(self.covered))
            ids = self.store.ids_by_sha256(hashes)
            self._named = {sha256[:_DIGITS]: ids[sha256] for sha256 in hashes}
        return next((self._named[d] for d in _digits(name) if d in self._named), None)

    def _records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Images that are members of something; a removed one is none."""
        members = {m.image_id for m in self.store.memberships(sorted(set(ids)))} if ids else set()
        if not members:
            return {}
        return {image.id: image for image in self.store.images(reader="export", ids=sorted(members))}


def repeated(first: str) -> str:
    """Why a file is left out that shows an image which came back already."""
    return f"shows the exported image that {first} shows too; the labels of {first} are kept"


def _digits(name: str) -> list[str]:
    """The hashes that an exported name may end with."""
    return [match[1] for stem in original_stems(name) if (match := _HASH.search(stem))]


def _standing_for(image: NewImage, record: ImageRecord) -> NewImage:
    """The workspace's image with the labels of its file; boxes of a resized one are brought to its size."""
    labels = image.annotations
    if labels is not None and (image.width, image.height) != (record.width, record.height):
        across, down = record.width / image.width, record.height / image.height
        labels = tuple(_scaled(annotation, across, down) for annotation in labels)
    return replace(
        image,
        uri=image.uri if image.sha256 == record.sha256 else record.uri,
        sha256=record.sha256,
        phash=record.phash,
        appearance=None,
        width=record.width,
        height=record.height,
        annotations=labels,
    )


def _scaled(annotation: NewAnnotation, across: float, down: float) -> NewAnnotation:
    x1, y1, x2, y2 = annotation.box
    rings = annotation.polygon
    if rings is not None:
        rings = tuple(tuple(v * (down if i % 2 else across) for i, v in enumerate(ring)) for ring in rings)
    attributes = {name: value for name, value in annotation.attributes.items() if name != "rle"}
    box = (x1 * across, y1 * down, x2 * across, y2 * down)
    return rounded(replace(annotation, box=box, polygon=rings, attributes=attributes))
