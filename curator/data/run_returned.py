"""Exports that come back: which files of a data set are the workspace's own, sent out for labelling.

In: hashes of files. Out: the images that they were made from, so that the labels of a corrected export reach
those images, and no copy of them enters the workspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from store.records import NewImage, Role

if TYPE_CHECKING:
    from store.store import Store


class Exported:
    """Files of the workspace's own exports, known by their hashes.

    Added images are re-encoded, so a version's manifest says what each was made from; exports add few images
    to many, so that list is small. Training images are copied: their own hash tells; where
    those lie is told by who gives them, since a file may have been renamed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: dict[str, int | None] = {}
        self.covered: set[int] = set()
        for version in store.versions():
            self.covered.update(version.image_ids)
            self.made.update(
                (entry["sha256"], entry["image_id"]) for entry in version.manifest.get("added", ())
            )

    def is_sample(self, sha256: str) -> bool:
        """True for a synthetic image's exported file."""
        return sha256 in self.made and self.made[sha256] is None

    def as_origins(self, images: Sequence[NewImage], role: Role) -> list[NewImage]:
        """Let exported files stand for the images that they were made from: these keep their memberships, and
        get the asked one beside them unless that is "pool"."""
        if not self.covered:
            return list(images)
        known = self.store.ids_by_sha256([image.sha256 for image in images])
        origins = {image.sha256: self.made.get(image.sha256) or known.get(image.sha256) for image in images}
        ids = sorted({i for i in origins.values() if i is not None and i in self.covered})
        parts = {m.image_id: m for m in reversed(self.store.memberships(ids))} if ids else {}
        records = {image.id: image for image in self.store.images(reader="export", ids=sorted(parts))}
        changed = []
        for image in images:
            record = records.get(origins[image.sha256] or -1)
            if record is not None:
                part = parts[record.id]
                image = replace(
                    image,
                    uri=image.uri if image.sha256 == record.sha256 else record.uri,
                    sha256=record.sha256,
                    phash=record.phash,
                    appearance=None,
                    width=record.width,
                    height=record.height,
                )
                if role == "pool":
                    image = replace(
                        image,
                        dataset=part.dataset,
                        role=part.role,
                        split=part.split,
                        group_key=part.group_key,
                        captured_at=part.captured_at,
                        source=part.source,
                    )
            changed.append(image)
        return changed
