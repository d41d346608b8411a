"""Schema: made by migrations, checked, upgraded without loss, refused when it is not ours."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from store import schema
from store.errors import SchemaError, WorkspaceError
from store.models import Base
from store.session import Database
from store.store import Store
from store.workspace import open_database

NOW = schema.HEAD
REBUILD = """
import sqlalchemy as sa
from alembic import op
revision = "next"
down_revision = "HEAD"
branch_labels = None
depends_on = None

def upgrade():
    with op.batch_alter_table("selections", recreate="always") as batch:
        batch.add_column(sa.Column("note", sa.String()))
""".replace("HEAD", NOW)


@pytest.fixture
def database(store: Store) -> Any:
    opened = open_database(store.path)
    yield opened
    opened.close()


def test_migrations_and_models_agree(database: Database) -> None:
    assert schema.check(database) == []


def test_head_is_the_newest_migration() -> None:
    assert schema.revisions()[-1] == schema.HEAD


def test_check_finds_what_differs(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE models ADD COLUMN stray INTEGER"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    try:
        problems = "\n".join(schema.check(database))
        assert "stray" in problems
        assert f"expected {schema.HEAD}" in problems
    finally:
        with database.writing() as connection:
            connection.execute(text("ALTER TABLE models DROP COLUMN stray"))
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{schema.HEAD}'"))


def test_every_table_has_a_named_primary_key_and_every_row_its_run(database: Database) -> None:
    without_run = {"runs", "datasets", "categories", "annotations", "models", "hits", "comparisons"}
    for name, table in Base.metadata.tables.items():
        assert table.primary_key.name == f"pk_{name}"
        assert ("run_id" in table.c) == (name not in without_run), name
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_an_older_schema_names_the_upgrade(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "HEAD", "next")
    with pytest.raises(SchemaError, match=f"run `curator -w {store.path} db upgrade`"):
        Store.open(store.path)


def test_a_newer_schema_is_refused(store: Store, database: Database) -> None:
    def write(version: str) -> None:
        with database.writing() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :version"), {"version": version}
            )

    write("9999")
    try:
        with pytest.raises(SchemaError, match=r"newer curator.*pip install --upgrade curator"):
            Store.open(store.path)
        with pytest.raises(SchemaError, match="newer curator"):
            schema.upgrade(database, store.path)
    finally:
        write(schema.HEAD)


def test_upgrading_twice_does_nothing(store: Store, database: Database) -> None:
    assert schema.upgrade(database, store.path) == (schema.HEAD, schema.HEAD)


@pytest.fixture
def next_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations to which a test adds a second one."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(schema, "migrations_folder", lambda: folder)
    monkeypatch.setattr(schema, "HEAD", "next")
    return folder / "versions" / "next.py"


def test_rebuilding_a_table_deletes_no_children(
    sqlite_store: Store, next_migration: Path, build: Any
) -> None:
    run = sqlite_store.begin_run("query", config={})
    (image,) = sqlite_store.add_images(run, [build.image(1, "pool")])
    sqlite_store.put_selection(run, build.selection([image.image_id]))
    next_migration.write_text(REBUILD)
    database = open_database(sqlite_store.path)
    assert schema.upgrade(database, sqlite_store.path) == (NOW, "next")
    with database.writing() as connection:
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("SELECT count(*) FROM hits")) == 1
        assert "note" in {column["name"] for column in inspect(connection).get_columns("selections")}
    database.close()


def test_a_failed_migration_changes_nothing(sqlite_store: Store, next_migration: Path) -> None:
    next_migration.write_text(REBUILD + "    raise RuntimeError('power cut')\n")
    database = open_database(sqlite_store.path)
    with pytest.raises(RuntimeError, match="power cut"):
        schema.upgrade(database, sqlite_store.path)
    with database.reading() as connection:
        assert schema.revision(connection) == NOW
        assert "note" not in {column["name"] for column in inspect(connection).get_columns("selections")}
    database.close()


# ---------------------------------------------------------------- workspace folders


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match=r"found thesis\.tex"):
        Store.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workspace_is_not_made_twice(sqlite_store: Store) -> None:
    with pytest.raises(WorkspaceError, match="already"):
        Store.create(sqlite_store.path)


def test_what_is_no_workspace_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"curator -w .* init"):
        Store.open(tmp_path)
    (tmp_path / "workspace.json").write_text("[]")
    with pytest.raises(WorkspaceError, match="expected a JSON object"):
        Store.open(tmp_path)
    (tmp_path / "workspace.json").write_text('{"format": 9, "url": null}')
    with pytest.raises(SchemaError, match="layout is 9"):
        Store.open(tmp_path)
    (tmp_path / "workspace.json").write_text('{"format": 1, "url": null}')
    with pytest.raises(WorkspaceError, match="is gone"):
        Store.open(tmp_path)
    (tmp_path / "curator.db").write_text("no database at all, but long enough to look like one" * 100)
    with pytest.raises(WorkspaceError, match="cannot use the database"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://h/d", "expected postgresql"),
        ("nonsense", "expected postgresql"),
        ("postgresql://u:secret@h/d", "PGPASSWORD"),
        ("postgresql://nobody@/x?host=/nowhere", "cannot use the database"),
    ],
)
def test_bad_urls_leave_nothing_behind(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(WorkspaceError, match=message) as caught:
        Store.create(tmp_path / "workspace", url=url)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "workspace" / "workspace.json").exists()
    Store.create(tmp_path / "workspace").close()  # the same folder serves the next try


def test_a_database_serves_one_workspace(store: Store, tmp_path: Path) -> None:
    url = store._database.url
    if url.get_backend_name() == "sqlite":
        with sqlite3.connect(store.path / "curator.db") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        return
    with pytest.raises(WorkspaceError, match="holds a workspace already"):
        Store.create(tmp_path / "second", url=url.render_as_string(hide_password=False))
