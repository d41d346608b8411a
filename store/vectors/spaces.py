"""The vector spaces of a workspace: which rows of their files belong to what, and what of them counts.

In: `ImageBoxes`. Out: `BoxRows`. Files first, then SQL; whoever reads sees what SQL counts.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import OperationalError

from store.blobs import BlobStore
from store.errors import AccessError
from store.models import IndexedImage, SpaceRow
from store.records import BoxesKind, BoxRows, ClassRows, ImageBoxes, Ints, Role, SpaceShape
from store.runs import fresh_id
from store.session import Database, table
from store.vectors.codes import check_images, columns, encode, folder_name
from store.vectors.compaction import compacted
from store.vectors.files import ColumnFile
from store.vectors.places import FACT, KINDS, NOBODY, PlaceReader, Places, committed, stored_key
from store.vectors.queries import check_sizes, find_space, may_read, one_writer, places_of, require_space
from store.vectors.reading import BoxReader
from store.vectors.removed import bury

Part = TypeVar("Part")
OLD_FILES = ("*.f32", "*.faiss")  # of the schema before 0003


class Touched(threading.local):
    """The files that this thread's transaction has written."""

    def __init__(self) -> None:
        self.files: dict[Path, ColumnFile] = {}


class Spaces:
    """The vector spaces of a workspace.

    Args:
        folder: where their files lie. blobs: holds their arrays.
    """

    def __init__(self, database: Database, folder: Path, blobs: BlobStore) -> None:
        self._database = database
        self._folder = folder
        self._blobs = blobs
        self._places = PlaceReader(database, blobs)
        self._touched = Touched()
        database.before_commit.append(self._sync)
        database.on_end.append(self._finish)

    # ------------------------------------------------------------ spaces

    def create(self, run_id: int, name: str, shape: SpaceShape) -> None:
        """Make a space, unless there is one of this name.

        Raises:
            ValueError: the stored one has other views or classes, or this one none.
        """
        _check_shape(name, shape)
        with self._database.writing() as connection:
            one_writer(connection)
            found = find_space(connection, name)
            if found is None:
                row = {
                    **fresh_id(connection, SpaceRow),
                    "name": name,
                    "views": dict(shape.views),
                    "image_views": dict(shape.image_views),
                    "classes": shape.classes,
                    "facts": dict(shape.facts),
                    "arrays": self._put_arrays(shape.arrays),
                    "run_id": run_id,
                }
                connection.execute(insert(table(SpaceRow)), row)
                return
        stored, given = _layout(found), _layout(shape)
        if stored != given:
            raise ValueError(
                f"space {name!r}: expected views, image views and classes as stored {stored}, got {given}; "
                "use another name"
            )

    def shape(self, name: str) -> SpaceShape | None:
        """What a space holds; None where there is none of this name."""
        with self._database.reading() as connection:
            found = find_space(connection, name)
        return None if found is None else _shape(found, self._arrays(found.arrays))

    def folder(self, name: str) -> Path:
        """Where the files of a space lie; made by the first boxes."""
        with self._database.reading() as connection:
            return self._folder_of(require_space(connection, name))

    def _folder_of(self, space: Any) -> Path:
        return self._folder / folder_name(space.id, space.name)

    def _put_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        from safetensors.numpy import save

        if not arrays:
            return ""
        return self._blobs.put(save({name: np.array(array, order="C") for name, array in arrays.items()}))

    def _arrays(self, blob: str) -> Mapping[str, NDArray[Any]]:
        from safetensors.numpy import load

        return dict(load(self._blobs.get(blob))) if blob else {}

    # ------------------------------------------------------------ writing

    def put(self, run_id: int, name: str, kind: BoxesKind, images: Sequence[ImageBoxes]) -> None:
        """Append the boxes of images whose key is not stored yet.

        Raises:
            NotFoundError: no such space, or an image that the workspace does not hold.
            ValueError: what does not fit the space, or another size than the image's.
        """
        with self._database.writing() as connection:
            one_writer(connection)
            space = require_space(connection, name)
            shape = _shape(space)
            check_images(shape, kind, images)
            unique = {stored_key(image.key): image for image in reversed(images)}  # the first of equals
            stored = places_of(connection, space.id, kind, list(unique))
            new = [(key, image) for key, image in reversed(unique.items()) if key not in stored]
            if not new:
                return
            check_sizes(connection, [image for _, image in new])
            counts = committed(connection, space, kind)
            folder = self._folder_of(space)
            for column in columns(shape, kind):
                file = column.file(folder, kind)
                self._touched.files[file.path] = file
                file.write(counts[column.group], encode(column, [image for _, image in new]))
            box, candidate = counts["boxes"], counts["candidates"]
            rows = []
            for place, (key, image) in enumerate(new, start=counts["images"]):
                rows.append(
                    {
                        "space_id": space.id,
                        "kind": KINDS[kind],
                        "place": place,
                        "image_id": image.image_id,
                        "key": key,
                        "first_box": box,
                        "boxes": len(image),
                        "first_candidate": candidate,
                        "candidates": len(image.labels),
                        "run_id": run_id,
                    }
                )
                box, candidate = box + len(image), candidate + len(image.labels)
            connection.execute(insert(table(IndexedImage)), rows)

    def _sync(self) -> None:
        files = [file for file in self._touched.files.values() if file.path.exists()]
        if files:  # at once: one write of the disk's journal serves several files
            with ThreadPoolExecutor(len(files)) as pool:
                list(pool.map(ColumnFile.sync, files))

    def _finish(self, done: bool) -> None:
        touched, self._touched.files = self._touched.files, {}
        if not done and touched:
            self._cut(sorted({path.parent for path in touched}))

    def cut_tails(self) -> None:
        """Cut off what a killed process wrote and never counted; leave a living writer's alone. Files of the
        schema before 0003, of which SQL knows nothing, go."""
        for pattern in OLD_FILES:
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)
        with self._database.reading() as connection:
            spaces = connection.execute(select(table(SpaceRow))).all()
            known = {self._folder_of(space) for space in spaces}
            suspects = [
                self._folder_of(space)
                for space in spaces
                if any(file.tail(count) for file, count in self._counted(connection, space))
            ]
        suspects += [path for path in self._folder.glob("[0-9]*-*") if path not in known and path.is_dir()]
        if suspects:
            self._cut(suspects)

    def _counted(self, connection: Connection, space: Any) -> Iterator[tuple[ColumnFile, int]]:
        """The files of a space, and how many of their rows count."""
        shape, folder = _shape(space), self._folder_of(space)
        for kind in KINDS:
            counts = committed(connection, space, kind)
            for column in columns(shape, kind):
                yield column.file(folder, kind), counts[column.group]

    def _cut(self, folders: Sequence[Path]) -> None:
        """Cut the files in folders of spaces to what is counted, unless somebody is writing: the tail may be
        theirs, and whoever writes next writes over it. A folder that is no space's goes."""
        try:
            with self._database.writing(wait=False) as connection:
                # The writers' lock is ours: what is not counted now never will be.
                if not one_writer(connection, wait=False):
                    return
                spaces = connection.execute(select(table(SpaceRow))).all()
                owners = {self._folder_of(space): space for space in spaces}
                for folder in folders:
                    if folder not in owners:
                        shutil.rmtree(folder, ignore_errors=True)
                        continue
                    for file, count in self._counted(connection, owners[folder]):
                        file.truncate(count)
        except OperationalError:
            return

    # ------------------------------------------------------------ removing

    def bury(self, connection: Connection, image_ids: Sequence[int]) -> int:
        """Forget the rows of images in all spaces (`store.vectors.removed`); returns how many there were."""
        one_writer(connection)
        return bury(connection, self._blobs, image_ids)

    def compact(self, space_id: int) -> None:
        """Write a space's files without the rows of removed images; the old ones go after the commit."""
        with self._database.writing() as connection:
            one_writer(connection)
            space = connection.execute(select(table(SpaceRow)).where(SpaceRow.id == space_id)).one()
            files = compacted(connection, self._places, self._folder, space, _shape(space))
            self._touched.files.update({file.path: file for file in files})

    def dead_bytes(self, space: Any, share: float) -> int:
        """Bytes of a space's columns that belong to removed images, about: `share` of all."""
        with self._database.reading() as connection:
            files = [file.path for file, _ in self._counted(connection, space) if file.path.exists()]
        return round(share * sum(path.stat().st_size for path in files))

    def space_rows(self) -> list[Any]:
        """All spaces as rows of SQL, by id."""
        with self._database.reading() as connection:
            return list(connection.execute(select(table(SpaceRow)).order_by(SpaceRow.id)).all())

    # ------------------------------------------------------------ reading

    def boxes(
        self,
        name: str,
        kind: BoxesKind,
        *,
        image_ids: Sequence[int] | None,
        keys: Sequence[str] | None,
        role: Role | None,
    ) -> BoxRows:
        """Boxes of images, by image id; those of one image in the order in which they were stored."""
        with self._reading(name, kind, role) as (connection, space, reader):
            chosen = _chosen(connection, reader.places, role, image_ids)
            if keys is not None:
                found = places_of(connection, space.id, kind, [stored_key(key) for key in keys])
                chosen = np.intersect1d(chosen, np.array(list(found.values()), np.int64))
            chosen = chosen[np.argsort(reader.places.image_ids[chosen], kind="stable")]
            return _read(reader, chosen)

    def scan(
        self, name: str, *, role: Role | None, image_ids: Sequence[int] | None, rows: int
    ) -> Iterator[BoxRows]:
        """Offered boxes of whole images in the order of the files, about `rows` at a time."""
        return (found for found in self._parts(name, role, image_ids, rows, _read) if len(found))

    def scan_classes(
        self, name: str, *, role: Role | None, image_ids: Sequence[int] | None, rows: int
    ) -> Iterator[ClassRows]:
        """Classes of the candidates of whole images in the order of the files."""
        return self._parts(name, role, image_ids, rows, BoxReader.classes)

    def _parts(
        self,
        name: str,
        role: Role | None,
        image_ids: Sequence[int] | None,
        rows: int,
        read: Callable[[BoxReader, Ints], Part],
    ) -> Iterator[Part]:
        """What `read` gives of the places of whole images with about `rows` boxes at a time."""
        if rows < 1:
            raise ValueError(f"rows: expected at least 1, got {rows}")
        with self._reading(name, "offered", role) as (connection, _, reader):
            chosen = _chosen(connection, reader.places, role, image_ids)
        ends = np.cumsum(reader.places.boxes[chosen])

        def parts() -> Iterator[Part]:
            start = 0
            while start < len(chosen):
                before = ends[start - 1] if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + rows, side="right")))
                yield read(reader, chosen[start:stop])
                start = stop

        return parts()

    def ranges(
        self, name: str, *, role: Role | None, image_ids: Sequence[int] | None
    ) -> tuple[Ints, Ints, Ints]:
        """Image ids, first rows and numbers of rows of offered boxes, (M,) each, by first row."""
        with self._reading(name, "offered", role) as (connection, _, reader):
            chosen = _chosen(connection, reader.places, role, image_ids)
        places = reader.places
        return places.image_ids[chosen], places.first[chosen], places.boxes[chosen]

    def end(self, name: str) -> int:
        """The number after the last row of offered boxes that may be read, those of removed images among
        them."""
        with self._reading(name, "offered", None) as (connection, _, reader):
            places = reader.places
            mask = may_read(connection, places.image_ids, None)
        return int((places.first + places.boxes)[mask].max(initial=0))

    def rows(self, name: str, rows: Ints) -> BoxRows:
        """Offered boxes by row number, in the order asked for."""
        rows = np.asarray(rows, np.int64).reshape(-1)
        with self._reading(name, "offered", None) as (connection, _, reader):
            count = reader.places.committed("boxes")
            if len(rows) and not 0 <= rows.min() <= rows.max() < count:
                raise ValueError(
                    f"space {name!r}: expected rows from 0 to {count - 1}, got {rows.min()} to {rows.max()}"
                )
            owners = reader.places.of_rows(rows)
            images = reader.places.image_ids[owners]
            closed = images[~may_read(connection, images, None)]
            if len(closed):
                raise AccessError(f"image {closed[0]} is in the holdout, whose boxes are closed")
            return reader.read(rows, owners)

    @contextmanager
    def _reading(
        self, name: str, kind: BoxesKind, role: Role | None
    ) -> Iterator[tuple[Connection, Any, BoxReader]]:
        if role == "holdout":
            raise AccessError(
                "boxes of the holdout are closed; Store.leaks() names the images that are too near it"
            )
        with self._database.reading() as connection:
            space = require_space(connection, name)
            places = self._places.read(connection, space, kind)
            yield connection, space, BoxReader(self._folder_of(space), _shape(space), kind, places)


