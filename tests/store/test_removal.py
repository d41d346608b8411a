"""What is removed is gone with all that is derived of it alone; all else stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import inspect, text

from store import schema
from store.models import Base
from store.records import (
    Attribution,
    BoxRows,
    DatasetVersion,
    Feedback,
    ItemStatus,
    MembershipFilter,
    Region,
    Sample,
    Segmentation,
    SegmentMap,
    Trial,
    Verdict,
)
from store.removal import UNINDEXED
from store.session import table
from store.store import Store
from tests.store.test_boxes import equal

EVERY = MembershipFilter()


def rows(store: Store) -> dict[str, int]:
    """Rows by table."""
    with store._database.reading() as connection:
        names = Base.metadata.tables
        return {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in names}


def sound(store: Store) -> bool:
    """Does `curator db check` find nothing?"""
    return schema.check(store._database) == []


def begin(store: Store) -> int:
    """A run of a removal."""
    return store.begin_run("remove", config={}, facts=store.removal_facts())


@pytest.fixture
def full(store: Store, run: int, build: Any) -> dict[str, Any]:
    """Something in every table, for mined images 0 and 1 and pool images 2 and 3."""
    label = build.label()
    new = [build.image(n, "mine", dataset="field", annotations=(label,)) for n in range(2)]
    new += [build.image(n, "pool", dataset="pool", annotations=(build.label("bus"),)) for n in (2, 3)]
    ids = [added.image_id for added in store.add_images(run, new)]
    store.put_listed(run, "pool", ["bus", "tram"])
    model = store.put_model("python:x", "f" * 64, ["car"])
    detect = store.begin_run("detect", config={}, models=["f" * 64], config_key="d")
    for i in ids:
        store.put_detections(detect, [build.detections(i, model, f"d{i}")])
    store.record_items(detect, [ItemStatus(key=f"d{i}", status="done", image_id=i) for i in ids])
    told = {"model": model}
    diagnose = store.begin_run("diagnose", config={}, models=["f" * 64], config_key="o", facts=told)
    outcomes = {}
    for i in ids[:2]:
        outcomes[i] = store.put_outcomes(
            diagnose, i, [build.outcome(i, model, f"o{i}-{n}") for n in range(2)], item_key=f"o{i}"
        )
    store.record_items(diagnose, [ItemStatus(key=f"o{i}", status="done", image_id=i) for i in ids[:2]])
    explain = store.begin_run("explain", config={}, models=["f" * 64], config_key="e", scope="f" * 64)
    for i in ids[:2]:
        labels = np.zeros((4, 4), np.uint16)
        segmentation = store.put_segmentation(Segmentation(image_id=i, labels=labels, key=f"s{i}"))
        maps = SegmentMap(phi=np.ones(1, np.float32), full=1.0, empty=0.0, gap=0.0, passes=1, evidence=True)
        explained = [
            Attribution(outcome_id=o, method="e2x", map=maps, key=f"a{o}", segmentation_id=segmentation)
            for o in outcomes[i]
        ]
        for o, a in zip(outcomes[i], store.put_attributions(explain, explained), strict=True):
            region = Region(
                attribution_id=a,
                outcome_id=o,
                image_id=i,
                kind="culprit",
                box=(0, 0, 1, 1),
                segments=(0,),
                weight=1.0,
                key=f"r{o}",
            )
            store.put_regions(explain, [region])
    store.record_items(explain, [ItemStatus(key=f"e{i}", status="done", image_id=i) for i in ids[:2]])
    index = store.begin_run("index", config={}, models=["f" * 64], config_key="s")
    store.create_space(index, "s", build.shape)
    boxes = {i: build.boxes(i, f"b{i}", seed=i) for i in ids}
    store.put_boxes(index, "s", "offered", list(boxes.values()))
    store.put_boxes(index, "s", "outcomes", [build.boxes(i, f"c{i}", seed=i) for i in ids[:2]])
    store.record_items(index, [ItemStatus(key=f"b{i}", status="done", image_id=i) for i in ids])
    query = store.begin_run("query", config={}, models=["f" * 64])
    hits = tuple(build.hit(i, n, outcome_id=outcomes[ids[n]][0]) for n, i in enumerate(ids[2:]))
    store.put_selection(query, replace(build.selection(ids[2:]), hits=hits))
    store.record_items(query, [ItemStatus(key="k", status="done")])
    for i in ids[2:]:
        said = Feedback(selection="query", image_id=i, accepted=True, group="g", box=(0, 0, 1, 1))
        store.put_feedback(query, [said])
    synthesize = store.begin_run("synthesize", config={}, models=["f" * 64], config_key="y")
    samples = [
        store.put_sample(synthesize, made)
        for made in (
            sample(store, f"y{ids[0]}", scene=ids[1], exemplar=ids[0], outcome=outcomes[ids[0]][0]),
            sample(store, "y-own", scene=ids[1], exemplar=ids[1]),
        )
    ]
    store.record_items(
        synthesize, [ItemStatus(key=k, status="done", image_id=ids[1]) for k in (f"y{ids[0]}", "y-own")]
    )
    verify = store.begin_run("verify", config={}, scope="proof", facts={"trials": ["t"]})
    store.put_trial(verify, Trial(verification="proof", arm="query", seed=0, metrics={}, key="t"))
    store.record_items(verify, [ItemStatus(key="t", status="done")])
    version = DatasetVersion(
        name="v", image_ids=tuple(ids), sample_ids=tuple(samples), manifest={"images": {}}, key="v"
    )
    store.put_version(verify, version)
    for number in (run, detect, diagnose, explain, index, query, synthesize, verify):
        store.finish_run(number, status="done", counts={})
    return {"ids": ids, "boxes": boxes, "outcomes": outcomes, "samples": samples, "model": model}


def sample(
    store: Store, key: str, scene: int, exemplar: int | None = None, outcome: int | None = None
) -> Sample:
    """A sample that was accepted."""
    return Sample(
        name="synthesis",
        blob=store.put_blob(key.encode()),
        width=4,
        height=4,
        recipe="culprit",
        group="g",
        scene_image_id=scene,
        exemplar_image_id=exemplar,
        outcome_id=outcome,
        painted=(0, 0, 1, 1),
        annotations=(),
        seed=0,
        key=key,
        verdicts=(Verdict(check="seam", accepted=True, value=0.1, bound=1.0, reason=""),),
    )


def test_every_reference_to_what_goes_is_an_index_lookup(store: Store) -> None:
    """Deleting a row must not scan the tables that may refer to it."""
    large = {"images", "outcomes", "samples", "annotation_versions", "annotations", "attributions"}
    large |= {"segmentations", "selections"}
    known = {(table(model).name, column) for model, column in UNINDEXED}
    with store._database.reading() as connection:
        look = inspect(connection)
        scanned = set()
        for name in Base.metadata.tables:
            leading = {index["column_names"][0] for index in look.get_indexes(name) if index["column_names"]}
            leading |= {found["column_names"][0] for found in look.get_unique_constraints(name)}
            leading.add(look.get_pk_constraint(name)["constrained_columns"][0])
            for key in look.get_foreign_keys(name):
                [column] = key["constrained_columns"]
                if key["referred_table"] in large and column not in leading:
                    scanned.add((name, column))
    assert scanned == known


def test_an_image_goes_with_all_that_is_its(store: Store, full: dict[str, Any]) -> None:
    ids = full["ids"]
    plan = store.plan_images(ids[:1], EVERY)
    before = rows(store)
    begin(store)
    gone = store.remove_images(ids[:1], EVERY)
    after = rows(store)
    lost = {name: before[name] - after[name] for name in before if name not in ("runs",)}
    assert {name: count for name, count in lost.items() if count} == {
        "images": 1,
        "memberships": 1,
        "annotation_versions": 1,
        "annotations": 1,
        "detections": 1,
        "outcomes": 2,
        "outcome_items": 2,
        "attributions": 2,
        "regions": 2,
        "segmentations": 1,
        "indexed_images": 2,
        "samples": 1,
        "verdicts": 1,
        "items": 5,
    }
    assert gone == {name: count for name, count in lost.items() if count}
    assert plan.counts == {n: c for n, c in gone.items() if n not in ("annotations", "tags")}
    assert (plan.unlinked, plan.kept, plan.selections) == (1, 0, {})
    assert [(v.name, v.images, v.samples) for v in plan.versions] == [("v", 1, 1)]
    assert plan.spaces == ("s",)
    assert {o.image_id for o in store.outcomes()} == {ids[1]}
    assert [hit.outcome_id for hit in store.selection("query").hits] == [None, full["outcomes"][ids[1]][0]]
    assert store.selection("query").key != "k"
    assert [s.key for s in store.samples(name="synthesis")] == ["y-own"]
    assert store.done_keys("synthesize", [f"y{ids[0]}", "y-own"]) == {"y-own"}
    assert sound(store)
    assert store.remove_images(ids[:1], EVERY) == {}


def test_objects_of_hidden_labels_are_not_counted(store: Store, full: dict[str, Any]) -> None:
    counts = store.plan_images(full["ids"], EVERY).counts
    assert "annotations" not in counts
    assert "tags" not in counts


def test_a_pool_image_takes_its_hits_along(store: Store, full: dict[str, Any]) -> None:
    pool = full["ids"][2:]
    which = MembershipFilter(role="pool", dataset="pool")
    assert store.images_of(which) == pool
    plan = store.plan_images(pool, which)
    assert plan.selections == {"query": 2}
    assert plan.spaces == ()
    begin(store)
    gone = store.remove_images(pool, which)
    assert (gone["hits"], gone["feedback"], gone["datasets"], gone["dataset_classes"]) == (2, 2, 1, 2)
    assert gone["categories"] == 2  # bus and tram: nothing names them any more
    assert [c.name for c in store.categories()] == ["car"]
    assert store.selection("query").hits == ()
    assert sound(store)


def test_an_image_stays_where_it_has_another_part(store: Store, run: int, build: Any) -> None:
    for role, dataset in (("pool", "a"), ("train", "b")):
        store.add_images(run, [build.image(1, role, dataset=dataset)])
    [own] = store.image_ids(role="pool")
    which = MembershipFilter(role="pool")
    assert store.plan_images([own], which).kept == 1
    begin(store)
    assert store.remove_images([own], which) == {"memberships": 1, "datasets": 1}
    assert (store.image_ids(role="pool"), store.image_ids(role="train")) == ([], [own])
    assert store.remove_images([own], MembershipFilter(dataset="nobody")) == {}
    assert store.image_ids(role="train") == [own]


def test_ids_never_come_back(store: Store, full: dict[str, Any], build: Any) -> None:
    ids, run = full["ids"], begin(store)
    store.remove_images(ids, EVERY)
    for round_ in range(2):
        [added] = store.add_images(run, [build.image(90 + round_, "mine")])
        assert added.image_id > max(ids)
        assert added.created
        [outcome] = store.put_outcomes(
            run, added.image_id, [build.outcome(added.image_id, full["model"], f"n{round_}")], item_key="n"
        )
        assert outcome > max(full["outcomes"][ids[1]])
        made = store.put_sample(run, sample(store, f"z{round_}", scene=added.image_id))
        assert made > max(full["samples"])
        ids.append(added.image_id)
        begin(store)
        store.remove_images([added.image_id], EVERY)


def test_no_query_gets_a_removed_image(store: Store, full: dict[str, Any], build: Any) -> None:
    ids, boxes = full["ids"], full["boxes"]
    everything = store.box_rows("s", np.arange(12))
    with Store.open(store.path) as other:  # knows the old places
        equal(other.boxes("s", "offered"), BoxRows.of(list(boxes.values())))
        run = begin(store)
        store.remove_images([ids[1], ids[3]], EVERY)
        for reader in (store, other):
            kept = [boxes[ids[0]], boxes[ids[2]]]
            equal(reader.boxes("s", "offered"), BoxRows.of(kept))
            assert len(reader.boxes("s", "outcomes")) == 3
            assert reader.box_ranges("s")[0].tolist() == [ids[0], ids[2]]
            assert [set(r.image_ids) for r in reader.scan_boxes("s", role=None)] == [{ids[0], ids[2]}]
            assert reader.box_end("s") == 12
            again = reader.box_rows("s", np.arange(12))  # what FAISS was built of stays as it was
            for name in ("labels", "scores"):
                np.testing.assert_array_equal(getattr(again, name), getattr(everything, name))
            np.testing.assert_array_equal(again.views["object"], everything.views["object"])
            assert again.image_ids.tolist() == [ids[0]] * 3 + [-1] * 3 + [ids[2]] * 3 + [-1] * 3
    [late] = store.add_images(run, [build.image(3, "pool", dataset="pool")])
    new = build.boxes(late.image_id, "b-late", seed=77)
    store.put_boxes(run, "s", "offered", [new])
    equal(store.boxes("s", "offered", image_ids=[late.image_id]), BoxRows.of([new]))
    assert store.box_ranges("s")[1].tolist() == [0, 6, 12]
    with Store.open(store.path) as other:
        equal(other.boxes("s", "offered", image_ids=[late.image_id]), BoxRows.of([new]))


def test_compaction_keeps_what_is_there(store: Store, full: dict[str, Any], build: Any) -> None:
    ids, boxes, run = full["ids"], full["boxes"], begin(store)
    store.remove_images(ids[:1], EVERY)
    assert store.dead_vectors() == {}
    store.remove_images([ids[1], ids[3]], EVERY)
    size = folder_size(store.space_folder("s"))
    freed = store.dead_vectors()
    assert 0.7 * size < freed["s"] < size
    old = store.space_folder("s")
    assert store.compact_vectors() == freed
    assert store.dead_vectors() == {}
    assert not old.exists()
    assert folder_size(store.space_folder("s")) <= size - freed["s"] + 8
    kept = boxes[ids[2]]
    equal(store.boxes("s", "offered"), BoxRows.of([kept]))
    assert len(store.boxes("s", "outcomes")) == 0
    store.put_boxes(run, "s", "offered", [kept])  # known by its key
    [late] = store.add_images(run, [build.image(3, "pool", dataset="pool")])
    new = build.boxes(late.image_id, "b-late", seed=77)
    store.put_boxes(run, "s", "offered", [new])
    with Store.open(store.path) as other:
        equal(other.boxes("s", "offered"), BoxRows.of([kept, new]))
    assert sound(store)
    store.remove_images([ids[2], late.image_id], EVERY)
    assert store.compact_vectors().keys() == {"s"}
    assert len(store.boxes("s", "offered")) == 0


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_selection_a_verification_samples_and_a_space(
    store: Store, full: dict[str, Any], build: Any
) -> None:
    begin(store)
    assert store.removable() == {
        "dataset": ["field", "pool"],
        "selection": ["query"],
        "feedback": ["query"],
        "samples": ["synthesis"],
        "verification": ["proof"],
        "index": ["s"],
    }
    assert store.plan_selection("query").counts == {"selections": 1, "hits": 2, "feedback": 2, "items": 1}
    assert store.remove_selection("query") == {"selections": 1, "hits": 2, "feedback": 2, "items": 1}
    assert store.plan_verification("proof").counts == {"trials": 1, "items": 1}
    assert store.remove_verification("proof") == {"trials": 1, "items": 1}
    assert store.runs(stage="verify")[0].facts == {}
    some = full["samples"][:1]
    assert [v.samples for v in store.plan_samples(some).versions] == [1]
    assert store.remove_samples(some) == {"samples": 1, "verdicts": 1, "items": 1}
    assert store.remove_samples(name="synthesis")["samples"] == 1
    folder = store.space_folder("s")
    assert store.plan_spaces(["s"]).counts == {"indexed_images": 6, "items": 4, "spaces": 1}
    gone = store.remove_spaces(["s"])
    assert (gone["spaces"], gone["indexed_images"]) == (1, 6)
    assert not folder.exists()
    store.create_space(store.begin_run("index", config={}), "s", build.shape)
    assert store.space_folder("s") != folder  # other processes may know the old one by its id
    assert len(store.boxes("s", "offered")) == 0
    assert sound(store)


def test_a_model_leaves_what_was_made_for_it(store: Store, full: dict[str, Any]) -> None:
    begin(store)
    plan = store.plan_model("python:x")
    before = rows(store)
    gone = store.remove_model("f" * 12)
    after = rows(store)
    assert gone == {n: before[n] - after[n] for n in before if before[n] != after[n]}
    shown = ("detections", "outcomes", "attributions", "regions", "indexed_images", "spaces", "models")
    assert {name: plan.counts[name] for name in shown} == {name: gone[name] for name in shown}
    assert gone["segmentations"] == 2
    assert (after["samples"], after["hits"], after["trials"]) == (2, 2, 1)
    assert [hit.outcome_id for hit in store.selection("query").hits] == [None, None]
    assert store.current_run("diagnose") is None
    assert store.outcomes() == []
    assert store.done_keys("detect", [f"d{i}" for i in full["ids"]]) == set()
    assert store.done_keys("synthesize", ["y-own"]) == {"y-own"}
    assert store.models() == []
    assert sound(store)


def test_large_removals_are_equal_in_batches(
    store: Store, full: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("BATCH", 2), ("CHUNK", 1), ("FEW", 0)):
        monkeypatch.setattr(f"store.removal.{name}", value)
    begin(store)
    gone = store.remove_images(full["ids"], EVERY)
    left = {name: count for name, count in rows(store).items() if count and name != "runs"}
    assert (gone["images"], gone["indexed_images"], gone["hits"]) == (4, 6, 2)
    assert left == {"models": 1, "spaces": 1, "selections": 1, "dataset_versions": 1, "trials": 1, "items": 2}
    assert sound(store)


def test_what_looks_alike_forgets_the_removed(store: Store, run: int, build: Any) -> None:
    new = [build.image(n, "mine", phash="0" * 16) for n in range(2)]
    one, two = (added.image_id for added in store.add_images(run, new))
    with Store.open(store.path) as other:
        assert other.near_duplicates([two], [one]) == {two: one}
        begin(store)
        store.remove_images([one], EVERY)
        [three] = store.add_images(run, [build.image(7, "mine", phash="0" * 16)])
        for reader in (store, other):
            assert reader.near_duplicates([two], [one, three.image_id]) == {two: three.image_id}


def test_what_goes_is_decided_without_other_images(store: Store, full: dict[str, Any]) -> None:
    assert store.known_images([0, *full["ids"], 999]) == full["ids"]
    assert dict(store.image_places())[full["ids"][0]] == "/images/0.png"
