"""What a command reads when all is done already: pages of rows, and a fixed number of statements a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from curator.jobs.stage import run_items
from store.errors import AccessError
from store.records import ItemStatus
from store.session import CHUNK
from store.store import Store


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The statements that the database is given."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if not statement.startswith("BEGIN"):
            found.append(statement)

    event.listen(store._database.engine, "before_cursor_execute", note)
    yield found
    event.remove(store._database.engine, "before_cursor_execute", note)


def test_images_come_in_pages_each_once(store: Store, run: int, build: Any) -> None:
    roles = ("mine", "pool", "mine", "train", "holdout", "pool", "pool")
    store.add_images(run, [build.image(n, role) for n, role in enumerate(roles)])
    store.add_images(run, [build.image(0, "pool", dataset="other")])  # in two roles
    both = sorted({*store.image_ids(role="mine"), *store.image_ids(role="pool")})
    records = {image.id: image for image in store.images(reader="index")}
    for rows in (1, 2, 5, 100):
        with statements(store) as asked:
            pages = list(store.iter_images(reader="index", roles=("mine", "pool"), rows=rows))
        assert [image for page in pages for image in page] == [records[i] for i in both]
        assert all(len(page) <= rows for page in pages)
        assert len(asked) == len(both) // rows + 1
    assert store.image_count(role="pool") == len(store.image_ids(role="pool")) == 4
    assert list(store.iter_images(reader="index", roles=())) == []
    with pytest.raises(AccessError):
        next(store.iter_images(reader="index", roles=("pool", "holdout")))


def test_labels_are_counted_as_detections_are_read(store: Store, run: int, build: Any) -> None:
    ids = [a.image_id for a in store.add_images(run, [build.image(n, "pool") for n in range(6)])]
    model = store.put_model("spec", "weights", ("a", "b", "c", "d"))
    alias = store.put_model("spec, renamed", "weights", ("a", "b", "c", "d"))
    other = store.put_model("spec", "other weights", ("a", "b", "c", "d"))
    first, second = (store.begin_run("detect", config={}, config_key=key) for key in ("x", "y"))
    for place, i in enumerate(ids):
        store.put_detections(first, [build.detections(i, model, f"x{i}", place % 4)])
        store.put_detections(second, [build.detections(i, model, f"y{i}", 4)])
        store.put_detections(first, [build.detections(i, other, f"o{i}", 3)])
    store.put_detections(first, [build.detections(ids[1], alias, "newer", 4)])
    for some in (ids, ids[:3], ids[::5], ids[::-1], []):
        read = store.detections(model, some, config_key="x").values()
        labels = np.concatenate([np.zeros(0, np.int64), *(found.detections.labels for found in read)])
        expected = {label: int((labels == label).sum()) for label in np.unique(labels)}
        assert store.count_labels(model, some, config_key="x") == expected
    assert store.count_labels(model, ids, config_key="z") == {}


class Numbers:
    """Work that is never to be done."""

    batch_size = 8

    def key(self, item: int) -> str:
        return f"number {item}"

    def setup(self, device: str) -> None:
        raise AssertionError("nothing is left to do")

    def process(self, state: None, batch: Any) -> list[Any]:
        raise AssertionError("nothing is left to do")


@pytest.mark.parametrize("pages", [1, 3])
def test_done_items_cost_two_statements_a_page(store: Store, pages: int) -> None:
    count = pages * CHUNK
    run = store.begin_run("numbers", config={}, config_key="numbers")
    store.record_items(run, [ItemStatus(key=f"number {n}", status="done") for n in range(count)])
    prepared: list[int] = []
    with statements(store) as asked:
        result = run_items(
            store,
            run,
            {},
            stage="numbers",
            work=Numbers(),
            items=iter(range(count)),  # read once, and not kept
            save=lambda done: None,
            prepare=prepared.append,
        )
    assert (result.done, result.skipped) == (0, count)
    assert len(asked) == 2 * pages
    assert prepared == []