def _shape(space: Any, arrays: Mapping[str, NDArray[Any]] | None = None) -> SpaceShape:
    return SpaceShape(
        views=space.views,
        image_views=space.image_views,
        classes=space.classes,
        facts={name: value for name, value in space.facts.items() if name != FACT},
        arrays=arrays or {},
    )


def _layout(shape: Any) -> dict[str, Any]:
    return {"views": dict(shape.views), "image_views": dict(shape.image_views), "classes": shape.classes}


def _check_shape(name: str, shape: SpaceShape) -> None:
    dimensions = [*shape.views.values(), *shape.image_views.values()]
    if not name or not shape.views or min(dimensions) < 1 or not 1 <= shape.classes <= 65535:
        raise ValueError(
            f"space {name!r}: expected a name, a view, dimensions of at least 1 and 1 to 65535 classes, "
            f"got {_layout(shape)}"
        )


def _chosen(
    connection: Connection, places: Places, role: Role | None, image_ids: Sequence[int] | None
) -> Ints:
    """The places of images of a role, in their order; never of removed ones."""
    mask = may_read(connection, places.image_ids, role) & (places.image_ids != NOBODY)
    if image_ids is not None:
        mask &= np.isin(places.image_ids, np.asarray(image_ids, np.int64))
    return np.flatnonzero(mask).astype(np.int64)


def _read(reader: BoxReader, chosen: Ints) -> BoxRows:
    return reader.read(reader.places.rows(chosen), np.repeat(chosen, reader.places.boxes[chosen]))
