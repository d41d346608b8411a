"""A workspace that cannot be written is read as it is, and refuses to store in one line."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from store import schema
from store.errors import WorkspaceError
from store.store import Store
from store.workspace import open_database
from tests.store.conftest import Build

BOXES = Build.boxes(1, "a")


@pytest.fixture
def protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with one run, the boxes of one image and an awkward name; the system says that nothing
    there is writable."""
    path = tmp_path / "ws %41?#"
    with Store.create(path) as store:
        run = store.begin_run("add", config={})
        store.add_images(run, [Build.image(1)])
        store.create_space(run, "s", Build.shape)
        store.put_boxes(run, "s", "offered", [BOXES])
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: mode != os.W_OK and allowed(p, mode))
    return path


def test_reading_leaves_no_trace(protected: Path) -> None:
    before = sorted(protected.iterdir())
    with Store.open(protected) as store:
        assert [run.stage for run in store.runs()] == ["add"]
        np.testing.assert_array_equal(store.boxes("s", "offered").views["object"], BOXES.views["object"])
        assert sorted(protected.iterdir()) == before
    database = open_database(protected)
    assert schema.check(database) == []
    with pytest.raises(WorkspaceError, match="read-only"):
        schema.upgrade(database, protected)
    database.close()


def test_storing_is_refused_with_advice(protected: Path) -> None:
    with Store.open(protected) as store:
        for write in (
            lambda: store.begin_run("detect", config={}),
            lambda: store.put_boxes(1, "s", "offered", [Build.boxes(1, "b")]),
        ):
            with pytest.raises(WorkspaceError, match="make the folder writable"):
                write()


def test_a_living_writers_log_is_read(protected: Path) -> None:
    writer = sqlite3.connect(protected / "curator.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE runs SET stage = 'detect'")
    writer.commit()
    with Store.open(protected) as store:
        assert [run.stage for run in store.runs()] == ["detect"]
    (protected / "curator.db-shm").rename(protected / "elsewhere")
    with pytest.raises(WorkspaceError, match="changes that a killed command left"):
        Store.open(protected)
    (protected / "elsewhere").rename(protected / "curator.db-shm")
    writer.close()
