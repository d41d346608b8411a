"""The format seam: reading and writing labelled data sets, one image at a time.

In: files of a data set. Out: `LabelledImage`s in the frame that the files use; `placement.place` brings them
to stored-image pixels once the image's real size is known. Writing goes the other way; reading back gives
exactly `carried(annotations)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from store.records import NewAnnotation


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image of a data set as its files say.

    Attributes:
        path: the image file.
        name: path relative to the data set, unique in it.
        declared_size: (width, height) as the annotation file says, None where it does not.
        annotations: None for unlabelled. Boxes in pixels of the declared size or, where the format is
            relative (YOLO), `relative` is True and boxes are fractions of the image.
        problems: one line for each object that was dropped, with the reason (a degenerate box, ...).
        notes: what was changed in objects that were kept (a box clipped to the image, ...).
        incomplete: True where a dropped object may show in the picture (`checking` tells which do).
    """

    path: Path
    name: str
    declared_size: tuple[int, int] | None = None
    annotations: tuple[NewAnnotation, ...] | None = None
    relative: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    incomplete: bool = False
    split: str | None = None
    group_key: str | None = None
    captured_at: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    status: Literal["human", "pre-annotation"] = "human"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """An item that cannot be read at all, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened data set: its categories and a stream of items (memory flat in their number).

    Attributes:
        notes: what was changed for the data set as a whole (blanks taken from class names, ...).
        listed: classes that the data set (or the user) lists: its labels speak of these and of no other.
            None where nothing says so, as where `categories` are those of the objects found.
    """

    categories: tuple[str, ...]
    items: Iterator[LabelledImage | Broken]
    count: int | None = None
    notes: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputImage:
    """One image of a data set to write.

    Attributes:
        name: file stem, unique in the data set.
        data: the image file's bytes.
        suffix: ".png", ".jpg", ...
        width, height: pixels of the stored image (EXIF orientation applied).
        lineage: JSON facts for the manifest (role, sha256 of the source, failure -> query/sample).
    """

    name: str
    data: bytes
    suffix: str
    width: int
    height: int
    annotations: tuple[NewAnnotation, ...]
    lineage: Mapping[str, Any]
    pre_annotated: bool = False


class Format(Protocol):
    """A data set format.

    Its class is called without arguments, or with those settings of `curator add` that it lists in `takes`, a
    tuple of names: "background", "every", "frames" (a folder of the workspace for files that it makes).

    `reads`, a tuple of suffixes in lower case, lists the files that `open` and its items look into. With it a
    data set may lie in a bucket: those files are fetched, of all others the names alone are there (as empty
    files). A format that opens images has no `reads` and takes local folders only.
    """

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a data set; items stream.

        Raises:
            FormatError: nothing of this format there.
        """

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write into the (temporary) folder `out`; yields one manifest entry a file, {"path", "sha256",
        "lineage"}, as it goes. The data set is complete when the iterator is exhausted.

        Raises:
            FormatError: two items of one name, or a category that `categories` lacks.
        """

    def carried(self, annotations: Sequence[NewAnnotation]) -> tuple[NewAnnotation, ...] | None:
        """What reading back gives for `annotations`: a format may not hold all their facts."""
