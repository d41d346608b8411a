"""Transactions: one place commits, inner ones are savepoints, readers go on while somebody writes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from store.records import ItemStatus, Trial
from store.session import ITEM_ERRORS
from store.store import Store


def test_a_failed_transaction_leaves_nothing(store: Store, run: int, build: Any) -> None:
    def batch() -> None:
        with store.transaction():
            (added,) = store.add_images(run, [build.image(1)])
            store.create_space(run, "s", build.shape)
            store.put_boxes(run, "s", "offered", [build.boxes(added.image_id, "a")])
            store.record_items(run, [ItemStatus(key="a", status="done", image_id=added.image_id)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch()
    assert store.counts()["images"] == store.counts()["boxes"] == 0
    assert store.done_keys("add", ["a"]) == set()
    assert list((store.path / "vectors").iterdir()) == []
    store.add_images(run, [build.image(1)])
    assert store.counts()["images"] == 1


def test_an_inner_failure_undoes_the_inner_part_alone(store: Store, run: int, build: Any) -> None:
    with store.transaction():
        (first,) = store.add_images(run, [build.image(1)])
        store.create_space(run, "s", build.shape)
        store.put_boxes(run, "s", "offered", [build.boxes(first.image_id, "a", seed=1)])

        def inner() -> None:
            with store.transaction():
                store.add_images(run, [build.image(2)])
                store.put_boxes(run, "s", "offered", [build.boxes(first.image_id, "b", seed=2, count=9)])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            inner()
        store.put_boxes(run, "s", "offered", [build.boxes(first.image_id, "c", seed=3)])
    assert store.counts()["images"] == 1
    kept = np.concatenate([build.boxes(1, "", seed=seed).views["object"] for seed in (1, 3)])
    np.testing.assert_array_equal(store.boxes("s", "offered").views["object"], kept)


def test_a_row_that_the_database_refuses_is_undone_alone(store: Store, run: int, build: Any) -> None:
    """So an item whose result cannot be stored fails alone (curator.jobs.stage)."""

    def refused() -> None:
        with store.transaction():
            store.add_images(run, [build.image(2)])
            store.put_detections(run, [build.detections(99, 99, "k")])

    with store.transaction():
        store.add_images(run, [build.image(1)])
        with pytest.raises(ITEM_ERRORS):
            refused()
        store.add_images(run, [build.image(3)])
    assert store.counts()["images"] == 2


def test_references_are_enforced(store: Store, run: int, build: Any) -> None:
    with pytest.raises(IntegrityError):
        store.put_detections(run, [build.detections(99, 99, "k")])
    with pytest.raises(IntegrityError):
        store.put_trial(99, Trial(verification="v", arm="nothing", seed=0, metrics={}, key="k"))


def test_others_read_the_committed_state_while_one_writes(store: Store, run: int, build: Any) -> None:
    seen: list[int] = []

    def read() -> None:
        with Store.open(store.path) as other:
            seen.append(other.counts()["images"])

    def in_thread() -> None:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()

    with store.transaction():
        store.add_images(run, [build.image(1)])
        in_thread()
    in_thread()
    assert seen == [0, 1]


def test_threads_have_transactions_of_their_own(store: Store, run: int) -> None:
    seen: list[set[str]] = []
    with store.transaction():
        store.record_items(run, [ItemStatus(key="a", status="done")])
        thread = threading.Thread(target=lambda: seen.append(store.done_keys("add", ["a"])))
        thread.start()
        thread.join(timeout=20)
    assert seen == [set()]
