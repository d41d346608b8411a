"""The part of the Store for what images offer a query, under the contract of `store.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from store.records import BoxesKind, BoxRows, ClassRows, ImageBoxes, Ints, Role, SpaceShape
from store.vectors.spaces import Spaces


class StoredBoxes:
    """Reads and writes the boxes of vector spaces: files first (fsync), then SQL, in one transaction."""

    _spaces: Spaces

    def create_space(self, run_id: int, name: str, shape: SpaceShape) -> None:
        """Make a vector space; nothing where there is one of this name, whose facts and arrays then stand.

        Raises:
            ValueError: the stored one has other views, dimensions or classes, or this one none.
        """
        self._spaces.create(run_id, name, shape)

    def space(self, name: str) -> SpaceShape | None:
        """What a space holds, views by name; None where there is none."""
        return self._spaces.shape(name)

    def space_folder(self, name: str) -> Path:
        """Where the files of a space lie, and FAISS's may; it exists once the space has boxes.

        Raises:
            NotFoundError: no such space (so for all that follow).
        """
        return self._spaces.folder(name)

    def put_boxes(self, run_id: int, name: str, kind: BoxesKind, images: Sequence[ImageBoxes]) -> None:
        """Append the boxes of images, unless their key is stored already. Boxes are clipped to the image and,
        like scores, rounded (`store.vectors.codes`).

        Raises:
            NotFoundError: an image that the workspace does not hold.
            ValueError: what does not fit the space or the image's size; then nothing is stored.
        """
        self._spaces.put(run_id, name, kind, images)

    def boxes(
        self,
        name: str,
        kind: BoxesKind,
        *,
        image_ids: Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
        role: Role | None = None,
    ) -> BoxRows:
        """Boxes of a kind by image id, never those of images that are in the holdout alone. Keys that are not
        stored are passed over. All at once: for a pool, use `scan_boxes`.

        Raises:
            AccessError: for role "holdout". CorruptionError: a file is shorter than recorded.
        """
        return self._spaces.boxes(name, kind, image_ids=image_ids, keys=keys, role=role)

    def scan_boxes(
        self,
        name: str,
        *,
        role: Role | None = "pool",
        image_ids: Sequence[int] | None = None,
        rows: int = 200_000,
    ) -> Iterator[BoxRows]:
        """Offered boxes in the order of the files: whole images, at most `rows` boxes at a time (or one
        image). What is stored meanwhile is not seen.

        Raises:
            AccessError, CorruptionError: as for `boxes`.
        """
        return self._spaces.scan(name, role=role, image_ids=image_ids, rows=rows)

    def scan_classes(
        self,
        name: str,
        *,
        role: Role | None = "pool",
        image_ids: Sequence[int] | None = None,
        rows: int = 500_000,
    ) -> Iterator[ClassRows]:
        """What the detector says of offered candidates, as `scan_boxes`: eleven bytes a candidate, so that
        all of a large pool can be read.

        Raises:
            AccessError, CorruptionError: as for `boxes`.
        """
        return self._spaces.scan_classes(name, role=role, image_ids=image_ids, rows=rows)

    def box_ranges(
        self, name: str, *, role: Role | None = None, image_ids: Sequence[int] | None = None
    ) -> tuple[Ints, Ints, Ints]:
        """Which rows of offered boxes belong to which image: image ids, first rows and numbers of rows, (M,)
        each, by first row.

        Raises:
            AccessError: for role "holdout".
        """
        return self._spaces.ranges(name, role=role, image_ids=image_ids)

    def box_end(self, name: str) -> int:
        """The number after the last row of offered boxes; rows of removed images count, as they keep their
        numbers."""
        return self._spaces.end(name)

    def box_rows(self, name: str, rows: Ints) -> BoxRows:
        """Offered boxes by row number, in any order; repeated where asked for twice. Rows of removed images
        are those of image -1.

        Raises:
            ValueError: a row that is not there. AccessError: a row of an image of the holdout alone.
        """
        return self._spaces.rows(name, rows)
