"""Images, memberships, annotations, duplicates and leaks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.duplicates import pairs_within, parse_hashes, popcount
from store.records import AddedImage, Membership, NewAnnotation
from store.store import Store


def test_rows_come_back_as_they_went_in(store: Store, run: int, build: Any) -> None:
    rings = ((1.0, 2.0, 30.0, 2.0, 30.0, 40.0),)
    rich = NewAnnotation(
        category="car",
        box=(1.1, 2.2, 30.3, 40.4),
        crowd=True,
        difficult=True,
        polygon=rings,
        attributes={"cause": "post", "depth": [1, 2.5]},
    )
    local, aware = datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, tzinfo=UTC)
    added = store.add_images(
        run,
        [
            build.image(
                1,
                annotations=(rich, build.label("bus")),
                split="a",
                group_key="video1",
                captured_at=local,
                source="camera",
                tags={"night": "yes"},
            ),
            build.image(2, "train", annotations=None, captured_at=aware),
            build.image(3, annotations=()),
        ],
    )
    one, two, three = (item.image_id for item in added)
    assert added == [
        AddedImage(image_id=one, created=True, annotation_changed=True),
        AddedImage(image_id=two, created=True, annotation_changed=False),
        AddedImage(image_id=three, created=True, annotation_changed=True),
    ]
    found = store.annotations([one, two, three], reader="diagnose")
    assert list(found) == [one, three]
    assert found[three].annotations == ()
    assert (found[one].version, found[one].status) == (1, "human")
    first, second = found[one].annotations
    assert (first.category, first.box, first.crowd, first.difficult) == (
        "car",
        (1.1, 2.2, 30.3, 40.4),
        True,
        True,
    )
    assert (first.polygon, first.attributes) == (rings, {"cause": "post", "depth": [1, 2.5]})
    assert (second.category, second.polygon, second.attributes) == ("bus", None, {})
    assert [category.name for category in store.categories()] == ["car", "bus"]
    assert second.category_id == store.categories()[1].id
    assert store.memberships([one]) == [
        Membership(
            image_id=one,
            dataset="set",
            role="mine",
            split="a",
            group_key="video1",
            captured_at=local,
            source="camera",
        )
    ]
    assert store.memberships()[1].captured_at == aware
    assert store.tags([one, two], reader="diagnose") == {one: {"night": "yes"}}
    image = store.images(reader="detect", ids=[one])[0]
    assert (image.uri, image.width, image.height) == ("/images/1.png", 64, 48)


def test_adding_again_changes_nothing(store: Store, run: int, build: Any) -> None:
    batch = [build.image(n, annotations=(build.label(),), tags={"a": "b"}) for n in range(5)]
    first = store.add_images(run, batch)
    before = dict(store.counts())
    second = store.add_images(store.begin_run("add", config={}), batch)
    assert [item.image_id for item in second] == [item.image_id for item in first]
    assert not any(item.created or item.annotation_changed or item.same_as for item in second)
    assert {**before, "runs": 2} == dict(store.counts())


def test_a_second_look_without_a_pattern_keeps_the_group_key(store: Store, run: int, build: Any) -> None:
    (added,) = store.add_images(run, [build.image(1, group_key="video")])
    store.add_images(run, [build.image(1)])
    assert [m.group_key for m in store.memberships([added.image_id])] == ["video"]
    store.add_images(run, [build.image(1, group_key="other")])
    assert [m.group_key for m in store.memberships([added.image_id])] == ["other"]


def test_changed_annotations_make_a_new_version(store: Store, run: int, build: Any) -> None:
    (first,) = store.add_images(run, [build.image(1, annotations=(build.label(),))])
    ids = [first.image_id]
    old = store.annotations(ids, reader="train")[first.image_id]
    (second,) = store.add_images(
        run, [build.image(1, annotations=(build.label("bus"),), status="pre-annotation")]
    )
    new = store.annotations(ids, reader="train")[first.image_id]
    assert (second.created, second.annotation_changed) == (False, True)
    assert (new.version, new.status, new.annotations[0].category) == (2, "pre-annotation", "bus")
    assert new.key != old.key
    store.add_images(run, [build.image(1, annotations=None)])  # unlabelled import: the labels stay
    assert store.annotations(ids, reader="train")[first.image_id] == new


def test_duplicates_are_reported_in_every_role(store: Store, run: int, build: Any) -> None:
    near = f"{int(build.image(1).phash, 16) ^ 0b1011:016x}"
    far = f"{int(build.image(1).phash, 16) ^ 0b11111:016x}"
    (original,) = store.add_images(run, [build.image(1, "holdout")])
    equal, close, other = store.add_images(
        run,
        [
            build.image(1, "pool", uri="/copy.png"),
            build.image(2, "pool", phash=near),
            build.image(3, phash=far),
        ],
    )
    assert (equal.image_id, equal.created) == (original.image_id, False)
    assert (original.image_id, "holdout") in equal.same_as
    assert set(close.same_as) == {(original.image_id, "holdout"), (original.image_id, "pool")}
    assert (original.image_id, "holdout") not in other.same_as
    leaks = store.leaks([close.image_id, other.image_id])
    assert {i: str(leak) for i, leak in leaks.items()} == {
        close.image_id: "nearly equals a holdout image",
        other.image_id: "equals a mined image",
    }
    assert store.near_duplicates([close.image_id], [original.image_id, close.image_id]) == {
        close.image_id: original.image_id
    }


def test_two_files_of_the_same_bytes_in_one_import_are_reported(store: Store, run: int, build: Any) -> None:
    first, second = store.add_images(run, [build.image(1), build.image(1, uri="/images/copy.png")])
    assert (first.created, second.created) == (True, False)
    assert first.same_as == ()
    assert second.same_as == ((first.image_id, "mine"),)


def test_a_moved_file_is_followed(store: Store, run: int, build: Any, tmp_path: Any) -> None:
    here = tmp_path / "here.png"
    here.write_bytes(b"x")
    (added,) = store.add_images(run, [build.image(1, uri=str(here))])
    store.add_images(run, [build.image(1, uri="/copy.png")])
    assert store.images(reader="detect", ids=[added.image_id])[0].uri == str(here)
    here.unlink()
    store.add_images(run, [build.image(1, uri="/moved.png")])
    assert store.images(reader="detect", ids=[added.image_id])[0].uri == "/moved.png"


def test_counts_by_role(store: Store, run: int, build: Any) -> None:
    store.add_images(
        run,
        [
            build.image(1, "train"),
            build.image(1, "pool"),
            build.image(2, "pool"),
            build.image(2, "pool", dataset="other"),
        ],
    )
    counts = store.counts()
    assert (counts["images"], counts["images_train"], counts["images_pool"], counts["images_mine"]) == (
        2,
        1,
        2,
        0,
    )
    assert len(store.images(reader="index", role="pool", dataset="other")) == 1
    assert store.image_ids(role="pool", dataset="nowhere") == []


def test_many_images_at_once(store: Store, run: int, build: Any) -> None:
    added = store.add_images(run, [build.image(n, annotations=(build.label(),)) for n in range(6_000)])
    ids = [item.image_id for item in added]
    assert len(store.images(reader="detect", ids=ids)) == 6_000
    assert len(store.annotations(ids, reader="diagnose")) == 6_000
    assert store.counts()["annotations"] == 6_000


hashes = st.integers(0, 2**64 - 1).map(lambda value: f"{value:016x}")


@settings(deadline=None)
@given(st.lists(hashes, max_size=8), st.lists(hashes, max_size=8), st.integers(0, 64))
def test_pairs_agree_with_counting_bits_one_by_one(left: list[str], right: list[str], distance: int) -> None:
    found = {
        (int(i), int(j))
        for rows, columns in pairs_within(parse_hashes(left), parse_hashes(right), distance)
        for i, j in zip(rows, columns, strict=True)
    }
    assert found == {
        (i, j)
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (int(a, 16) ^ int(b, 16)).bit_count() <= distance
    }


def test_old_numpy_counts_bits_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 2**64, (3, 5), dtype=np.uint64)
    expected = [[int(v).bit_count() for v in row] for row in values]
    assert popcount(values).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert popcount(values).tolist() == expected


def test_the_catalogue_s_state_tells_what_came_went_or_took_another_role(
    store: Store, run: int, build: Any
) -> None:
    seen = [store.catalogue_state()]

    def changed() -> bool:
        seen.append(store.catalogue_state())
        return seen[-1] not in seen[:-1]

    store.add_images(run, [build.image(1, "pool"), build.image(2, "pool")])
    assert changed()
    store.add_images(run, [build.image(1, "pool"), build.image(2, "pool")])
    assert not changed()  # nothing new
    store.add_images(run, [build.image(1, "train")])
    assert changed()
    store.add_images(run, [build.image(3, "holdout")])
    assert changed()
    store.add_images(run, [build.image(4, "holdout", group_key="video")])
    assert changed()
    store.add_images(run, [build.image(2, "pool", group_key="video")])
    assert changed()
    assert store.leaks(store.image_ids(role="pool"))  # of the holdout's group
