"""FAISS files outlive the removal of images, and no search gets their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curator.query.run_rows import built, index_folder, space_rows
from curator.represent.index.files import read_header
from store.records import MembershipFilter
from store.store import Store
from tests.store.conftest import Build

pytest.importorskip("faiss")


def test_a_search_passes_over_removed_images(tmp_path: Path) -> None:
    from curator.represent.index.allowed import Allowed
    from curator.represent.index.faiss_index import open_index

    with Store.create(tmp_path / "ws") as store:
        run = store.begin_run("test", config={})
        ids = [added.image_id for added in store.add_images(run, [Build.image(n, "pool") for n in range(40)])]
        store.create_space(run, "s", Build.shape)
        store.put_boxes(run, "s", "offered", [Build.boxes(i, f"k{i}", seed=i, count=5) for i in ids])
        assert built(store, "s", exact_rows=0)
        header = read_header(index_folder(store, "s"))
        gone = [ids[3], ids[20], ids[39]]  # the last one too: its rows keep their numbers
        store.begin_run("remove", config={}, facts=store.removal_facts())
        store.remove_images(gone, MembershipFilter())
        built(store, "s", exact_rows=0)
        assert read_header(index_folder(store, "s")) == header
        shape = store.space("s")
        assert shape is not None
        rows = space_rows(store, "s", shape)
        index = open_index(rows, index_folder(store, "s"))
        found, first, count = store.box_ranges("s", role="pool")
        allowed = Allowed.of_ranges(first, count, total=index.count)
        _, numbers = index.search(rows.read(np.arange(15, 20)), 185, allowed=allowed)
        dead = {*range(15, 20), *range(100, 105), *range(195, 200)}
        assert set(numbers.ravel().tolist()) == set(range(200)) - dead
        assert sorted(found.tolist()) == [i for i in ids if i not in gone]
