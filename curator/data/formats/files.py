"""Files of a data set: which paths an annotation file may name, and how they are written.

An annotation file may come from anywhere, so a path in it, absolute or with "..", is followed only when it
ends inside the images folder. Links that stand in that folder are the user's own and are followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curator.data.formats.base import OutputImage
from curator.errors import FormatError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".jpe"),
    *(".gif", ".mpo", ".avif", ".jp2", ".ppm", ".pgm", ".heic", ".heif"),
)
"""Tried in this order where an annotation file names an image without its suffix."""
PRE_ANNOTATIONS = "pre_annotations.txt"


def inside(folder: Path, name: str) -> Path:
    """Return `folder` / `name`.

    Raises:
        FormatError: the path would leave the folder.
    """
    root = os.path.abspath(folder)
    joined = os.path.normpath(os.path.join(root, name))
    if "\0" in name or os.path.commonpath([root, joined]) != root or joined == root:
        raise FormatError(
            f"{name!r} leads outside the images folder {folder}; pass --images with a folder that holds it"
        )
    if "\\" in name and not os.path.exists(joined):
        return inside(folder, name.replace("\\", "/"))
    return Path(joined)


def pre_annotated(folder: Path) -> frozenset[str]:
    """Names of the images that `pre_annotations.txt` in `folder` lists: boxes there wait for a human."""
    path = folder / PRE_ANNOTATIONS
    if not path.is_file():
        return frozenset()
    return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


class Writer:
    """Writes files below a folder, never over each other, and makes their manifest entries."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def file(self, name: str, data: bytes, lineage: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write one file; returns its manifest entry.

        Raises:
            FormatError: a file of that name is there already.
        """
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as handle:
                handle.write(data)
        except FileExistsError as error:
            raise FormatError(f"two files of the data set are called {name}; names must differ") from error
        entry: dict[str, Any] = {"path": name, "sha256": hashlib.sha256(data).hexdigest()}
        return {**entry, "lineage": dict(lineage)} if lineage is not None else entry

    def entry(self, name: str) -> dict[str, Any]:
        """The manifest entry of a file that was streamed to disk."""
        with (self.out / name).open("rb") as handle:
            return {"path": name, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}

    def image(self, folder: str, item: OutputImage) -> dict[str, Any]:
        """Write an image file; returns its manifest entry."""
        lineage = {**item.lineage, **({"pre_annotated": True} if item.pre_annotated else {})}
        return self.file(f"{folder}/{item.name}{item.suffix}", item.data, lineage)


def index_of(categories: Sequence[str]) -> dict[str, int]:
    """Category name -> 0-based position.

    Raises:
        FormatError: a name occurs twice.
    """
    index = {name: number for number, name in enumerate(categories)}
    if len(index) != len(categories):
        raise FormatError(f"expected different category names, got {', '.join(categories)}")
    return index


def lookup(index: Mapping[str, int], name: str) -> int:
    """Position of a category.

    Raises:
        FormatError: unknown category.
    """
    if name not in index:
        raise FormatError(f"category {name!r} is not among {', '.join(index)}")
    return index[name]
