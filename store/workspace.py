"""The workspace folder: where the database is, and whether the folder is a workspace at all.

curator.db       SQLite database (absent where `workspace.json` names a PostgreSQL URL)
workspace.json   {"format": 1, "url": null | URL}; written last, so that it marks a finished workspace
blobs/ vectors/  files
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from urllib.parse import quote as percent_encoded

from sqlalchemy import URL
from sqlalchemy.exc import DatabaseError

from store import schema
from store.errors import SchemaError, WorkspaceError
from store.session import Database, parse_url

FORMAT = 1
_FACTS = "workspace.json"
_DATABASE = "curator.db"


def create_folder(path: Path, url: str | None) -> URL:
    """Make the folder of a new workspace; returns the database's URL.

    Raises:
        WorkspaceError: `path` is a workspace, a file, or a folder with other things in it.
    """
    if (path / _FACTS).exists():
        raise WorkspaceError(
            f"{path} is a workspace already; use it with `curator -w {quote(str(path))} status`"
        )
    location = _sqlite_url(path) if url is None else parse_url(url)
    try:
        path.mkdir(parents=True, exist_ok=True)
        inside = next(path.iterdir(), None)
    except OSError as error:
        raise WorkspaceError(f"{path}: expected a folder that can be made ({error.strerror})") from error
    if inside is not None:
        raise WorkspaceError(
            f"{path}: expected a new or empty folder, found {inside.name} in it; choose another"
        )
    (path / "blobs").mkdir()
    (path / "vectors").mkdir()
    return location


def write_facts(path: Path, url: str | None) -> None:
    """Mark the folder as a finished workspace."""
    temporary = path / f"{_FACTS}.part"
    # parse_url lets no password pass, so nothing is revealed (hiding would turn an empty one into ***)
    stored = None if url is None else parse_url(url).render_as_string(hide_password=False)
    temporary.write_text(json.dumps({"format": FORMAT, "url": stored}) + "\n", encoding="utf-8")
    temporary.replace(path / _FACTS)


def remove_folder(path: Path) -> None:
    """Take back what `create_folder` made."""
    for name in (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm"):
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / "blobs")
    shutil.rmtree(path / "vectors")


def open_database(path: Path) -> Database:
    """The database of an existing workspace; read-only where its folder or file is.

    Raises:
        WorkspaceError: no workspace there, facts that cannot be read, or a read-only folder with changes that
            a writer left unfinished.
    """
    facts = path / _FACTS
    if not facts.exists():
        raise WorkspaceError(f"no workspace at {path}; make one with `curator -w {quote(str(path))} init`")
    try:
        found = json.loads(facts.read_text(encoding="utf-8"))
        layout, url = found["format"], found["url"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{facts}: expected a JSON object with format and url ({error})") from error
    if layout != FORMAT:
        raise SchemaError(
            f"{path}: its layout is {layout}, this curator knows {FORMAT}; "
            "run `pip install --upgrade curator`"
        )
    if url is None and not (path / _DATABASE).exists():
        raise WorkspaceError(f"{path}: its database {_DATABASE} is gone; restore it, or make a new workspace")
    if url is not None:
        return Database(parse_url(url))
    file = path / _DATABASE
    if os.access(path, os.W_OK) and os.access(file, os.W_OK):
        return Database(_sqlite_url(path))
    return Database(_read_only_url(path), read_only=path)


def require_empty(database: Database, path: Path) -> None:
    """Refuse a database that serves another workspace.

    Raises:
        WorkspaceError: it holds one already.
    """
    with database.reading() as connection:
        found = schema.revision(connection)
    if found is not None:
        raise WorkspaceError(f"{path}: the database holds a workspace already; use an empty one")


def with_database_errors(action: Callable[[], None], url: URL) -> None:
    """Run `action`; an unreachable or foreign database becomes one clear line."""
    try:
        action()
    except DatabaseError as error:
        reason = " ".join(str(error.orig).split())
        raise WorkspaceError(f"cannot use the database {url.render_as_string()}: {reason}") from error


def _read_only_url(path: Path) -> URL:
    """SQLite of a folder that cannot be written. Without a log nobody is writing: the file is all there is,
    and no lock is needed. With one, its shared index must be there too: only a writer could make it."""
    logged = (path / f"{_DATABASE}-wal").exists()
    if logged and not (path / f"{_DATABASE}-shm").exists():
        raise WorkspaceError(
            f"{path}: read-only, and {_DATABASE}-wal holds changes that a killed command left; "
            "make it writable once, or use a copy of the folder"
        )
    name = f"file:{percent_encoded(str(path / _DATABASE))}"
    return URL.create(
        "sqlite", database=name, query={"uri": "true", "mode": "ro"} | ({} if logged else {"immutable": "1"})
    )


def _sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path / _DATABASE))
