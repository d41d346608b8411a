"""Files of boxes and SQL agree whatever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import CorruptionError
from store.records import BoxesKind, BoxRows, ImageBoxes
from store.store import Store
from tests.store.test_boxes import equal


@pytest.fixture
def images(store: Store, run: int, build: Any) -> list[int]:
    """Four pool images, and a space."""
    store.create_space(run, "s", build.shape)
    return [added.image_id for added in store.add_images(run, [build.image(n, "pool") for n in range(4)])]


def sizes(store: Store) -> dict[str, int]:
    """Bytes by file, of all spaces."""
    return {path.name: path.stat().st_size for path in (store.path / "vectors").glob("*/*")}


def test_one_file_a_column(store: Store, run: int, build: Any, images: list[int]) -> None:
    outcomes = build.boxes(images[0], "a", labels=np.zeros((0, 5), np.int64), scores=np.zeros((0, 5)))
    store.put_boxes(run, "s", "offered", [build.boxes(i, f"k{i}") for i in images])
    store.put_boxes(run, "s", "outcomes", [outcomes])
    assert sizes(store) == {
        "offered.corners": 12 * 8,
        "offered.view.object": 12 * 4,
        "offered.view.context": 12 * 3,
        "offered.classes": 8 * 5,
        "offered.best": 8 * 2,
        "offered.others": 8 * 4,
        "offered.image.image": 4 * 2,
        "outcomes.corners": 3 * 8,
        "outcomes.view.object": 3 * 4,
        "outcomes.view.context": 3 * 3,
        "outcomes.outcome": 3 * 8,
        "outcomes.attribution": 3 * 8,
        "outcomes.classes": 0,
        "outcomes.best": 0,
        "outcomes.others": 0,
        "outcomes.image.image": 2,
    }
    assert store.space_folder("s") == store.path / "vectors" / "0001-s"


def test_uncommitted_tails_are_cut_on_open(store: Store, run: int, build: Any, images: list[int]) -> None:
    boxes = build.boxes(images[0], "a")
    store.put_boxes(run, "s", "offered", [boxes])
    before = sizes(store)
    for name in ("offered.best", "offered.view.object"):
        with open(store.space_folder("s") / name, "ab") as stream:
            stream.write(b"half a row")
    (store.space_folder("s") / "ivf.faiss").write_bytes(b"not ours")
    with Store.open(store.path) as other:
        assert sizes(store) == {**before, "ivf.faiss": 8}
        equal(other.boxes("s", "offered"), BoxRows.of([boxes]))


def test_files_of_what_sql_does_not_know_go_on_open(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    store.put_boxes(run, "s", "offered", [build.boxes(images[0], "a")])
    vectors = store.path / "vectors"
    for name in ("0001-levels.object.f32", "0001-levels.object.ip.faiss", "notes.txt"):
        (vectors / name).write_bytes(b"of an older schema")
    (vectors / "0009-killed").mkdir()
    (vectors / "0009-killed" / "offered.best").write_bytes(b"never counted")
    with Store.open(store.path):
        assert sorted(path.name for path in vectors.iterdir()) == ["0001-s", "notes.txt"]


def test_opening_leaves_the_tail_of_a_living_writer(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    first, second, third = (build.boxes(images[n], f"k{n}", seed=n) for n in range(3))
    store.put_boxes(run, "s", "offered", [first])
    with store.transaction():
        store.put_boxes(run, "s", "offered", [second])
        store.create_space(run, "t", build.shape)
        store.put_boxes(run, "t", "offered", [third])
        with Store.open(store.path) as other:
            equal(other.boxes("s", "offered"), BoxRows.of([first]))
    equal(store.boxes("s", "offered"), BoxRows.of([first, second]))
    equal(store.boxes("t", "offered"), BoxRows.of([third]))


def test_a_failed_transaction_cuts_its_tail(store: Store, run: int, build: Any, images: list[int]) -> None:
    store.put_boxes(run, "s", "offered", [build.boxes(images[0], "a")])
    before = sizes(store)

    def fail() -> None:
        with store.transaction():
            store.put_boxes(run, "s", "offered", [build.boxes(images[1], "b")])
            store.create_space(run, "t", build.shape)
            store.put_boxes(run, "t", "offered", [build.boxes(images[1], "b")])
            assert sizes(store) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sizes(store) == before
    assert store.space("t") is None


@pytest.mark.parametrize("name", ["corners", "view.context", "best", "image.image"])
def test_a_short_file_is_reported(store: Store, run: int, build: Any, images: list[int], name: str) -> None:
    store.put_boxes(run, "s", "offered", [build.boxes(i, f"k{i}") for i in images[:3]])
    (store.space_folder("s") / f"offered.{name}").write_bytes(b"short")
    for ask in (
        lambda: store.boxes("s", "offered"),
        lambda: list(store.scan_boxes("s")),
        lambda: store.box_rows("s", np.arange(2)),
        lambda: store.put_boxes(run, "s", "offered", [build.boxes(images[3], "new")]),
    ):
        with pytest.raises(CorruptionError, match=r"expected \d+ rows .* restore the file from a backup"):
            ask()
    assert store.counts()["boxes"] == 9


KILLED = """
import os, signal, sys
from store.store import Store
from tests.store.conftest import Build
store = Store.open(sys.argv[1])
store.put_boxes(1, "s", "offered", [Build.boxes(1, "a", seed=1)])
with store.transaction():
    store.put_boxes(1, "s", "offered", [Build.boxes(2, "b", seed=2)])
    store.create_space(1, "t", Build.shape)
    store.put_boxes(1, "t", "offered", [Build.boxes(2, "b", seed=2)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_between_files_and_commit_loses_only_the_batch(sqlite_store: Store, build: Any) -> None:
    run = sqlite_store.begin_run("index", config={})
    sqlite_store.add_images(run, [build.image(1), build.image(2)])
    sqlite_store.create_space(run, "s", build.shape)
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run([sys.executable, "-c", KILLED, str(sqlite_store.path)], check=False, cwd=root)
    assert child.returncode == -signal.SIGKILL
    corners = sqlite_store.space_folder("s") / "offered.corners"
    assert corners.stat().st_size == 2 * 3 * 8  # the killed batch is in the file
    first, second = build.boxes(1, "a", seed=1), build.boxes(2, "b", seed=2)
    with Store.open(sqlite_store.path) as opened:
        assert corners.stat().st_size == 3 * 8
        assert [path.name for path in (sqlite_store.path / "vectors").iterdir()] == ["0001-s"]
        equal(opened.boxes("s", "offered"), BoxRows.of([first]))
        opened.put_boxes(run, "s", "offered", [second])
        equal(opened.boxes("s", "offered"), BoxRows.of([first, second]))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["put", "undo", "undo inside", "tail"]),
            st.sampled_from(["offered", "outcomes"]),
            st.lists(st.integers(0, 11), max_size=3),
        ),
        st.just(("reopen", "offered", [])),
    ),
    max_size=10,
)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_sequence_equals_a_plain_model(sqlite_store: Store, build: Any, steps: Any) -> None:
    """Boxes are put, undone with and within a transaction, and left as tails of a killed process; the
    workspace is opened again. Numbers are keys; each has an image and content of its own."""
    run = sqlite_store.begin_run("index", config={})
    ids = [a.image_id for a in sqlite_store.add_images(run, [build.image(n, "pool") for n in range(4)])]
    name = f"space {run}"
    sqlite_store.create_space(run, name, build.shape)
    model: dict[str, dict[str, ImageBoxes]] = {"offered": {}, "outcomes": {}}
    store = Store.open(sqlite_store.path)
    try:
        for step, kind, numbers in steps:
            new = [build.boxes(ids[n % 4], f"k{n}", seed=n, count=n % 5) for n in numbers]
            if step == "reopen":
                store.close()
                store = Store.open(sqlite_store.path)
            elif step == "tail":
                for path in store.space_folder(name).glob(f"{kind}.*"):
                    path.write_bytes(path.read_bytes() + bytes(numbers))
            else:
                _apply(store, run, name, kind, new, step)
            if step == "put":
                for image in new:
                    model[kind].setdefault(image.key, image)
            for each in ("offered", "outcomes"):
                _compare(store, name, each, model[each])
    finally:
        store.close()


def _apply(store: Store, run: int, name: str, kind: BoxesKind, new: list[ImageBoxes], step: str) -> None:
    """Put, or put and undo: alone, or inside of a transaction that goes on."""

    def undone() -> None:
        with store.transaction():
            store.put_boxes(run, name, kind, new)
            raise ZeroDivisionError

    if step == "put":
        store.put_boxes(run, name, kind, new)
    elif step == "undo":
        with pytest.raises(ZeroDivisionError):
            undone()
    else:
        with store.transaction(), pytest.raises(ZeroDivisionError):
            undone()


def _compare(store: Store, name: str, kind: BoxesKind, expected: dict[str, ImageBoxes]) -> None:
    """All rows by image, and the offered ones by number."""
    found = store.boxes(name, kind)
    kept = list(expected.values())
    if not sum(map(len, kept)):
        assert len(found) == 0
        return
    equal(found, BoxRows.of(sorted(kept, key=lambda image: image.image_id)))
    if kind == "offered":
        equal(store.box_rows(name, np.arange(len(found))), BoxRows.of(kept))
