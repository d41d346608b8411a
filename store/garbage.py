"""Garbage: files of a workspace that nothing names any more.

In: the workspace. Out: what is left over, and the same removed. The rule is one of names and of age:

    named      every 64 hex digits in what SQL says of runs, trials, versions, selections, spaces and samples
               may name a blob; so may those in a version's record. What looks like a name keeps its blob.
    young      a stage stores blobs before the rows that name them. Nothing is touched that is younger than an
               hour, or than the oldest run that is not finished. `BlobStore.put` of what is there already
               makes it young.
    renamed    a blob is set aside under another name before it goes. Where its time is young by then, a stage
               has put it meanwhile, and it comes back; who puts it later finds none, and writes it.

So a kill leaves at worst a file under that other name, which the next collection removes, or gives its name
back where something names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Text, select, type_coerce
from sqlalchemy.exc import OperationalError

from store.blobs import BlobStore
from store.errors import CorruptionError, NotFoundError, WorkspaceError
from store.models import Run, SampleRow, SelectionRow, SpaceRow, TrialRow, VersionRow
from store.runs import other_runs
from store.session import Database
from store.vectors.queries import one_writer

ASIDE = ".gone"
_NAME = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_TEXTS = (
    Run.config,
    Run.facts,
    TrialRow.metrics,
    VersionRow.manifest,
    SelectionRow.config,
    SpaceRow.facts,
    SpaceRow.arrays,
    SampleRow.blob,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """What is known of other processes before anything is collected.

    Attributes:
        before: seconds since 1970; what is younger stays.
        waiting: unfinished runs of other machines, in words.
    """

    before: float
    waiting: tuple[str, ...]


def require_quiet(database: Database, now: float, grace: float) -> Quiet:
    """Refuse to collect while another process of this machine writes.

    Args:
        grace: seconds that everything is left alone.
    Raises:
        WorkspaceError: a run goes on here, or another process is writing.
    """
    runs = other_runs(database)
    for number, stage, _, _, here in runs:
        if here:
            raise WorkspaceError(f"run {number} ({stage}) is going on; wait until it is done")
    try:
        with database.writing(wait=False) as connection:
            if not one_writer(connection, wait=False):
                raise WorkspaceError("another process is writing to the workspace; wait until it is done")
    except OperationalError as error:
        raise WorkspaceError("another process is writing to the workspace; wait until it is done") from error
    started = [moment(run[3]) for run in runs]
    return Quiet(
        before=min([now - grace, *started]),
        waiting=tuple(f"run {number} ({stage}) on {host}" for number, stage, host, _, _ in runs),
    )


def moment(when: datetime) -> float:
    """Seconds since 1970."""
    return when.timestamp()


def named_blobs(connection: Connection, blobs: BlobStore) -> set[bytes]:
    """What may be the name of a blob, 32 bytes each."""
    found: set[bytes] = set()
    for column in _TEXTS:
        query = select(type_coerce(column, Text)).execution_options(yield_per=1000)
        for (text,) in connection.execute(query):
            found.update(map(bytes.fromhex, _NAME.findall(text or "")))
    for manifest in connection.scalars(select(VersionRow.manifest)).all():
        with suppress(NotFoundError, CorruptionError):  # a damaged record names nothing
            text = blobs.get(manifest["record"]).decode() if "record" in manifest else ""
            found.update(map(bytes.fromhex, _NAME.findall(text)))
    return found


def loose_blobs(root: Path, named: set[bytes], before: float) -> Iterator[tuple[Path, int]]:
    """Files below `root` that are no named blob, older than `before`: (path, bytes)."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(ASIDE)
                whole = _NAME.fullmatch(name) is not None
                if whole and bytes.fromhex(name) in named and name == entry.name:
                    continue
                with suppress(FileNotFoundError):
                    facts = entry.stat()
                    if facts.st_mtime < before:
                        yield Path(entry.path), facts.st_size


def drop_blob(path: Path, named: set[bytes], before: float) -> int:
    """Remove a file that `loose_blobs` gave; returns the bytes that are free now, 0 where it has to stay."""
    aside = path if path.name.endswith(ASIDE) else path.with_name(path.name + ASIDE)
    home = aside.with_name(aside.name.removesuffix(ASIDE))
    try:
        if aside != path:
            os.rename(path, aside)
        facts = aside.stat()
        wanted = _NAME.fullmatch(home.name) is not None and bytes.fromhex(home.name) in named
        if (wanted or facts.st_mtime >= before) and not home.exists():
            os.rename(aside, home)
            return 0
        aside.unlink()
    except FileNotFoundError:  # another collection was faster
        return 0
    return facts.st_size


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def newest(folder: Path) -> float:
    """When the youngest file below a folder was written, or the folder itself; seconds since 1970."""
    return max([folder.stat().st_mtime, *(path.stat().st_mtime for path in folder.rglob("*"))])


def free_bytes(database: Database) -> int:
    """Bytes of pages of SQLite's file that hold nothing; PostgreSQL looks after its own."""
    if database.url.get_backend_name() != "sqlite":
        return 0
    with database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
        return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar() or 0)


def vacuum(database: Database) -> None:
    """Write SQLite's file anew without free pages; needs as much free disk as the file takes."""
    if database.url.get_backend_name() == "sqlite":
        with database.engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert driver is not None
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                cursor = driver.cursor()
                cursor.execute(statement)
                cursor.close()
