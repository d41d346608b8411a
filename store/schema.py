"""The database schema: made and changed by Alembic migrations alone (never `create_all`).

In: a `Database`. Out: the same at the newest revision, or a clear refusal. The migrations are the package
`store.migrations`, which lies in the folder `migrations/` of the checkout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from store.errors import SchemaError
from store.models import Base
from store.session import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"
"""The revision that this version of the code reads and writes (a test compares it with the migrations)."""


def revision(connection: Connection) -> str | None:
    """The revision of a database; None when it holds no workspace."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def require_head(database: Database, workspace: Path) -> None:
    """Refuse a database of another revision than ours.

    Raises:
        SchemaError: names the command to type.
    """
    with database.reading() as connection:
        found = revision(connection)
    if found == HEAD:
        return
    if found is None:
        raise SchemaError(
            f"{workspace}: the database holds no workspace; make one with `curator -w PATH init`"
        )
    if found in revisions():
        raise SchemaError(
            f"{workspace}: its schema is {found}, this curator needs {HEAD}; "
            f"run `curator -w {quote(str(workspace))} db upgrade`"
        )
    raise SchemaError(
        f"{workspace}: its schema is {found}, made by a newer curator (this one knows up to {HEAD}); "
        "run `pip install --upgrade curator`"
    )


def upgrade(database: Database, workspace: Path) -> tuple[str | None, str]:
    """Migrate to the newest revision in one transaction; returns (revision before, revision after).

    Raises:
        SchemaError: the database is newer than this code, or a migration would break foreign keys.
    """
    from alembic import command

    with _rebuilding(database) as connection:
        before = revision(connection)
        if before is not None and before not in revisions():
            raise SchemaError(
                f"{workspace}: its schema is {before}, made by a newer curator; "
                "run `pip install --upgrade curator`"
            )
        if before != HEAD:
            command.upgrade(_config(connection), "head")
        if connection.dialect.name == "sqlite":
            broken = connection.execute(text("PRAGMA foreign_key_check")).all()
            if broken:
                raise SchemaError(
                    f"{workspace}: {len(broken)} rows refer to rows that are not there, first {broken[0]}"
                )
    return before, HEAD


def check(database: Database) -> list[str]:
    """Differences between the database and the models, damage included; [] when all is well."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.reading() as connection:
        found = revision(connection)
        problems = [] if found == HEAD else [f"schema is {found}, expected {HEAD}"]
        options = {"compare_type": True, "render_as_batch": True}
        context = MigrationContext.configure(connection, opts=options)
        problems += [
            f"schema differs from the models: {change}" for change in compare_metadata(context, Base.metadata)
        ]
        if connection.dialect.name == "sqlite":
            damage = connection.scalars(text("PRAGMA integrity_check")).all()
            problems += [f"damaged: {line}" for line in damage if line != "ok"]
            problems += [
                f"dangling reference: {row}" for row in connection.execute(text("PRAGMA foreign_key_check"))
            ]
    return problems


def revisions() -> list[str]:
    """All revisions that this code knows, oldest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()][::-1]


@contextmanager
def _rebuilding(database: Database) -> Iterator[Connection]:
    """A write transaction in which SQLite tables may be rebuilt: with foreign keys on, dropping the old table
    would delete its children by cascade. The switch works outside of a transaction only."""
    database.require_writable()
    with database.engine.connect().execution_options(curator_write=True) as connection:
        sqlite = connection.dialect.name == "sqlite"
        driver: Any = connection.connection.dbapi_connection
        if sqlite:
            driver.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            if sqlite:
                driver.execute("PRAGMA foreign_keys = ON")


def migrations_folder() -> Path:
    """Where the migrations are installed."""
    package = import_module("store.migrations")
    assert package.__file__ is not None
    return Path(package.__file__).parent


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
