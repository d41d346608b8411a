"""Vectors: files and SQL agree whatever dies, and FAISS files are caches."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import CorruptionError, NotFoundError
from store.store import Store

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((40, 8)).astype(np.float32)


@pytest.fixture
def images(store: Store, run: int, build: Any) -> list[int]:
    """Ten pool images, then two mined ones."""
    new = [build.image(n, "pool" if n < 10 else "mine") for n in range(12)]
    return [added.image_id for added in store.add_images(run, new)]


def put(store: Store, run: int, build: Any, images: list[int], rows: range, view: str = "v") -> Any:
    owners = [build.owner(images[n % len(images)], score=n / 100, label=n) for n in rows]
    return store.put_vectors(run, "e", view, owners, VECTORS[rows], item_keys=[f"item{n // 4}" for n in rows])


def vector_file(store: Store) -> Path:
    (path,) = (store.path / "vectors").glob("*.f32")
    return path


def test_vectors_come_back_with_their_owners(store: Store, run: int, build: Any, images: list[int]) -> None:
    ids = put(store, run, build, images, range(24))
    order = sorted(range(24), key=lambda n: (n % 12, n))  # by image, whatever was stored first
    block = store.vectors("e", "v")
    np.testing.assert_array_equal(block.ids, ids[order])
    np.testing.assert_array_equal(block.vectors, VECTORS[order])
    assert block.owners[order.index(5)] == build.owner(images[5], score=0.05, label=5)
    mined = store.vectors("e", "v", role="mine")
    np.testing.assert_array_equal(mined.vectors, VECTORS[[10, 22, 11, 23]])
    some = store.vectors("e", "v", image_ids=[images[3]], source=["cell"])
    np.testing.assert_array_equal(some.vectors, VECTORS[[3, 15]])
    assert store.vectors("e", "v", source=["image"]).vectors.shape == (0, 8)
    assert store.vectors("e", "absent").owners == ()
    put(store, run, build, images, range(4), view="other")
    assert store.views("e") == ["other", "v"]
    assert store.views("f") == []


def test_a_repeated_item_adds_nothing(store: Store, run: int, build: Any, images: list[int]) -> None:
    first = put(store, run, build, images, range(8))
    size = vector_file(store).stat().st_size
    both = put(store, run, build, images, range(12))
    np.testing.assert_array_equal(both[:8], first)
    assert vector_file(store).stat().st_size == size * 12 // 8
    assert store.counts()["vectors"] == 12


def test_bad_vectors_are_refused(store: Store, run: int, build: Any, images: list[int]) -> None:
    put(store, run, build, images, range(4))
    owner = [build.owner(images[0])]
    with pytest.raises(ValueError, match="expected 8 values"):
        store.put_vectors(run, "e", "v", owner, np.ones((1, 5), np.float32), item_keys=["new"])
    with pytest.raises(ValueError, match="finite"):
        store.put_vectors(run, "e", "v", owner, np.full((1, 8), np.nan, np.float32), item_keys=["new"])
    with pytest.raises(ValueError, match="N owners"):
        store.put_vectors(run, "e", "v", owner, np.ones((2, 8), np.float32), item_keys=["new"])
    assert store.counts()["vectors"] == 4


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_search_agrees_with_brute_force(
    store: Store, run: int, build: Any, images: list[int], metric: Any
) -> None:
    ids = put(store, run, build, images, range(40))
    queries = RNG.standard_normal((3, 8)).astype(np.float32)
    scores, found = store.search("e", "v", queries, k=5, role="pool", metric=metric)
    pool = np.array([n for n in range(40) if n % 12 < 10])
    exact = queries @ VECTORS[pool].T if metric == "ip" else ((queries[:, None] - VECTORS[pool]) ** 2).sum(-1)
    order = np.argsort(-exact if metric == "ip" else exact, axis=1)[:, :5]
    np.testing.assert_array_equal(found, ids[pool[order]])
    np.testing.assert_allclose(scores, np.take_along_axis(exact, order, 1), rtol=1e-4)
    _, few = store.search("e", "v", queries, k=20, role="mine", metric=metric)
    assert (few >= 0).sum() == 3 * 6
    assert (few[:, 6:] == -1).all()
    with pytest.raises(NotFoundError, match="curator index"):
        store.search("e", "absent", queries, k=5)
    with pytest.raises(ValueError, match="expected"):
        store.search("e", "v", np.ones((1, 3), np.float32), k=5)


@pytest.mark.parametrize("harm", ["deleted", "cut", "flipped", "of other vectors"])
def test_faiss_files_are_rebuilt(store: Store, run: int, build: Any, images: list[int], harm: str) -> None:
    put(store, run, build, images, range(16))
    store.search("e", "v", VECTORS[:1], k=1)
    (cache,) = (store.path / "vectors").glob("*.faiss")
    stale = cache.read_bytes()
    put(store, run, build, images, range(16, 32))
    expected = store.search("e", "v", VECTORS[:4], k=6)
    good = cache.read_bytes()
    assert good != stale
    if harm == "deleted":
        cache.unlink()
    else:
        bad = {
            "cut": good[:-9],
            "flipped": good[:-9] + bytes([good[-9] ^ 255]) + good[-8:],
            "of other vectors": stale,
        }[harm]
        cache.write_bytes(bad)
    with Store.open(store.path) as other:
        found = other.search("e", "v", VECTORS[:4], k=6)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])
    assert cache.read_bytes() == good


def test_an_intact_faiss_file_is_used(store: Store, run: int, build: Any, images: list[int]) -> None:
    put(store, run, build, images, range(16))
    store.search("e", "v", VECTORS[:1], k=1)
    (cache,) = (store.path / "vectors").glob("*.faiss")
    before = cache.stat().st_mtime_ns
    with Store.open(store.path) as other:
        other.search("e", "v", VECTORS[:1], k=1)
    assert cache.stat().st_mtime_ns == before


def test_a_search_inside_a_failed_transaction_leaves_no_cache(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    put(store, run, build, images, range(8))

    def fail() -> None:
        with store.transaction():
            put(store, run, build, images, range(8, 12))
            store.search("e", "v", VECTORS[:1], k=12, metric="l2")
            raise ZeroDivisionError

    size = vector_file(store).stat().st_size
    with pytest.raises(ZeroDivisionError):
        fail()
    assert vector_file(store).stat().st_size == size
    ids = store.put_vectors(
        run, "e", "v", [build.owner(images[0])] * 4, -VECTORS[8:12], item_keys=list("abcd")
    )
    _, found = store.search("e", "v", -VECTORS[8:12], k=1, metric="l2")
    np.testing.assert_array_equal(found[:, 0], ids)


def test_uncommitted_tails_are_cut_on_open(store: Store, run: int, build: Any, images: list[int]) -> None:
    put(store, run, build, images, range(8))
    path = vector_file(store)
    size = path.stat().st_size
    with open(path, "ab") as stream:
        stream.write(b"half a vector")
    with Store.open(store.path) as other:
        assert path.stat().st_size == size
        np.testing.assert_array_equal(other.vectors("e", "v").vectors, VECTORS[:8])


def test_opening_leaves_the_tail_of_a_living_writer(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    put(store, run, build, images, range(4))
    with store.transaction():
        put(store, run, build, images, range(4, 8))
        with Store.open(store.path) as other:
            assert other.counts()["vectors"] == 4
    np.testing.assert_array_equal(store.vectors("e", "v").vectors, VECTORS[:8])


def test_a_short_file_is_reported(store: Store, run: int, build: Any, images: list[int]) -> None:
    put(store, run, build, images, range(8))
    vector_file(store).write_bytes(b"short")
    for ask in (
        lambda: store.vectors("e", "v"),
        lambda: store.search("e", "v", VECTORS[:1], k=1),
        lambda: put(store, run, build, images, range(8, 12)),
    ):
        with pytest.raises(CorruptionError, match="expected 8 vectors"):
            ask()


KILLED = """
import os, signal, sys
import numpy as np
from store.records import VectorOwner
from store.store import Store
store = Store.open(sys.argv[1])
owners = [VectorOwner(image_id=1, box=(0, 0, 1, 1), source="cell")] * 4
vectors = np.arange(32, dtype=np.float32).reshape(4, 8)
store.put_vectors(1, "e", "v", owners, vectors, item_keys=list("abcd"))
with store.transaction():
    store.put_vectors(1, "e", "v", owners, vectors + 100, item_keys=list("efgh"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_between_file_and_commit_loses_only_the_batch(sqlite_store: Store, build: Any) -> None:
    run = sqlite_store.begin_run("index", config={})
    sqlite_store.add_images(run, [build.image(1)])
    child = subprocess.run([sys.executable, "-c", KILLED, str(sqlite_store.path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert vector_file(sqlite_store).stat().st_size == 8 * 8 * 4  # the killed batch is in the file
    vectors = np.arange(32, dtype=np.float32).reshape(4, 8)
    with Store.open(sqlite_store.path) as opened:
        assert vector_file(opened).stat().st_size == 4 * 8 * 4
        np.testing.assert_array_equal(opened.vectors("e", "v").vectors, vectors)
        owners = [build.owner(1)] * 4
        opened.put_vectors(run, "e", "v", owners, vectors + 100, item_keys=list("efgh"))
        np.testing.assert_array_equal(opened.vectors("e", "v").vectors, np.vstack([vectors, vectors + 100]))
