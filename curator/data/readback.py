"""Read a written data set back and compare it, image by image, with what was to be written.

In: the `OutputImage`s as they are written, then the folder. Out: nothing, or a `StageError` that names
the difference.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from curator.data.formats.base import Broken, Format, LabelledImage, OutputImage
from curator.data.formats.placement import place
from curator.errors import InputError, StageError
from store.keys import content_key


class Expected:
    """What each image file should hold, in a private SQLite file: memory stays flat.

    Attributes:
        names: class name in the workspace -> in the files. crowd_regions: how many of them the format cannot
            hold, so that they are left out. crowd_images: in how many images.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.crowd_regions = self.crowd_images = 0

    def __enter__(self) -> Expected:
        self.database = sqlite3.connect("")
        self.database.execute(
            "CREATE TABLE expected (stem TEXT PRIMARY KEY, width INT, height INT, labels TEXT, "
            "waiting INT, path TEXT, sha256 TEXT)"
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.database.close()

    def note(self, form: Format, item: OutputImage) -> OutputImage:
        """Bring the labels to what files can hold, remember them, and return the item with them."""
        named = tuple(replace(a, category=self.names.get(a.category, a.category)) for a in item.annotations)
        clean = (
            place(
                LabelledImage(path=Path(item.name), name=item.name, annotations=named),
                (item.width, item.height),
            ).annotations
            or ()
        )
        carried = form.carried(clean)
        lost = sum(a.crowd for a in clean) - sum(a.crowd for a in (clean if carried is None else carried))
        self.crowd_regions += lost
        self.crowd_images += lost > 0
        self.database.execute(
            "INSERT INTO expected VALUES (?, ?, ?, ?, ?, NULL, NULL)",
            (
                item.name + item.suffix,
                item.width,
                item.height,
                content_key(carried),
                item.pre_annotated,
            ),
        )
        return replace(item, annotations=clean)

    def written(self, path: str, sha256: str) -> None:
        self.database.execute(
            "UPDATE expected SET path = ?, sha256 = ? WHERE stem = ?", (path, sha256, path.rsplit("/", 1)[-1])
        )

    def take(self, stem: str) -> tuple[int, int, str, int, str]:
        """(width, height, key of the labels, pre-annotated, sha256), once for each image."""
        row = self.database.execute(
            "DELETE FROM expected WHERE stem = ? RETURNING width, height, labels, waiting, sha256", (stem,)
        ).fetchone()
        if row is None:
            raise StageError(f"export: read back {stem}, which was not written")
        return tuple(row)

    def rest(self) -> list[str]:
        return [row[0] for row in self.database.execute("SELECT stem FROM expected LIMIT 5")]


def read_back(form: Format, part: Path, expected: Expected, left_out: Sequence[tuple[str, str]]) -> None:
    """Read the written data set and compare images and labels.

    Args:
        left_out: images that were not written, with reasons.
    Raises:
        StageError: a difference. InputError: nothing was written.
    """
    if not next(expected.database.execute("SELECT count(*) FROM expected"))[0]:
        if left_out:
            name, reason = left_out[0]
            raise InputError(
                f"nothing to export: all {len(left_out)} images are left out; the first is {name}: {reason}"
            )
        raise InputError(
            "nothing to export: add labelled images with --role train, or name a selection or samples"
        )
    for item in form.open(part).items:
        if isinstance(item, Broken):
            raise StageError(f"export: {item.name} cannot be read back: {item.reason}")
        width, height, labels, waiting, sha256 = expected.take(item.path.name)
        placed = place(item, (width, height))
        with item.path.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != sha256:
                raise StageError(
                    f"export: {item.name} reads back with other bytes; is the disk full or faulty?"
                )
        if content_key(placed.annotations) != labels or placed.problems:
            raise StageError(
                f"export: the labels of {item.name} read back differently {' '.join(placed.problems)}"
            )
        if placed.annotations is not None and (placed.status == "pre-annotation") != bool(waiting):
            raise StageError(f"export: {item.name} lost its mark as pre-annotated")
    if missing := expected.rest():
        raise StageError(f"export: {', '.join(missing)} cannot be found again")
