"""Two processes that store boxes at once: rows of the one never meet those of the other.

Vectors of 31c7fc5 failed all of these on PostgreSQL (both took the same rows; one that was undone cut off
rows that the other had written meanwhile).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from store.records import Segmentation
from store.store import Store


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """A second connection to the same workspace."""
    with Store.open(store.path) as opened:
        yield opened


def fill(store: Store, build: Any, image: int, run: int, space: str, value: int) -> None:
    """Three boxes of one image, their vectors full of `value`."""
    views = {view: np.full((3, size), value, np.int8) for view, size in build.shape.views.items()}
    store.create_space(run, space, build.shape)
    store.put_boxes(run, space, "offered", [build.boxes(image, f"{space}-{value}", views=views)])


def stored(store: Store, space: str) -> list[int]:
    """The vectors' values, by row."""
    rows = store.boxes(space, "offered")
    assert sorted(rows.rows) == list(range(len(rows)))
    return [int(value) for value in rows.views["object"][:, 0]]


def at_once(first: Store, second: Store, one: Any, two: Any) -> None:
    """Runs `two` while the transaction of `one` is open."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with second.transaction():
                two()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    with first.transaction():
        one()
        thread.start()
        time.sleep(0.3)  # the other one is waiting, or has written, by now
    thread.join()
    assert errors == []


def add(store: Store, build: Any, run: int) -> int:
    """One pool image."""
    (added,) = store.add_images(run, [build.image(1, "pool")])
    return added.image_id


def test_boxes_of_two_spaces(store: Store, other: Store, build: Any, run: int) -> None:
    image = add(store, build, run)
    at_once(
        store,
        other,
        lambda: fill(store, build, image, run, "a", 1),
        lambda: fill(other, build, image, run, "b", 2),
    )
    assert [stored(store, space) for space in ("a", "b")] == [[1] * 3, [2] * 3]
    assert store.space_folder("a") != store.space_folder("b")


def test_the_first_boxes_of_one_space(store: Store, other: Store, build: Any, run: int) -> None:
    image = add(store, build, run)
    at_once(
        store,
        other,
        lambda: fill(store, build, image, run, "a", 1),
        lambda: fill(other, build, image, run, "a", 2),
    )
    assert stored(store, "a") == [1] * 3 + [2] * 3


def test_one_result_stored_by_both(store: Store, other: Store, build: Any, run: int) -> None:
    """Equal content keys are one row, whoever comes first."""
    image = add(store, build, run)
    cut = Segmentation(image_id=image, labels=np.zeros((2, 2), np.uint16), key="cut")
    at_once(store, other, lambda: store.put_segmentation(cut), lambda: other.put_segmentation(cut))
    assert store.put_segmentation(cut) == other.put_segmentation(cut)


def test_an_undone_write_cuts_nothing_of_the_other(store: Store, other: Store, build: Any, run: int) -> None:
    """The first rolls back while the second waits: what the second then writes stays whole."""
    image = add(store, build, run)
    fill(store, build, image, run, "a", 1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for value in range(3, 30):
                fill(other, build, image, run, "a", value)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)

    def undone() -> None:
        with store.transaction():
            fill(store, build, image, run, "a", 2)
            thread.start()
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undone()
    thread.join()
    assert errors == []
    with Store.open(store.path) as opened:
        assert sorted(set(stored(opened, "a"))) == [1, *range(3, 30)]
