"""The lists of a COCO file in a private SQLite database, so that memory stays flat.

In: the JSON file. Out: its images, each with its annotations, in file order. Annotations are not grouped by
image in the file, so all wait in the database.

Ids must tell which labels are whose. An id that two images bear (files glued together) leaves both without
labels, and so does one image under two ids whose labels differ: nobody knows which are right. A category id
that two classes bear makes the annotations that use it unusable. Annotation ids may repeat: nothing refers to
them, each annotation names its image.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.coco_objects import Classes, identity_of, labelled_image
from curator.data.formats.files import inside
from curator.data.formats.finding import ImageFinder, leads_outside
from curator.data.formats.jsonstream import array_elements
from curator.errors import FormatError

_ADDRESSES = ("coco_url", "path", "flickr_url")
"""Where an image's name may be found as well."""


class CocoTables:
    """One parsed file."""

    def __init__(self, path: Path) -> None:
        """Parse the file.

        Raises:
            FormatError: no JSON, or no COCO file.
        """
        self.path = path
        self.names: dict[str, str] = {}
        self.clashes: dict[str, list[str]] = {}
        self.parents: dict[str, str] = {}  # supercategories by id
        self.used: set[str] = set()  # category ids of annotations
        self.database = sqlite3.connect("")  # a private file that SQLite removes on close
        try:
            self._spool()
        except BaseException:
            self.database.close()
            raise

    def _spool(self) -> None:
        self.database.executescript("""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16000;
            -- path: "? ..." where no file can be meant
            CREATE TABLE images (row INTEGER PRIMARY KEY, id TEXT, name TEXT, text TEXT, path TEXT,
                direct INT);
            CREATE TABLE annotations (image TEXT, id TEXT, text TEXT);
            CREATE TABLE broken (name TEXT, reason TEXT);
        """)
        seen: set[str] = set()
        for key, element in array_elements(self.path, seen):
            if key not in ("images", "annotations", "categories"):
                continue
            if not isinstance(element, dict):
                raise FormatError(f"{self.path}: {key}: expected objects, got {json.dumps(element)[:60]}")
            if key == "images":
                self._image(element)
            elif key == "annotations":
                identity = None if element.get("id") is None else identity_of(element["id"])
                self.used.add(identity_of(element.get("category_id")))
                self.database.execute(
                    "INSERT INTO annotations VALUES (?, ?, ?)",
                    (identity_of(element.get("image_id")), identity, _text(element)),
                )
            else:
                self._category(element)
        if "images" not in seen:
            raise FormatError(
                f"{self.path}: expected COCO JSON with a list of images, "
                f"found the lists {', '.join(sorted(seen)) or 'none'}"
            )
        self.labelled = "annotations" in seen
        self.database.execute("CREATE INDEX by_image ON annotations (image)")
        self.database.execute("CREATE INDEX by_id ON images (id)")
        orphans = "SELECT image, text FROM annotations WHERE image NOT IN (SELECT id FROM images)"
        self.database.execute(
            "INSERT INTO broken SELECT 'annotation of image ' || image, 'no image has this id (' || count(*) "
            f"|| ' annotations)' FROM ({orphans}) GROUP BY image"
        )

    def _image(self, element: Mapping[str, Any]) -> None:
        names = [element.get(key) for key in ("file_name", *_ADDRESSES)]
        name = next((text for text in names if isinstance(text, str) and text.strip()), None)
        identity = element.get("id")
        path = None
        if name is None or identity is None:
            self._broken(str(name or identity), "expected an id and a file_name")
            path = "? nameless"
        self.database.execute(
            "INSERT INTO images (id, name, text, path) VALUES (?, ?, ?, ?)",
            (identity_of(identity), name or "an image without a name", _text(element), path),
        )

    def _category(self, element: Mapping[str, Any]) -> None:
        name = element.get("name")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if element.get("id") is None or not isinstance(name, str) or not name.strip():
            raise FormatError(
                f"{self.path}: categories: expected an id and a name, got {json.dumps(element)[:60]}"
            )
        identity = identity_of(element["id"])
        self.parents[identity] = str(element.get("supercategory") or "")
        if self.names.setdefault(identity, name) != name:
            self.clashes.setdefault(identity, [self.names[identity]]).append(name)

    def _broken(self, name: str, reason: str) -> None:
        self.database.execute("INSERT INTO broken VALUES (?, ?)", (name, reason))

    def count(self) -> int:
        """How many different images there are, once `find_images` has found them."""
        query = "SELECT count(DISTINCT path) FROM images WHERE path NOT LIKE '?%'"
        return int(self.database.execute(query).fetchone()[0])

    def first_names(self, number: int = 20) -> list[str]:
        query = "SELECT name FROM images ORDER BY row LIMIT ?"
        return [row[0] for row in self.database.execute(query, (number,))]

    def notes(self) -> list[str]:
        """What the whole file has that is odd and does no harm, once `find_images` has found the images."""
        shared = "SELECT id FROM images GROUP BY id HAVING count(DISTINCT path) > 1"
        repeated = (
            f"SELECT id FROM annotations WHERE id IS NOT NULL AND image NOT IN ({shared}) "
            "GROUP BY id HAVING count(*) > 1"
        )
        (count,) = self.database.execute(f"SELECT count(*) FROM ({repeated})").fetchone()
        some = ", ".join(row[0] for row in self.database.execute(f"{repeated} LIMIT 3"))
        if not count:
            return []
        return [
            f"{count} annotation ids occur more than once ({some}{', ...' if count > 3 else ''}); "
            "each annotation counts for the image that it names"
        ]

    # ------------------------------------------------------------ names

    def find_images(self, root: Path) -> None:
        """Give each image its file below `root`. Files that an image names as they stand are taken before
        others are sought by the tail of a name, which finds none of these."""
        finder = ImageFinder(root)
        for row, name, _ in self._nameless():
            if found := finder.direct(name):
                self._give(row, found, direct=True)
        self.database.execute("CREATE INDEX by_path ON images (path)")
        for row, name, text in self._nameless():
            record = json.loads(text)
            names = [name, *(record[key] for key in _ADDRESSES if isinstance(record.get(key), str))]
            try:
                place: Path | str | None = next((path for path in map(finder.find, names) if path), None)
                if place is None or self._taken(place):  # `add` will say that it is missing
                    place = inside(root, name) if leads_outside(name) else os.path.join(root, name)
            except FormatError as error:
                self._broken(name, str(error))
                self._give(row, f"? {row}")  # its id still says whose labels are whose
            else:
                self._give(row, place)

    def _nameless(self) -> Iterator[tuple[int, str, str]]:
        """(row, name, text) of the images without a file, a few at a time, as they get theirs meanwhile."""
        query = "SELECT row, name, text FROM images WHERE path IS NULL AND row > ? ORDER BY row LIMIT 100"
        last = 0
        while rows := self.database.execute(query, (last,)).fetchall():
            yield from rows
            last = rows[-1][0]

    def _give(self, row: int, path: Path | str, *, direct: bool = False) -> None:
        query = "UPDATE images SET path = ?, direct = ? WHERE row = ?"
        self.database.execute(query, (str(path), direct, row))

    def _taken(self, path: Path | str) -> bool:
        """Does another image name this file as it stands?"""
        query = "SELECT 1 FROM images WHERE path = ? AND direct"
        return self.database.execute(query, (str(path),)).fetchone() is not None

    # ------------------------------------------------------------ items

    def items(self, classes: Classes) -> Iterator[LabelledImage | Broken]:
        """What is broken, then the images in file order, each once; closes the database."""
        try:
            for name, reason in self.database.execute("SELECT name, reason FROM broken ORDER BY rowid"):
                yield Broken(name=name, reason=reason)
            firsts = "SELECT min(row) FROM images WHERE path NOT LIKE '?%' GROUP BY path"
            query = f"SELECT name, text, path FROM images WHERE row IN ({firsts}) ORDER BY row"
            for name, text, path in self.database.execute(query):
                try:
                    yield self._item(name, json.loads(text), path, classes)
                except FormatError as error:
                    yield Broken(name=name, reason=str(error))
        finally:
            self.database.close()

    def _item(self, name: str, record: Mapping[str, Any], path: str, classes: Classes) -> LabelledImage:
        ids = [
            row[0]
            for row in self.database.execute(
                "SELECT id FROM images WHERE path = ? GROUP BY id ORDER BY min(row)", (path,)
            )
        ]
        if not self.labelled:
            return labelled_image(record, name, Path(path), None, classes)
        versions = [
            labelled_image(record, name, Path(path), self._annotations(identity), classes) for identity in ids
        ]
        if reason := self._clash(ids, path) or _difference(ids, versions):
            return replace(versions[0], annotations=(), problems=(reason,), incomplete=True)
        if len(ids) > 1:
            note = f"listed under the ids {', '.join(ids)} with the same labels; read once"
            return replace(versions[0], notes=(*versions[0].notes, note))
        return versions[0]

    def _annotations(self, image: str) -> list[dict[str, Any]]:
        query = "SELECT text FROM annotations WHERE image = ? ORDER BY rowid"
        return [json.loads(text) for (text,) in self.database.execute(query, (image,))]

    def _clash(self, ids: list[str], path: str) -> str | None:
        """Why the labels under one of the ids may be another image's."""
        query = "SELECT name FROM images WHERE id = ? AND path != ? GROUP BY path ORDER BY row LIMIT 3"
        for identity in ids:
            if others := [row[0] for row in self.database.execute(query, (identity, path))]:
                return (
                    f"its id {identity} is given to {', '.join(others)} too, so nobody knows whose labels "
                    "are whose: give every image an id of its own"
                )
        return None


def _difference(ids: list[str], versions: list[LabelledImage]) -> str | None:
    """Why the labels of one image under several ids cannot be taken."""
    labels = [
        {(a.category, a.crowd, a.box) for a in version.annotations or ()} for version in versions
    ]
    if all(found == labels[0] for found in labels):
        return None
    return (
        f"it is listed under the ids {', '.join(ids)} with different labels, so nobody knows which are "
        "right: list every image once"
    )


def _text(element: Mapping[str, Any]) -> str:
    return json.dumps(element, ensure_ascii=False)
