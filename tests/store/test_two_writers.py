"""Two processes that store vectors at once: ids and positions of the one never meet those of the other.

At 31c7fc5 failed on PostgreSQL: all of them (both took the same ids; one that was undone cut off rows that
the other had written meanwhile).
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


def fill(store: Store, build: Any, image: int, run: int, space: str, value: float) -> None:
    """Three vectors of one image."""
    owners = [build.owner(image)] * 3
    vectors = np.full((3, 4), value, np.float32)
    store.put_vectors(run, space, "object", owners, vectors, item_keys=[f"{space}-{value}"] * 3)


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


def test_vectors_of_two_spaces(store: Store, other: Store, build: Any, run: int) -> None:
    image = add(store, build, run)
    at_once(
        store,
        other,
        lambda: fill(store, build, image, run, "a", 1.0),
        lambda: fill(other, build, image, run, "b", 2.0),
    )
    blocks = [store.vectors(space, "object") for space in ("a", "b")]
    assert [block.vectors.tolist() for block in blocks] == [[[1.0] * 4] * 3, [[2.0] * 4] * 3]
    assert len({int(i) for block in blocks for i in block.ids}) == 6


def test_the_first_vectors_of_one_space(store: Store, other: Store, build: Any, run: int) -> None:
    image = add(store, build, run)
    at_once(
        store,
        other,
        lambda: fill(store, build, image, run, "a", 1.0),
        lambda: fill(other, build, image, run, "a", 2.0),
    )
    block = store.vectors("a", "object")
    assert sorted(block.vectors[:, 0].tolist()) == [1.0] * 3 + [2.0] * 3
    assert len(set(block.ids.tolist())) == 6


def test_one_result_stored_by_both(store: Store, other: Store, build: Any, run: int) -> None:
    """Equal content keys are one row, whoever comes first."""
    image = add(store, build, run)
    cut = Segmentation(image_id=image, labels=np.zeros((2, 2), np.uint16), key="cut")
    at_once(store, other, lambda: store.put_segmentation(cut), lambda: other.put_segmentation(cut))
    assert store.put_segmentation(cut) == other.put_segmentation(cut)


def test_an_undone_write_cuts_nothing_of_the_other(store: Store, other: Store, build: Any, run: int) -> None:
    """The first rolls back while the second waits: what the second then writes stays whole."""
    image = add(store, build, run)
    fill(store, build, image, run, "a", 0.5)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for value in range(2, 30):
                fill(other, build, image, run, "a", float(value))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)

    def undone() -> None:
        with store.transaction():
            fill(store, build, image, run, "a", 1.0)
            thread.start()
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undone()
    thread.join()
    assert errors == []
    with Store.open(store.path) as opened:
        block = opened.vectors("a", "object")
    assert sorted(set(block.vectors[:, 0].tolist())) == [0.5, *map(float, range(2, 30))]
