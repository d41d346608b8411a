"""Boxes of vector spaces: they come back as they went in, to the stated error, whoever asks for which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from store.errors import NotFoundError
from store.records import BoxRows, SpaceShape
from store.store import Store
from store.vectors.codes import decode_boxes, decode_scores, encode_boxes, encode_scores


@pytest.fixture
def images(store: Store, run: int, build: Any) -> list[int]:
    """Ten pool images, then two mined ones, and a space."""
    store.create_space(run, "s", build.shape)
    new = [build.image(n, "pool" if n < 10 else "mine") for n in range(12)]
    return [added.image_id for added in store.add_images(run, new)]


def equal(found: BoxRows, expected: BoxRows) -> None:
    """The same rows, to what the Store's files keep."""
    for name in ("image_ids", "sizes", "labels", "outcome_ids", "attribution_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=0.0006)
    shown = np.where(expected.labels < 0, 0, expected.scores.clip(1e-4, 1 - 1e-4))
    np.testing.assert_allclose(found.scores[:, 0], shown[:, 0], rtol=0, atol=5e-5)
    np.testing.assert_allclose(found.scores, shown, rtol=0, atol=0.0092)
    for view in expected.views:
        np.testing.assert_array_equal(found.views[view], expected.views[view])
    for view in expected.image_views:
        np.testing.assert_array_equal(
            found.image_views[view][found.image_places], expected.image_views[view][expected.image_places]
        )


def test_boxes_come_back(store: Store, run: int, build: Any, images: list[int]) -> None:
    new = [build.boxes(images[n], f"k{n}", seed=n, count=n % 4) for n in (7, 3, 11, 0, 10, 5, 6)]
    store.put_boxes(run, "s", "offered", new[:4])
    store.put_boxes(run, "s", "offered", new[4:])
    ordered = sorted(new, key=lambda image: image.image_id)
    equal(store.boxes("s", "offered"), BoxRows.of(ordered))
    equal(
        store.boxes("s", "offered", role="mine"),
        BoxRows.of([i for i in ordered if i.image_id in images[10:]]),
    )
    equal(store.boxes("s", "offered", image_ids=[images[5], images[3]]), BoxRows.of([ordered[1], ordered[2]]))
    equal(store.boxes("s", "offered", keys=["k7", "absent"]), BoxRows.of([new[0]]))
    assert len(store.boxes("s", "offered", keys=["k7"], image_ids=[images[3]])) == 0
    nothing = store.boxes("s", "outcomes")
    assert nothing.views["object"].shape == (0, 4)
    assert nothing.image_views["image"].shape == (0, 2)
    with pytest.raises(NotFoundError, match=r"no vector space called 'x'; there are: s"):
        store.boxes("x", "offered")


def test_outcomes_are_a_kind_of_their_own(store: Store, run: int, build: Any, images: list[int]) -> None:
    offered = build.boxes(images[0], "k", seed=1)
    outcomes = build.boxes(
        images[0],
        "k",
        seed=2,
        labels=np.zeros((0, 5), np.int64),
        scores=np.zeros((0, 5)),
        outcome_ids=np.array([4, 2**40, 4]),
        attribution_ids=np.array([-1, -1, 9]),
    )
    store.put_boxes(run, "s", "offered", [offered])
    store.put_boxes(run, "s", "outcomes", [outcomes])
    equal(store.boxes("s", "offered"), BoxRows.of([offered]))
    equal(store.boxes("s", "outcomes"), BoxRows.of([outcomes]))
    assert store.counts()["boxes"] == 6
    with pytest.raises(ValueError, match="put them as kind 'outcomes'"):
        store.put_boxes(run, "s", "offered", [build.boxes(images[1], "l", outcome_ids=np.array([1, -1, -1]))])


def test_a_repeated_key_adds_nothing(store: Store, run: int, build: Any, images: list[int]) -> None:
    first, other = build.boxes(images[0], "a", seed=1), build.boxes(images[1], "b", seed=2)
    store.put_boxes(run, "s", "offered", [first, build.boxes(images[0], "a", seed=9)])
    store.put_boxes(run, "s", "offered", [build.boxes(images[0], "a", seed=9), other])
    equal(store.boxes("s", "offered"), BoxRows.of([first, other]))
    assert store.counts()["indexed_images"] == 2


def test_a_scan_reads_whole_images_in_the_order_of_the_files(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    counts = [3, 0, 5, 2, 9, 1, 0, 4, 2, 3, 8, 8]
    new = [build.boxes(i, f"k{i}", seed=i, count=n) for i, n in zip(reversed(images), counts, strict=True)]
    store.put_boxes(run, "s", "offered", new)
    parts = list(store.scan_boxes("s", rows=8))
    assert [len(part) for part in parts] == [7, 9, 7, 3, 8, 8]
    pool = [image for image in new if image.image_id in images[:10]]
    equal(_joined(parts), BoxRows.of(pool))
    rows = np.concatenate([part.rows for part in parts])
    assert (np.diff(rows) > 0).all()
    equal(_joined(list(store.scan_boxes("s", role=None))), BoxRows.of(new))
    some = [images[4], images[11]]
    equal(
        _joined(list(store.scan_boxes("s", role=None, image_ids=some, rows=1))),
        BoxRows.of([image for image in new if image.image_id in some]),
    )
    assert list(store.scan_boxes("s", role="train")) == []
    with pytest.raises(ValueError, match="at least 1"):
        store.scan_boxes("s", rows=0)
    scan = store.scan_boxes("s", rows=20)
    first = next(scan)
    store.put_boxes(run, "s", "offered", [build.boxes(images[0], "later", seed=99)])
    equal(_joined([first, *scan]), BoxRows.of(pool))


def test_classes_are_read_without_boxes(store: Store, run: int, build: Any, images: list[int]) -> None:
    counts = [3, 0, 5, 2, 9, 1, 0, 4, 2, 3, 8, 8]
    new = [build.boxes(i, f"k{i}", seed=i, count=n) for i, n in zip(reversed(images), counts, strict=True)]
    store.put_boxes(run, "s", "offered", new)
    for role, rows in (("pool", 8), (None, 1000)):
        whole = _joined(list(store.scan_boxes("s", role=role)))
        candidates = whole.take(whole.labels[:, 0] >= 0)
        parts = list(store.scan_classes("s", role=role, rows=rows))
        seen = np.concatenate([part.labels[:, 0] >= 0 for part in parts])
        for field in ("image_ids", "labels", "scores"):
            found = np.concatenate([getattr(part, field) for part in parts])[seen]
            np.testing.assert_array_equal(found, getattr(candidates, field))


def test_rows_by_number(store: Store, run: int, build: Any, images: list[int]) -> None:
    new = [build.boxes(images[n], f"k{n}", seed=n, count=n % 4) for n in range(12)]
    store.put_boxes(run, "s", "offered", new)
    wanted = np.array([17, 0, 9, 9, 3])
    equal(store.box_rows("s", wanted), BoxRows.of(new).take(wanted))
    np.testing.assert_array_equal(store.box_rows("s", wanted).rows, wanted)
    assert len(store.box_rows("s", np.zeros(0, np.int64))) == 0
    for bad in (-1, 18):
        with pytest.raises(ValueError, match="expected rows from 0 to 17"):
            store.box_rows("s", np.array([0, bad]))
    ids, first, counts = store.box_ranges("s", role="mine")
    assert (ids.tolist(), first.tolist(), counts.tolist()) == (images[10:], [13, 15], [2, 3])
    assert store.box_ranges("s")[1].tolist() == np.cumsum([0] + [n % 4 for n in range(11)]).tolist()
    assert store.box_ranges("s", image_ids=[images[3]])[2].tolist() == [3]


def test_what_is_stored_later_is_seen(store: Store, run: int, build: Any, images: list[int]) -> None:
    """Places are kept from call to call, but those of an open transaction are not."""
    kept = [build.boxes(images[n], f"k{n}", seed=n) for n in range(3)]
    with Store.open(store.path) as other:
        for n in range(3):
            store.put_boxes(run, "s", "offered", [kept[n]])
            equal(other.boxes("s", "offered"), BoxRows.of(kept[: n + 1]))

        def undone() -> None:
            with store.transaction():
                store.put_boxes(run, "s", "offered", [build.boxes(images[5], "x", seed=5)])
                assert len(store.boxes("s", "offered")) == 12
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            undone()
        equal(store.boxes("s", "offered"), BoxRows.of(kept))
        equal(other.boxes("s", "offered"), BoxRows.of(kept))


def test_a_space_says_what_it_holds(store: Store, run: int, build: Any) -> None:
    rng = np.random.default_rng(0)
    shape = SpaceShape(
        views={"object": 4, "dino:base/16": 3},
        image_views={},
        classes=80,
        facts={"embedder": "levels", "windows": 20},
        arrays={"mean": rng.standard_normal((3, 4)).astype(np.float32).T, "file": np.arange(3)},
    )
    store.create_space(run, "s", shape)
    store.create_space(run, "s", shape)
    found = store.space("s")
    assert found is not None
    assert (found.views, found.image_views, found.classes) == (shape.views, {}, 80)
    assert found.facts == shape.facts
    for name in shape.arrays:
        np.testing.assert_array_equal(found.arrays[name], shape.arrays[name])
        assert found.arrays[name].dtype == shape.arrays[name].dtype
    assert store.space("t") is None
    with pytest.raises(ValueError, match=r"space 's': expected views.*'classes': 80.*got.*'classes': 6"):
        store.create_space(run, "s", build.shape)
    with pytest.raises(ValueError, match="expected a name, a view"):
        store.create_space(run, "u", SpaceShape(views={}, image_views={}, classes=3))
    (image,) = store.add_images(run, [build.image(1)])
    boxes = build.boxes(
        image.image_id,
        "k",
        views={"object": np.ones((3, 4), np.int8), "dino:base/16": np.ones((3, 3), np.int8)},
        image_views={},
    )
    store.put_boxes(run, "s", "offered", [boxes])
    equal(store.boxes("s", "offered"), BoxRows.of([boxes]))


@pytest.mark.parametrize("classes", [255, 256, 1000])
def test_many_classes(store: Store, run: int, build: Any, images: list[int], classes: int) -> None:
    shape = SpaceShape(views=build.shape.views, image_views=build.shape.image_views, classes=classes)
    store.create_space(run, "many", shape)
    labels = np.array([[classes - 1, 254, 0, -1, -1], [254, classes - 1, 3, 2, 1]])
    boxes = build.boxes(images[0], "k", labels=labels)
    store.put_boxes(run, "many", "offered", [boxes])
    equal(store.boxes("many", "offered"), BoxRows.of([boxes]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ""}, "content key"),
        ({"size": (64, 48)}, "expected its size 48 x 64, got 64 x 48"),
        ({"boxes": np.full((3, 4), np.nan, np.float32)}, "finite boxes"),
        ({"labels": np.zeros((4, 5), np.int64), "scores": np.zeros((4, 5))}, "at most 3 candidates"),
        ({"labels": np.zeros((2, 4), np.int64), "scores": np.zeros((2, 4))}, r"\(C, 5\)"),
        ({"labels": np.full((2, 5), 6), "scores": np.zeros((2, 5))}, "classes from -1 to 5, got 6"),
        ({"scores": np.full((2, 5), 1.5)}, "scores from 0 to 1"),
        ({"scores": np.tile([0.1, 0.2, 0.3, 0.4, 0.5], (2, 1))}, "best class first"),
        ({"labels": np.tile([-1, 1, 2, 3, 4], (2, 1))}, "best class first"),
        ({"views": {"object": np.zeros((3, 4), np.int8)}}, "expected the views"),
        ({"image_views": {"image": np.zeros(2, np.float32)}}, "int8"),
        ({"outcome_ids": np.zeros(2, np.int64)}, r"outcome ids \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    store: Store, run: int, build: Any, images: list[int], change: dict[str, Any], message: str
) -> None:
    bad = build.boxes(**{"image_id": images[1], "key": "b", **change})
    with pytest.raises(ValueError, match=message):
        store.put_boxes(run, "s", "outcomes", [build.boxes(images[0], "a"), bad])
    assert store.counts()["boxes"] == 0


def test_unknown_images_are_refused(store: Store, run: int, build: Any, images: list[int]) -> None:
    with pytest.raises(NotFoundError, match="no image 99"):
        store.put_boxes(run, "s", "offered", [build.boxes(99, "a")])


def test_the_stated_errors_hold() -> None:
    rng = np.random.default_rng(1)
    size = (1000, 4000)
    boxes = rng.uniform(0, 1, (20_000, 4)) * [4000, 1000, 4000, 1000]
    found = decode_boxes(encode_boxes(boxes, size), np.tile(size, (len(boxes), 1)))
    assert np.abs(found - boxes)[:, [1, 3]].max() < 0.0078
    assert np.abs(found - boxes)[:, [0, 2]].max() < 4 * 0.0078
    outside = encode_boxes(np.array([[-5.0, -5, 4005, 1005]]), size)
    np.testing.assert_array_equal(decode_boxes(outside, np.array([size])), [[0, 0, 4000, 1000]])
    p = np.linspace(0, 1, 100_001)
    shown = p.clip(1e-4, 1 - 1e-4)
    for dtype, bound in (("<u2", 0.00004), ("<u1", 0.0091)):
        error = np.abs(decode_scores(encode_scores(p, dtype)) - shown)
        assert error.max() < bound
        assert error.argmax() == pytest.approx(50_000, abs=2_000)


def test_other_scores_never_exceed_the_best(store: Store, run: int, build: Any, images: list[int]) -> None:
    scores = np.tile(np.linspace(0.001, 0.999, 200)[:, None], (1, 5))
    labels = np.tile(np.arange(5), (200, 1))
    store.put_boxes(
        run, "s", "offered", [build.boxes(images[0], "a", count=200, scores=scores, labels=labels)]
    )
    found = store.boxes("s", "offered").scores
    assert (found[:, 1:] <= found[:, :1]).all()


def _joined(parts: list[BoxRows]) -> BoxRows:
    """Parts of a scan as one."""
    starts = np.cumsum([0, *(len(next(iter(p.image_views.values()))) for p in parts)])
    fields = ("image_ids", "sizes", "boxes", "rows", "labels", "scores", "outcome_ids", "attribution_ids")
    return BoxRows(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields},
        views={v: np.concatenate([p.views[v] for p in parts]) for v in parts[0].views},
        image_views={v: np.concatenate([p.image_views[v] for p in parts]) for v in parts[0].image_views},
        image_places=np.concatenate([p.image_places + s for p, s in zip(parts, starts, strict=False)]),
    )
