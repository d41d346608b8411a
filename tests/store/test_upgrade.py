"""Workspaces that older versions of the schema wrote are upgraded, and what was current is still read.

`data/workspace-0001.zip` was made at 31c7fc5: three mined images diagnosed by A, B, A; explained by e2x, by
lime, by e2x (of which readers of that version saw lime's); samples and trials of A, B. `FOLDER` in it stands
for the folder that holds its images. `data/workspace-0002.zip` was made at e6facb8: four pool images and
three mined ones, diagnosed, explained, indexed, and asked by one query of two hits; one search left a FAISS
file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curator.cli import app
from store import schema
from store.errors import SchemaError
from store.store import Store
from store.workspace import open_database
from tests.saved_workspace import unpack


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The unpacked workspace, not upgraded."""
    return unpack(tmp_path)


@pytest.fixture
def upgraded(saved: Path) -> Path:
    database = open_database(saved)
    assert schema.upgrade(database, saved) == ("0001", schema.HEAD)
    assert schema.check(database) == []
    database.close()
    return saved


def before(saved: Path, query: str) -> list[tuple[object, ...]]:
    """Rows of the old schema."""
    database = sqlite3.connect(saved / "curator.db")
    rows = database.execute(query).fetchall()
    database.close()
    return rows


def test_the_old_schema_is_refused_with_the_command(saved: Path) -> None:
    with pytest.raises(SchemaError, match="db upgrade"):
        Store.open(saved)


def test_what_was_current_is_still_read(saved: Path) -> None:
    current = (
        "SELECT o.key FROM outcomes o JOIN outcome_items i ON i.outcome_id = o.id "
        "JOIN current_items c ON c.stage = 'diagnose' AND c.key = i.item_key"
    )
    outcomes = {key for (key,) in before(saved, current)}
    e2x = {key for (key,) in before(saved, "SELECT key FROM attributions WHERE method = 'e2x'")}
    samples = {
        key
        for (key,) in before(
            saved,
            "SELECT s.key FROM samples s JOIN current_items c "
            "ON c.stage = 'synthesize:synthesis' AND c.key = s.key",
        )
    }
    hits = before(saved, "SELECT image_id, score FROM hits ORDER BY position")
    database = open_database(saved)
    schema.upgrade(database, saved)
    database.close()
    with Store.open(saved) as store:
        assert {o.key for o in store.outcomes()} == outcomes != set()
        assert {a.key for a in store.attributions()} == e2x
        assert len(store.attributions()) == len(outcomes)
        assert {r.attribution_id for r in store.regions()} == {a.id for a in store.attributions()}
        assert {s.key for s in store.samples(name="synthesis")} == samples != set()
        assert [(h.image_id, h.score) for h in store.selection("query").hits] == hits
        assert len(store.trials("verify")) == 2
        assert [t.arm for t in store.trials("other")] == ["nothing"]
        assert len(store.detections(store.models()[0].id, store.image_ids(role="mine"))) == 3
        space = store.runs(stage="index")[0]
        assert space.status == "done"


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_vectors_go_and_are_to_be_made_anew(tmp_path: Path, version: str) -> None:
    saved = unpack(tmp_path, version)
    files = {path.suffix for path in (saved / "vectors").iterdir()}
    assert files == ({".f32"} if version == "0001" else {".f32", ".faiss"})
    keys = [str(key) for (key,) in before(saved, "SELECT key FROM items WHERE stage = 'index'")]
    others = before(saved, "SELECT stage, key FROM items WHERE stage <> 'index' ORDER BY stage, key")
    opened = open_database(saved)
    assert schema.upgrade(opened, saved) == (version, schema.HEAD)
    assert schema.check(opened) == []
    opened.close()
    assert len(list((saved / "vectors").iterdir())) > 0  # nothing is removed before the upgrade is committed
    with Store.open(saved) as store:
        assert list((saved / "vectors").iterdir()) == []
        assert store.done_keys("index", keys) == set()
        assert len(keys) > 0
        assert store.current_run("index") is None
        assert store.runs(stage="index")[0].status == "done"
        assert store.counts()["boxes"] == 0
    assert before(saved, "SELECT stage, key FROM items ORDER BY stage, key") == others


