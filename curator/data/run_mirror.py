"""A data set in a bucket, as a folder: what the formats, which know paths alone, are given instead of it.

In: the URI of a folder or of an annotation file. Out: a folder of the workspace with the same names. Files
that a format reads for labels (its `reads`, by suffix) are fetched; every other object, the images above all,
is an empty file of its name. `add` asks this module for an image's URI and bytes, the formats never open one.

    workspace/remote/files/s3/BUCKET/KEY      the names; labels with their bytes
    workspace/remote/known.db                 of each object: its version when last listed, and of an image
                                              its hash and size, so that what is unchanged is not read again

Nothing here is the truth: removed, it is made again. A file is renamed into place before its version is
recorded, so a kill leaves files that are fetched again. One process at a time lists.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from curator.errors import FormatError
from store.image_cache import keep
from store.images import ImageProbe, probe, probe_bytes
from store.remote import Entry, checked, fetch, fetch_file, is_remote, listed, one

THREADS = 16
"""Label files fetched at a time, and least images read at a time."""
_PAGE = 512
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS objects (
        path TEXT PRIMARY KEY, size INTEGER, version TEXT, fetched INTEGER, listing TEXT, probe TEXT
    ) WITHOUT ROWID;
"""


class Mirror:
    """The bucket folders of a workspace. Without a URI it does nothing but hand paths through."""

    def __init__(self, workspace: Path) -> None:
        self.folder = (workspace / "remote").resolve()
        self.root = self.folder / "files"
        self.notes: list[str] = []
        self.used = False
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # the database is asked by the threads that read

    def close(self) -> None:
        """Close the record."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def local(self, place: str | Path, reads: Sequence[str] | None) -> Path:
        """The path to read instead of `place`: its own, or that of its names.

        Args:
            reads: suffixes of the files that the format opens; None for a format that opens images too.
        Raises:
            FormatError: a URI, and such a format. RemoteError: it cannot be listed, or a label file of it
                cannot be read: without it an image would count as one that holds nothing.
        """
        if not is_remote(str(place)):
            return Path(place).resolve()
        uri = checked(str(place))
        if reads is None:
            raise FormatError(f"{uri}: this format reads local folders alone; download the data set first")
        path = self._path(uri)
        entry = one(uri)
        folder = uri
        if entry is not None:  # an annotation file: its images lie beside it, or beside its folder
            folder = uri.rpartition("/")[0]
            if folder.rpartition("/")[2].lower() in ("annotations", "labels") and folder.count("/") > 3:
                folder = folder.rpartition("/")[0]
        self.used = True
        with self._alone():
            self._list(folder, reads, path if entry is not None else None)
        return path

    def uri(self, path: Path) -> str:
        """What the workspace calls the file at `path`."""
        absolute = path.absolute()
        if self.used and absolute.is_relative_to(self.root):
            scheme, *parts = absolute.relative_to(self.root).parts
            return f"{scheme}://{'/'.join(parts)}"
        return str(absolute)

    def said(self, text: str) -> str:
        """`text` with URIs for the paths of this folder."""
        if not self.used or str(self.root) not in text:
            return text
        for scheme in sorted(os.listdir(self.root)):
            text = text.replace(f"{self.root / scheme}/", f"{scheme}://")
        return text

    def known(self, path: Path) -> ImageProbe | None:
        """What an image was when it was read, if it is unchanged since; without what it looks like."""
        row = self._row(path)
        return ImageProbe(**json.loads(row[1]), appearance=None) if row and row[1] else None

    def probe(self, path: Path) -> ImageProbe:
        """Read, hash and measure the image.

        Raises:
            ImageError: as `store.images.probe`.
        """
        row = self._row(path)
        if row is None:
            return probe(path)
        uri = self.uri(path)
        data = fetch(uri, size=row[0])
        found = probe_bytes(data, where=uri)
        keep(found.sha256, data)
        return found

    def remember(self, probes: Mapping[Path, ImageProbe]) -> None:
        """Record what images are, once the workspace holds them."""
        rows = []
        for path, found in probes.items():
            if (name := self._name(path)) is not None:
                facts = asdict(replace(found, appearance=None))
                del facts["appearance"]
                rows.append((json.dumps(facts), name))
        if rows:
            with self._lock, self._opened() as database:
                database.executemany("UPDATE objects SET probe = ? WHERE path = ?", rows)

    def _name(self, path: Path) -> str | None:
        absolute = path.absolute()
        if not self.used or not absolute.is_relative_to(self.root):
            return None
        return absolute.relative_to(self.root).as_posix()

    def _row(self, path: Path) -> tuple[int, str | None] | None:
        name = self._name(path)
        if name is None:
            return None
        with self._lock:
            query = "SELECT size, probe FROM objects WHERE path = ?"
            row: tuple[int, str | None] | None = self._opened().execute(query, (name,)).fetchone()
        return row

    def _path(self, uri: str) -> Path:
        scheme, _, rest = uri.partition("://")
        return self.root / scheme / rest

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self.folder / "known.db", timeout=60, check_same_thread=False, isolation_level="IMMEDIATE"
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)
        return self._database

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process lists for this workspace meanwhile."""
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _list(self, folder: str, reads: Sequence[str], only: Path | None) -> None:
        """Bring the folder's names here, and the bytes of its label files.

        Args:
            only: the file that was named: no other one of its kind is fetched.
        """
        kinds = tuple(suffix for suffix in reads if only is None or suffix != only.suffix.lower())
        named = "" if only is None else only.relative_to(self.root).as_posix()

        def read(name: str) -> bool:
            return name == named or bool(kinds and name.lower().endswith(kinds))

        unnamed: list[str] = []
        listing, entries = secrets.token_hex(8), listed(folder)
        with ThreadPoolExecutor(THREADS, "labels") as threads:
            while page := list(islice(entries, _PAGE)):
                self._take(page, listing, read, threads, unnamed)
        if unnamed:
            self.notes.append(
                f"passed over: {len(unnamed)} objects whose keys no file can have as its name, such as "
                f"{unnamed[0]}"
            )
        self._forget(folder, listing)

    def _take(
        self,
        page: Sequence[Entry],
        listing: str,
        read: Callable[[str], bool],
        threads: ThreadPoolExecutor,
        unnamed: list[str],
    ) -> None:
        """Bring one page of the listing to the disk, then to the record."""
        paths: dict[str, Entry] = {}
        for entry in page:
            if _namable(entry.uri) and _placed(path := self._path(entry.uri)):
                paths[path.relative_to(self.root).as_posix()] = entry
            else:
                unnamed.append(entry.uri)
        marks = ",".join("?" * len(paths))
        query = f"SELECT path, version, fetched FROM objects WHERE path IN ({marks})"
        old = {row[0]: row[1:] for row in self._opened().execute(query, list(paths))}
        wanted = []
        rows = []
        for name, entry in paths.items():
            version, fetched = old.get(name, ("", 0))
            same = version == entry.version
            whole = same and fetched and (self.root / name).stat().st_size == entry.size
            if read(name) and not whole:
                wanted.append((name, entry))
            rows.append((name, entry.size, entry.version, int(read(name) or bool(whole)), listing))
        for _ in threads.map(lambda found: self._fetch(*found), wanted):
            pass
        with self._opened() as database:
            database.executemany(
                """INSERT INTO objects VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT (path) DO UPDATE SET
                   probe = CASE WHEN version = excluded.version THEN probe END, size = excluded.size,
                   version = excluded.version, fetched = excluded.fetched, listing = excluded.listing""",
                rows,
            )

    def _fetch(self, name: str, entry: Entry) -> None:
        file = self.root / name
        part = self.folder / f"part-{secrets.token_hex(8)}"
        try:
            fetch_file(entry.uri, part, size=entry.size)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)

    def _forget(self, folder: str, listing: str) -> None:
        """Remove the names below `folder` that the bucket holds no more."""
        start = self._path(folder).relative_to(self.root).as_posix() + "/"
        with self._opened() as database:
            gone = database.execute(
                "SELECT path FROM objects WHERE path >= ? AND path < ? AND listing != ?",
                (start, start[:-1] + "0", listing),  # "0" follows "/"
            ).fetchall()
            for (name,) in gone:
                file = self.root / name
                with suppress(OSError):
                    file.unlink()
                    for parent in file.parents:
                        if parent == self.root:
                            break
                        parent.rmdir()
            database.executemany("DELETE FROM objects WHERE path = ?", gone)


def _namable(uri: str) -> bool:
    """Can the object's key be a path that leads back to it?"""
    parts = uri.partition("://")[2].split("/")
    return (
        not {"", ".", ".."} & set(parts)
        and "\0" not in uri
        and "::" not in uri
        and "?versionId=" not in uri
        and all(len(part.encode(errors="surrogatepass")) < 250 for part in parts)
    )


def _placed(path: Path) -> bool:
    """Make the file, empty where it is new; False where a folder has its name, or a file that of a folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            return True
    except OSError:
        if os.path.isdir(path) or not path.parent.is_dir():
            return False
        raise
