"""Who may see what; each test tries to break a rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from store.errors import AccessError, NotFoundError
from store.records import Leak, Reader
from store.store import Store

OTHERS: list[Any] = [reader for reader in get_args(Reader) if reader != "verify"]
UNPRIVILEGED: list[Any] = [reader for reader in get_args(Reader) if reader not in ("verify", "oracle")]


def add(store: Store, run: int, *images: Any) -> list[int]:
    return [added.image_id for added in store.add_images(run, images)]


@pytest.mark.parametrize("reader", OTHERS)
def test_holdout_cannot_be_listed(store: Store, run: int, build: Any, reader: Any) -> None:
    (holdout,) = add(store, run, build.image(1, "holdout"))
    with pytest.raises(AccessError, match="verify"):
        store.images(reader=reader, role="holdout")
    with pytest.raises(AccessError, match=f"image {holdout}"):
        store.images(reader=reader, ids=[holdout])
    assert store.images(reader=reader) == []
    assert store.images(reader=reader, dataset="set") == []
    assert [image.id for image in store.images(reader="verify", role="holdout")] == [holdout]


def test_holdout_pixels_are_read_by_verify_alone(store: Store, run: int, build: Any, tmp_path: Path) -> None:
    from store.images import probe

    path = build.png(tmp_path / "a.png")
    found = probe(path)
    (image_id,) = add(store, run, build.image(1, "holdout", uri=str(path)))
    record = store.images(reader="verify", ids=[image_id])[0]
    with pytest.raises(AccessError):
        store.pixels(record, reader="report")
    other = build.image(2, "holdout", uri=str(path))
    add(
        store, run, type(other)(**{**{f: getattr(other, f) for f in other.__slots__}, "sha256": found.sha256})
    )
    record = store.images(reader="verify", role="holdout")[-1]
    assert store.pixels(record, reader="verify").shape == (48, 64, 3)


@pytest.mark.parametrize("reader", OTHERS)
def test_holdout_labels_are_read_by_verify_alone(store: Store, run: int, build: Any, reader: Any) -> None:
    (holdout,) = add(
        store, run, build.image(1, "holdout", annotations=(build.label(),), tags={"gap": "post"})
    )
    for ask in (store.annotations, store.tags):
        with pytest.raises(AccessError, match="holdout"):
            ask([holdout], reader=reader)
    assert store.annotations([holdout], reader="verify")[holdout].annotations[0].category == "car"
    assert store.tags([holdout], reader="verify") == {holdout: {"gap": "post"}}


@pytest.mark.parametrize("reader", [*UNPRIVILEGED, "verify"])
def test_pool_labels_stay_hidden_until_selected(store: Store, run: int, build: Any, reader: Any) -> None:
    chosen, other = add(store, run, *(build.image(n, "pool", annotations=(build.label(),)) for n in (1, 2)))
    for ask in (store.annotations, store.tags):
        with pytest.raises(AccessError, match="select it first"):
            ask([chosen], reader=reader)
    store.put_selection(run, build.selection([chosen]))
    assert store.annotations([chosen], reader=reader)[chosen].annotations
    with pytest.raises(AccessError, match=f"image {other}"):
        store.annotations([chosen, other], reader=reader)
    store.put_selection(run, build.selection([other], key="changed"))
    with pytest.raises(AccessError, match=f"image {chosen}"):
        store.annotations([chosen], reader=reader)


def test_oracle_reads_the_pool_but_not_the_holdout(store: Store, run: int, build: Any) -> None:
    pool, holdout = add(
        store, run, build.image(1, "pool", annotations=(build.label(),)), build.image(2, "holdout")
    )
    assert pool in store.annotations([pool], reader="oracle")
    with pytest.raises(AccessError):
        store.annotations([pool, holdout], reader="oracle")


@pytest.mark.parametrize("role", ["mine", "train"])
def test_an_image_that_is_also_mined_or_trained_on_is_readable(
    store: Store, run: int, build: Any, role: Any
) -> None:
    label = (build.label(),)
    image = add(
        store, run, build.image(1, "pool", annotations=label), build.image(1, role, annotations=label)
    )[0]
    assert image in store.annotations([image], reader="diagnose")


def test_an_image_in_pool_and_holdout_stays_closed(store: Store, run: int, build: Any) -> None:
    label = (build.label(),)
    image = add(
        store, run, build.image(1, "pool", annotations=label), build.image(1, "holdout", annotations=label)
    )[0]
    with pytest.raises(AccessError, match="leak"):
        store.annotations([image], reader="oracle")
    with pytest.raises(AccessError, match="must not hold holdout"):
        store.put_selection(run, build.selection([image]))
    assert store.selections() == []
    assert store.leaks([image]) == {image: Leak(reason="equal", role="holdout", image_id=image)}


def test_holdout_images_cannot_be_selected(store: Store, run: int, build: Any) -> None:
    (holdout,) = add(store, run, build.image(1, "holdout"))
    with pytest.raises(AccessError):
        store.put_selection(run, build.selection([holdout]))


def test_holdout_boxes_are_closed(store: Store, run: int, build: Any) -> None:
    holdout, pool = add(store, run, build.image(1, "holdout"), build.image(2, "pool"))
    store.create_space(run, "s", build.shape)
    for kind in ("offered", "outcomes"):
        store.put_boxes(run, "s", kind, [build.boxes(holdout, "a"), build.boxes(pool, "b")])
        with pytest.raises(AccessError, match="holdout"):
            store.boxes("s", kind, role="holdout")
        assert set(store.boxes("s", kind).image_ids) == {pool}
        assert len(store.boxes("s", kind, image_ids=[holdout])) == 0
        assert len(store.boxes("s", kind, keys=["a"])) == 0
    for ask in (store.scan_boxes, store.scan_classes, store.box_ranges):
        with pytest.raises(AccessError, match="holdout"):
            ask("s", role="holdout")
    assert [set(part.image_ids) for part in store.scan_boxes("s", role=None)] == [{pool}]
    assert store.box_ranges("s")[0].tolist() == [pool]
    assert set(store.box_rows("s", np.arange(3, 6)).image_ids) == {pool}
    with pytest.raises(AccessError, match=f"image {holdout}"):
        store.box_rows("s", np.arange(2, 4))


def test_ids_are_no_secret_and_unknown_ids_are_named(store: Store, run: int, build: Any) -> None:
    (holdout,) = add(store, run, build.image(1, "holdout"))
    assert store.image_ids(role="holdout") == [holdout]
    with pytest.raises(NotFoundError, match="no image 99"):
        store.annotations([99], reader="diagnose")
    with pytest.raises(NotFoundError, match="no image 99"):
        store.images(reader="detect", ids=[99])