def test_a_workspace_of_0002_keeps_all_but_its_vectors(tmp_path: Path) -> None:
    saved = unpack(tmp_path, "0002")
    columns = "image_id, outcome_id, group_name, score, x1, y1, x2, y2"
    hits = before(saved, f"SELECT {columns} FROM hits ORDER BY rank")
    tables = ("images", "detections", "outcomes", "attributions", "regions", "hits", "runs", "appearances")
    counts = {name: before(saved, f"SELECT count(*) FROM {name}") for name in tables}
    opened = open_database(saved)
    schema.upgrade(opened, saved)
    opened.close()
    assert {name: before(saved, f"SELECT count(*) FROM {name}") for name in tables} == counts
    with Store.open(saved) as store:
        found = store.selection("query").hits
        assert [(h.image_id, h.outcome_id, h.group, h.score, *h.box) for h in found] == hits != []
        assert {hit.reason for hit in found} == {""}
        assert len(store.outcomes()) == len(store.attributions()) == 6
        labels = store.annotations(store.image_ids(role="mine"), reader="diagnose")
        assert {own.classes for own in labels.values()} == {None}  # no list was kept: all classes, as before
        for image in store.images(reader="detect", role="pool"):
            assert store.pixels(image, reader="detect").shape == (96, 96, 3)


def test_killed_runs_of_the_old_schema_are_interrupted_and_not_current(saved: Path) -> None:
    database = sqlite3.connect(saved / "curator.db")
    database.execute(
        "INSERT INTO runs (stage, status, config, code_version, host, models, parents, started_at, counts) "
        "SELECT stage, 'running', replace(config, '0.35', '0.9'), code_version, host, models, parents, "
        "started_at, '{}' FROM runs WHERE stage = 'diagnose' LIMIT 1"
    )
    database.commit()
    database.close()
    opened = open_database(saved)
    schema.upgrade(opened, saved)
    opened.close()
    with Store.open(saved) as store:
        assert store.runs()[0].status == "interrupted"
        assert len(store.outcomes()) == 6


def test_the_upgrade_speaks_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    """On PostgreSQL the migrations run over rows, too: `Store.create` has run them on an empty database."""
    from sqlalchemy import text

    from store.session import Database, parse_url
    from tests.store.conftest import execute

    execute(postgresql_url, "CREATE DATABASE upgraded")
    database = Database(parse_url(postgresql_url.replace("/postgres?", "/upgraded?")))
    try:
        rows = _migrate_to_0001(database)
        with database.writing() as connection:
            for statement in rows:
                connection.exec_driver_sql(statement)
        assert schema.upgrade(database, tmp_path) == ("0001", schema.HEAD)
        assert schema.check(database) == []
        with database.reading() as connection:
            query = "SELECT config_key, scope, aside FROM runs ORDER BY id"
            found, index = connection.execute(text(query)).all()
            item = connection.execute(text("SELECT config_key FROM items")).scalar_one()
        assert found.config_key == item != ""
        assert not found.aside
        assert index.aside
    finally:
        database.close()


def test_images_of_the_old_schema_are_described(saved: Path) -> None:
    result = CliRunner().invoke(app, ["-w", str(saved), "db", "upgrade"])
    assert result.exit_code == 0
    images = before(saved, "SELECT id, uri FROM images")
    present = {image for image, uri in images if Path(str(uri)).exists()}
    assert f"{len(present)} images are now compared by their thumbnails" in result.stdout
    assert {row[0] for row in before(saved, "SELECT image_id FROM appearances")} == present != set()
    with Store.open(saved) as store:
        assert store.describe_images() == (0, len(images) - len(present))


def _migrate_to_0001(database) -> list[str]:  # type: ignore[no-untyped-def]
    """Make the old schema; returns statements that put two runs with an item each into it."""
    from alembic import command

    with database.engine.connect() as connection, connection.begin():
        command.upgrade(schema._config(connection), "0001")
    columns = "id, stage, status, config, code_version, host, models, parents, started_at, counts"
    return [
        f"INSERT INTO runs ({columns}) VALUES (1, 'diagnose', 'done', '{{}}', '1', 'h', '[\"f\"]', '[]', "
        "'2026-01-01T00:00:00', '{}')",
        f"INSERT INTO runs ({columns}) VALUES (2, 'index', 'done', '{{}}', '1', 'h', '[\"f\"]', '[]', "
        "'2026-01-01T00:00:00', '{}')",
        "INSERT INTO items (stage, key, status, run_id) VALUES ('diagnose', 'k', 'done', 1)",
        "INSERT INTO items (stage, key, status, run_id) VALUES ('index', 'k', 'done', 2)",
        "INSERT INTO current_items (stage, key, run_id) VALUES ('diagnose', 'k', 1)",
    ]
