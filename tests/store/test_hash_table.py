"""Looking hashes up: the same pairs as by comparing each with each, whatever was added and undone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageOps
from sqlalchemy import delete, insert, select

from store import hash_table
from store.appearance import HASHES
from store.hash_table import RADIUS, Hashes, HashTable, Near, popcount
from store.known_images import Column
from store.models import AnnotationVersion, AppearanceRow, Image, Member
from store.session import table
from store.store import Store
from tests.pictures import Camera, jpeg, scene

MIRROR = HASHES - 1


def scan(left: Hashes, right: Hashes) -> list[tuple[int, int, bool]]:
    """All 38 comparisons of each pair."""
    found = []
    for side in (0, MIRROR):
        near = np.zeros((len(left), len(right)), dtype=bool)
        for window in range(MIRROR):
            near |= popcount(left[:, None, side] ^ right[None, :, window]) <= RADIUS
            if window:
                near |= popcount(left[:, None, window] ^ right[None, :, side]) <= RADIUS
        found += [(i, j, side == MIRROR) for i, j in np.argwhere(near).tolist()]
    return sorted(found)


def listed(parts: Iterable[Near]) -> list[tuple[int, int, bool]]:
    """What was yielded, in its order."""
    return [pair for part in parts for pair in zip(*(column.tolist() for column in part), strict=True)]


def draw(seed: int, count: int, kind: str) -> Hashes:
    """(count, HASHES) hashes.

    Args:
        kind: "clusters" (a few scenes, 0 to 30 bits off), "windows" (each picture's hashes 0 to 12 bits from
            its own, as in photographs), "anything" (few pairs are near), "zero" (as of undescribed images).
    """
    rng = np.random.default_rng(seed)
    if kind == "zero":
        return np.zeros((count, HASHES), dtype=np.uint64)
    hashes = rng.integers(0, 2**64, (count, HASHES), dtype=np.uint64)
    if kind == "anything":
        return hashes
    most = 30 if kind == "clusters" else 12
    flips = np.uint64(1) << rng.integers(0, 64, (most, count, HASHES), dtype=np.uint64)
    flips[rng.integers(0, most + 1, (count, HASHES)) <= np.arange(most)[:, None, None]] = 0
    scenes = rng.integers(0, 2**64, (3, 1), dtype=np.uint64)[rng.integers(0, 3, count)]
    own = scenes if kind == "clusters" else hashes[:, :1]
    near: Hashes = own ^ np.bitwise_xor.reduce(flips, axis=0)
    near[:, MIRROR] = np.where(rng.random(count) < 0.5, near[:, MIRROR], hashes[:, MIRROR])
    return near


KINDS = st.sampled_from(["clusters", "windows", "anything", "zero"])


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 30), KINDS), max_size=5),
    st.integers(0, 20),
    KINDS,
)
@example(0, [], 3, "clusters")
@example(0, [(3, "zero")], 0, "zero")
def test_the_same_pairs_as_by_comparing_each_with_each(
    seed: int, added: list[tuple[int, str]], asked: int, kind: str
) -> None:
    looked_up, right = HashTable(), np.zeros((0, HASHES), dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:  # many blocks, many pieces
        patch.setattr(hash_table, "ROWS", 16)
        patch.setattr(hash_table, "_AT_ONCE", 64)
        patch.setattr(hash_table, "_MOST", 40)
        for k, (count, some) in enumerate(added):
            more = draw(seed + k, count, some)
            looked_up.append(more)
            right = np.concatenate([right, more])
            left = draw(seed + 99, asked, kind)
            if len(left) and len(right):  # a copy, and the mirror image of one
                left[0] = right[0]
                left[-1, [0, MIRROR]] = right[-1, [MIRROR, 0]]
            assert listed(looked_up.near(left)) == scan(left, right)
            order = np.random.default_rng(seed).permutation(len(right))
            assert np.array_equal(looked_up.rows(order), right[order])
        assert len(looked_up) == len(right)
        for row in range(0, len(right), 7):
            right[row] = draw(seed + 5, 1, "clusters")[0]
            looked_up.put(row, right[row])
        assert listed(looked_up.near(right[:5])) == scan(right[:5], right)


def test_whole_blocks_of_real_size() -> None:
    right = np.concatenate([draw(k, 5000, "windows") for k in range(4)])
    left = right[[0, 8191, 8192, 19_999]] ^ np.uint64(0b1011)
    found = listed(HashTable(right).near(left))
    assert found == scan(left, right)
    assert len(found) >= 4


def test_a_column_grows() -> None:
    column, expected = Column(np.int64), np.zeros(0, dtype=np.int64)
    for count in (0, 1, 63, 1, 200):
        more: NDArray[np.int64] = np.arange(count)
        column.append(more)
        expected = np.concatenate([expected, more])
        assert np.array_equal(column.values, expected)


# ---------------------------------------------------------------- of a workspace


@pytest.fixture
def camera(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Camera:
    return Camera(store, tmp_path_factory.mktemp("files"))


def test_an_image_of_a_savepoint_that_was_undone_is_forgotten(store: Store, camera: Camera) -> None:
    camera.add(scene(1), "holdout")
    gone: list[int] = []

    def interrupted() -> None:
        with store.transaction():
            gone.append(camera.add(scene(2), "holdout"))
            assert store.leaks(gone)
            raise RuntimeError("bad item")

    with store.transaction():
        with pytest.raises(RuntimeError, match="bad item"):
            interrupted()
        kept = camera.add(scene(3), "holdout")  # SQLite gives it the id of the one that is gone
        assert store.near_duplicates([kept], [*gone, kept]) == {}
        copy, other = (camera.add(jpeg(scene(number)), "pool") for number in (3, 2))
    assert {i: leak.image_id for i, leak in store.leaks([copy, other]).items()} == {copy: kept}


def test_what_another_writer_stored_is_found_whatever_its_number(store: Store, camera: Camera) -> None:
    first, second, third = (camera.add(scene(number), "mine") for number in (1, 2, 3))
    with Store.open(store.path) as other, other._database.writing() as connection:
        images = table(Image)
        row = dict(connection.execute(select(images).where(images.c.id == second)).mappings().one())
        for model in (AnnotationVersion, Member, AppearanceRow):
            connection.execute(delete(model).where(model.image_id == second))
        connection.execute(delete(Image).where(Image.id == second))
    with Store.open(store.path) as reader:
        ids = [first, second, third]
        assert reader.near_duplicates(ids, ids) == {}
        # a number that was taken first and stored last; its file is gone, so that its hash decides
        row |= {"uri": "/gone.png", "phash": phash_of(store, third)}
        with store._database.writing() as connection:
            connection.execute(insert(images), [row])
        assert reader.near_duplicates([second], ids) == {second: third}


def phash_of(store: Store, image: int) -> str:
    """The one hash that an image has always."""
    return store.images(reader="index", ids=[image])[0].phash


def test_an_unrelated_savepoint_forgets_nothing(
    store: Store, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = camera.add(scene(1), "holdout")
    copy = camera.add(ImageOps.mirror(scene(1)), "pool")
    assert list(store.leaks([copy])) == [copy]
    forgotten: list[int] = []
    monkeypatch.setattr(type(store._lookalikes._known), "forget", lambda known: forgotten.append(1))
    with pytest.raises(RuntimeError, match="bad item"), store.transaction():
        raise RuntimeError("bad item")
    assert forgotten == []
    assert store.leaks([copy])[copy].image_id == held


def test_pictures_without_contrast_have_hashes_of_few_bits(store: Store, camera: Camera) -> None:
    ids = [camera.add(Picture.new("RGB", (64, 48), (v, v, v)), "mine") for v in (0, 90, 91)]
    assert store.near_duplicates(ids, ids) == {ids[1]: ids[2], ids[2]: ids[1]}
