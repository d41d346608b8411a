"""What the page reads and writes: outcomes by pages, a person's word on samples, edited labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from store.errors import AccessError, ConflictError, NotFoundError
from store.outcome_pages import outcome_place
from store.records import (
    PERSON,
    ItemStatus,
    NewAnnotation,
    OutcomeFilter,
    OutcomeSort,
    Sample,
    Verdict,
)
from store.store import Store

SORTS: tuple[OutcomeSort, ...] = get_args(OutcomeSort)


@pytest.fixture
def run(store: Store) -> int:
    return store.begin_run("test", config={"author": "ada"})


@pytest.fixture
def image(store: Store, run: int, build: Any) -> int:
    added = store.add_images(run, [build.image(0, annotations=(build.label(),), listed=("car", "bus"))])
    return added[0].image_id


@pytest.fixture
def diagnosed(store: Store, image: int, build: Any) -> int:
    """Thirty outcomes, many of them alike."""
    diagnose = store.begin_run("diagnose", config={}, models=["f"], config_key="d")
    model = store.put_model("spec", "f", ["car"])
    made = []
    for i in range(30):
        own = build.outcome(image, model, f"o{i}", kind=("FN", "FP", "TP")[i % 3], category=f"c{i % 2}")
        box = (0.0, 0.0, 10.0 + i % 4, 10.0)
        cause = None if i % 3 == 2 else ("miss", "background")[i % 3]
        made.append(replace(own, score=(i % 5) / 7, iou=(i % 3) / 9, box=box, cause=cause))
    store.put_outcomes(diagnose, image, made, item_key="item")
    store.record_items(diagnose, [ItemStatus(key="item", status="done", image_id=image)])
    store.finish_run(diagnose, status="done", counts={})
    return diagnose


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("step", [1, 4, 60])
def test_pages_hold_each_outcome_once_in_both_directions(
    store: Store, diagnosed: int, sort: OutcomeSort, step: int
) -> None:
    chosen = OutcomeFilter(kinds=("FN", "FP"))
    total, places = store.outcome_places(chosen, sort, step)
    assert (total, len(places)) == (20, -(-20 // step))
    pages = [store.outcome_page(chosen, sort, at=place, limit=step) for place in places]
    rows = [own for page in pages for own in page]
    assert len({own.id for own in rows}) == 20
    assert [outcome_place(page[0], sort) for page in pages] == places
    back = store.outcome_page(chosen, sort, limit=20, backwards=True)
    assert [own.id for own in back] == [own.id for own in rows[::-1]]
    middle = outcome_place(rows[7], sort)
    after = store.outcome_page(chosen, sort, at=middle, limit=1, past=True)
    before = store.outcome_page(chosen, sort, at=middle, limit=1, past=True, backwards=True)
    assert (before[0].id, after[0].id) == (rows[6].id, rows[8].id)


def test_filters_and_counts_agree(store: Store, diagnosed: int) -> None:
    counts = store.outcome_counts()
    assert sum(number for *_, number in counts) == 30
    for kind, cause, category, number in counts:
        causes = () if cause is None else (cause,)
        chosen = OutcomeFilter(kinds=(kind,), causes=causes, categories=(category,))
        assert store.outcome_places(chosen, "score", 60)[0] == number
    assert store.outcome_places(OutcomeFilter(image_ids=(999,)), "score", 60) == (0, [])


def test_only_the_current_diagnosis_is_paged(store: Store, diagnosed: int) -> None:
    run = store.begin_run("diagnose", config={}, models=["f"], config_key="another")
    store.finish_run(run, status="done", counts={})
    assert store.outcome_places(OutcomeFilter(), "score", 60) == (0, [])
    assert store.outcome_counts() == []


def test_a_persons_word_counts_more_than_the_gates(store: Store, run: int, image: int) -> None:
    bad = Verdict(check="detector", accepted=False, value=0.1, bound=0.5, reason="no box")
    one = Sample(
        name="batch",
        blob="b",
        width=10,
        height=10,
        recipe="object",
        group="g",
        scene_image_id=image,
        exemplar_image_id=None,
        outcome_id=None,
        painted=(0, 0, 5, 5),
        annotations=(),
        seed=0,
        key="s",
        verdicts=(bad,),
    )
    number = store.put_sample(run, one)
    assert store.put_word(run, number, True, "accepted by ada") is None
    (found,) = store.samples()
    assert (found.accepted, found.passed, len(found.verdicts)) == (True, False, 2)
    assert found.person is not None
    assert str(found.person) == f"{PERSON}: accepted by ada"
    assert [s.id for s in store.samples(accepted=True)] == [number]
    assert store.put_word(run, number, False, "rejected by ada") is True
    assert not store.samples()[0].accepted
    assert store.put_word(run, number, None) is False
    assert store.samples()[0].verdicts == (bad,)
    with pytest.raises(NotFoundError, match="no sample 999"):
        store.put_word(run, 999, True)


def test_labels_are_edited_in_versions(store: Store, run: int, image: int, build: Any) -> None:
    other = NewAnnotation(category="bus", box=(3, 4, 9, 9))
    assert store.put_labels(run, image, [build.label(), other], 1) == 2
    assert store.put_labels(run, image, [build.label(), other], 2) == 2  # nothing changed
    now = store.annotations([image], reader="diagnose")[image]
    assert [a.category for a in now.annotations] == ["car", "bus"]
    assert now.classes == {"car", "bus"}
    assert [a.category for a in store.labels_of_version(image, 1)] == ["car"]
    versions = store.label_versions(image)
    assert [(v.version, v.objects, v.author) for v in versions] == [(2, 2, "ada"), (1, 1, "ada")]
    with pytest.raises(ConflictError, match="changed meanwhile"):
        store.put_labels(run, image, [], 1)
    with pytest.raises(NotFoundError, match="version 7"):
        store.labels_of_version(image, 7)


@pytest.mark.parametrize("roles", [("holdout",), ("pool",), ("mine", "holdout")])
def test_hidden_labels_are_neither_read_nor_edited(
    store: Store, run: int, build: Any, roles: tuple[str, ...]
) -> None:
    for role in roles:
        (added,) = store.add_images(run, [build.image(5, role, annotations=(build.label(),))])
    for refused in (
        lambda: store.put_labels(run, added.image_id, [], 1),
        lambda: store.label_versions(added.image_id),
        lambda: store.labels_of_version(added.image_id, 1),
    ):
        with pytest.raises(AccessError, match="not shown or edited here"):
            refused()
