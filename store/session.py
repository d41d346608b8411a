"""Connections and transactions: SQLite (WAL, foreign keys on, busy timeout) or PostgreSQL.

In: a SQLAlchemy URL. Out: a `Database`, whose `writing()` is the one place that commits or rolls back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError

from store.errors import StoreError, WorkspaceError
from store.models import Base

BUSY_SECONDS = 30
"""How long a statement waits for another process's write."""

CHUNK = 5000
"""Values per IN list: SQLite allows 32,766 variables, PostgreSQL 65,535."""

ITEM_ERRORS = (ValueError, StoreError, IntegrityError, DataError)
"""What storing a result raises because of the result itself; anything else (a full disk, a lost connection)
is the whole run's."""


class Database:
    """An engine and, per thread, the transaction in progress."""

    def __init__(self, url: URL, *, read_only: Path | None = None) -> None:
        """
        Args:
            read_only: the workspace, where it cannot be written: `url` opens without writing, and every
                transaction is refused.
        """
        self.url = url
        self.read_only = read_only
        self.engine = make_engine(url, writable=read_only is None)
        self.before_commit: list[Callable[[], None]] = []
        self.on_end: list[Callable[[bool], None]] = []  # called after each outermost end with "committed"
        self._local = threading.local()

    @property
    def connection(self) -> Connection | None:
        """The connection of this thread's transaction, if one is open."""
        return getattr(self._local, "connection", None)

    @contextmanager
    def writing(self, *, wait: bool = True) -> Iterator[Connection]:
        """A transaction; inside another one, a savepoint of it (the outermost commits).

        Args:
            wait: False raises `OperationalError` at once where another process is writing (SQLite).
        Raises:
            WorkspaceError: the workspace is read-only.
        """
        self.require_writable()
        outer = self.connection
        if outer is not None:
            with outer.begin_nested():
                yield outer
            return
        committed = False
        with self.engine.connect().execution_options(curator_write=True, curator_wait=wait) as connection:
            self._local.connection = connection
            try:
                with connection.begin():
                    yield connection
                    for prepare in self.before_commit:
                        prepare()
                committed = True
            finally:
                self._local.connection = None
                for callback in self.on_end:
                    callback(committed)

    def require_writable(self) -> None:
        """Refuse a read-only workspace.

        Raises:
            WorkspaceError: says so.
        """
        if self.read_only is not None:
            raise WorkspaceError(
                f"{self.read_only}: the workspace is read-only; this command stores something: "
                "make the folder writable, or use a copy of it"
            )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with: that of the open transaction, or one of its own."""
        if self.connection is not None:
            yield self.connection
        else:
            with self.engine.connect() as connection:
                yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def table(model: type[Base]) -> Table:
    """The Core table of a model."""
    found = model.__table__
    assert isinstance(found, Table)
    return found


def chunks(values: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    """Cut `values` into pieces of at most `size`."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def put_by_key(
    connection: Connection,
    model: type[Base],
    rows: Sequence[Mapping[str, Any]],
    key: str = "key",
    *,
    last: Callable[[], int] = lambda: 0,
) -> list[int]:
    """Insert the rows whose `key` is not stored yet; return the ids of all, in order.

    Another process may store an equal key at the same time (PostgreSQL): then its row stands.

    Args:
        last: the largest id that was ever given out, asked where there are new rows (`runs.last_id`).
    Raises:
        ValueError: for an empty key.
    """
    target = table(model)
    column = target.c[key]
    wanted = [row[key] for row in rows]
    if not all(wanted):
        raise ValueError(f"{target.name}: expected a content key, got an empty one")
    ids: dict[str, int] = {}
    for part in chunks(wanted):
        ids.update(
            (row[0], row[1])
            for row in connection.execute(select(column, target.c.id).where(column.in_(part)))
        )
    new = list({row[key]: row for row in rows if row[key] not in ids}.values())
    given = last() if new and connection.dialect.name == "sqlite" else 0
    if given and given > (connection.scalar(select(func.max(target.c.id))) or 0):  # its rows were removed
        new = [{**row, "id": given + place} for place, row in enumerate(new, start=1)]
    if new:
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(target).on_conflict_do_nothing(index_elements=[key])
        result = connection.execute(statement.returning(column, target.c.id), [dict(row) for row in new])
        ids.update((row[0], row[1]) for row in result)
        theirs = [row[key] for row in new if row[key] not in ids]
        for part in chunks(theirs):
            found = connection.execute(select(column, target.c.id).where(column.in_(part)))
            ids.update((row[0], row[1]) for row in found)
    return [ids[value] for value in wanted]


def upsert(
    connection: Connection,
    model: type[Base],
    rows: Sequence[Mapping[str, Any]],
    unique: Sequence[str],
    update: Sequence[str],
    keep: Sequence[str] = (),
) -> None:
    """Insert rows; where `unique` exists already set the `update` columns (none: leave it).

    Of the columns in `keep` a stored value stays where the new one is NULL.
    """
    if not rows:
        return
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    # one row per unique value: PostgreSQL refuses to update a row twice in one statement
    latest = {tuple(row[name] for name in unique): dict(row) for row in rows}
    statement = dialect.insert(table(model))
    if update:
        statement = statement.on_conflict_do_update(
            index_elements=list(unique), set_={
                name: func.coalesce(statement.excluded[name], table(model).c[name])
                if name in keep
                else statement.excluded[name]
                for name in update
            },
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(unique))
    connection.execute(statement, list(latest.values()))


def parse_url(text: str) -> URL:
    """Check a PostgreSQL URL and name its driver.

    Raises:
        WorkspaceError: another database, no URL, or a password that would end up in workspace.json.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise WorkspaceError("--url: expected postgresql://USER@HOST/DATABASE, got something else") from error
    if url.get_backend_name() != "postgresql":
        raise WorkspaceError(
            f"--url: expected postgresql://USER@HOST/DATABASE, got {url.get_backend_name()!r} "
            "(leave it out for SQLite)"
        )
    if url.password:
        raise WorkspaceError(
            "--url: leave the password out, workspace.json would hold it; set PGPASSWORD instead"
        )
    return url.set(drivername="postgresql+psycopg")


def make_engine(url: URL, *, writable: bool = True) -> Engine:
    """An engine whose SQLite connections begin transactions when SQLAlchemy says so.

    Raises:
        WorkspaceError: PostgreSQL without its driver.
    """
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise WorkspaceError("PostgreSQL needs psycopg: pip install 'curator[postgresql]'") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # else sqlite3 opens transactions by itself, and late
        cursor = connection.cursor()
        if writable:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A write takes its lock at once: a read lock that is raised later fails without waiting.
        options = connection.get_execution_options()
        if not options.get("curator_write", False):
            connection.exec_driver_sql("BEGIN")
            return
        driver: Any = connection.connection.dbapi_connection
        wait = options.get("curator_wait", True)
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000 if wait else 0}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
