"""A folder of images without labels, searched recursively: an unlabelled pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from curator.data.formats.base import LabelledImage, OutputImage, Source
from curator.data.formats.files import Writer
from curator.data.formats.pictures import image_files, nothing_readable, passed_over_notes
from curator.errors import FormatError
from store.records import NewAnnotation


class ImagesFormat:
    """Reads and writes plain folders of images."""

    reads: ClassVar[tuple[str, ...]] = ()

    def open(
        self,
        path: Path,
        *,
        images: Path | None = None,
        classes: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Source:
        """Open a folder; hidden files and folders are passed over, pictures that cannot be read are counted.

        Args:
            images: read this folder instead of `path`. split: read the sub-folder of this name.
        Raises:
            FormatError: no such folder, or no readable image in it.
        """
        folder = images or path
        if split is not None:
            folder = folder / split
        if not folder.is_dir():
            raise FormatError(f"expected a folder of images, got {folder}")
        passed_over = Counter[str]()
        count = sum(1 for _ in image_files(folder, passed_over))
        if not count:
            raise FormatError(nothing_readable(folder, passed_over))
        return Source(
            categories=tuple(classes or ()),
            count=count,
            notes=passed_over_notes(passed_over),
            items=(
                LabelledImage(path=file, name=file.relative_to(folder).as_posix(), split=split)
                for file in image_files(folder)
            ),
        )

    def write(
        self, out: Path, categories: Sequence[str], items: Iterable[OutputImage]
    ) -> Iterator[dict[str, Any]]:
        """Write the images alone."""
        writer = Writer(out)
        for item in items:
            yield writer.image("images", item)

    def carried(self, annotations: Sequence[NewAnnotation]) -> None:
        """Nothing: images read back are unlabelled."""
        return None
