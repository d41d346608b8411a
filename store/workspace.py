"""The workspace folder: where the database is, and whether the folder is a workspace at all.

curator.db       SQLite database (absent where `workspace.json` names a PostgreSQL URL)
workspace.json   {"format": 1, "url": null | URL}; written last, so that it marks a finished workspace
blobs/ vectors/  files
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

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
        raise WorkspaceError(f"{path} is a workspace already; use it with `curator -w {path} status`")
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
    """The database of an existing workspace.

    Raises:
        WorkspaceError: no workspace there, or facts that cannot be read.
    """
    facts = path / _FACTS
    if not facts.exists():
        raise WorkspaceError(f"no workspace at {path}; make one with `curator -w {path} init`")
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
    return Database(_sqlite_url(path) if url is None else parse_url(url))


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


def _sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path / _DATABASE))
