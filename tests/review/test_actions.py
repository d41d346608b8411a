"""Every action is one request, and what it answers takes it back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from curator import pipeline
from curator.data.settings import ExportConfig
from curator.diagnose.settings import SuspectsConfig
from curator.errors import InputError
from curator.query.settings import QueryConfig
from store.errors import AccessError, ConflictError
from store.records import NewAnnotation
from store.store import Store
from tests.review.reviewed import HIDDEN, PAINTED


def post(client: TestClient, path: str, body: object) -> dict[str, Any]:
    answer = client.post(f"/api{path}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def undo(client: TestClient, answer: dict[str, Any]) -> dict[str, Any]:
    return post(client, answer["undo"]["path"], answer["undo"]["body"])


# ---------------------------------------------------------------- hits


def verdicts(client: TestClient) -> dict[int, str]:
    found = client.get("/api/queries/one", params={"name": "query"}).json()
    return {hit["image"]: hit["verdict"] for hit in found["hits"]}


def test_hits_are_accepted_rejected_and_left_open_again(client: TestClient, store: Store) -> None:
    first, second, *_ = store.selection("query").image_ids
    assert set(verdicts(client).values()) == {"open"}
    said = {first: "accepted", second: "rejected"}
    answer = post(client, "/feedback", {"selection": "query", "said": said})
    assert {i: w for i, w in verdicts(client).items() if w != "open"} == said
    assert {f.image_id: f.accepted for f in store.feedback("query")} == {first: True, second: False}
    changed = post(client, "/feedback", {"selection": "query", "said": {first: "rejected"}})
    assert verdicts(client)[first] == "rejected"
    undo(client, changed)
    assert verdicts(client)[first] == "accepted"
    undo(client, answer)
    assert set(verdicts(client).values()) == {"open"}


def test_strange_hits_are_refused(client: TestClient) -> None:
    for said in ({99999: "accepted"}, {"x": "accepted"}, {1: "maybe"}, {}):
        answer = client.post("/api/feedback", json={"selection": "query", "said": said})
        assert answer.status_code in (400, 422)
    nowhere = client.post("/api/feedback", json={"selection": "nowhere", "said": {1: "accepted"}})
    assert nowhere.status_code == 404
    assert "nowhere" in nowhere.json()["error"]


def refined(client: TestClient, budget: int) -> dict[str, Any]:
    post(client, "/queries/refine", {"selection": "query", "budget": budget})
    for _ in range(600):
        state = client.get("/api/queries").json()["refining"]
        if state["state"] != "running":
            return dict(state)
        time.sleep(0.1)
    pytest.fail("the refined query did not end")


def test_a_query_is_refined_and_taken_back(client: TestClient, store: Store) -> None:
    before = store.selection("query")
    first, second, *_ = before.image_ids
    post(client, "/feedback", {"selection": "query", "said": {first: "accepted", second: "rejected"}})
    state = refined(client, 6)
    assert state["state"] == "done"
    assert "learned from" in state["said"]
    after = store.selection("query")
    assert first in after.image_ids
    assert second not in after.image_ids
    assert len(after.hits) == 6
    undo(client, state)
    assert store.selection("query") == replace(before, id=store.selection("query").id)
    again = client.post("/api/queries/restore", json=state["undo"]["body"])
    assert again.status_code == 409


def test_a_refusal_to_refine_is_told(client: TestClient) -> None:
    state = refined(client, 6)
    assert state["state"] == "failed"
    assert "fill the budget" in state["said"]


def test_hits_show_no_hidden_labels(client: TestClient, store: Store) -> None:
    texts = [client.get("/api/queries").text, client.get("/api/queries/one?name=query").text]
    texts += [client.get(f"/api/failures/{o.id}").text for o in store.outcomes()]
    assert not any(HIDDEN in text for text in texts)
    for image in store.image_ids(role="pool"):
        answer = client.get(f"/api/labels/{image}")
        assert answer.status_code == 403
        assert HIDDEN not in answer.text
        assert client.post(f"/api/labels/{image}", json={"base": 1, "boxes": []}).status_code == 403


# ---------------------------------------------------------------- samples


def test_a_person_decides_about_samples(client: TestClient, store: Store) -> None:
    samples = store.samples()
    passed = next(s for s in samples if s.passed)
    answer = post(client, "/samples/judge", {"said": {passed.id: "rejected"}})
    found = {s.id: s for s in store.samples()}
    assert len(found) == len(samples)
    assert (found[passed.id].accepted, found[passed.id].passed) == (False, True)
    assert found[passed.id].person is not None
    assert found[passed.id].person.reason == "rejected by ada"
    shown = {s["id"]: s for s in client.get("/api/samples").json()["samples"]}
    assert (shown[passed.id]["accepted"], shown[passed.id]["said"]) == (False, "rejected")
    undo(client, answer)
    assert store.samples() == samples


def test_a_persons_word_changes_no_batch(client: TestClient, store: Store) -> None:
    samples = store.samples()
    every = {s.id: "accepted" for s in samples}
    post(client, "/samples/judge", {"said": every})
    assert [s.id for s in store.samples()] == [s.id for s in samples]
    assert all(s.accepted for s in store.samples())
    again = pipeline.synthesize(store, PAINTED)
    assert again.done == 0
    assert [s.id for s in store.samples()] == [s.id for s in samples]


def test_rejected_samples_are_not_exported(client: TestClient, store: Store, tmp_path: Path) -> None:
    every = {s.id: "rejected" for s in store.samples()}
    post(client, "/samples/judge", {"said": every})
    chosen = ExportConfig(format="coco", out=tmp_path / "out", samples=("synthesis",))
    with pytest.raises(InputError, match="none of them accepted"):
        pipeline.export(store, chosen)


def test_sample_pictures_are_there(client: TestClient, store: Store) -> None:
    number = store.samples()[0].id
    paths = ("picture", "before", "crop", "crop?was=true&side=64")
    pictures = [client.get(f"/api/samples/{number}/{path}") for path in paths]
    assert [p.status_code for p in pictures] == [200] * 4
    assert len({p.content for p in pictures}) == 4
    assert client.get("/api/samples/99999/picture").status_code == 404
    assert client.post("/api/samples/judge", json={"said": {99999: "accepted"}}).status_code == 404


# ---------------------------------------------------------------- labels


def mined(store: Store) -> int:
    """A mined image with two labels or more."""
    ids = store.image_ids(role="mine")
    labels = store.annotations(ids, reader="diagnose")
    return next(i for i in ids if len(labels[i].annotations) >= 2)


def test_boxes_are_edited_as_a_new_version(client: TestClient, store: Store) -> None:
    image = mined(store)
    before = store.annotations([image], reader="diagnose")[image]
    own = client.get(f"/api/labels/{image}").json()
    assert [box["class"] for box in own["boxes"]] == [a.category for a in before.annotations]
    moved, *others = own["boxes"]
    moved["box"] = [2, 3, 22, 33]
    moved["class"] = others[-1]["class"]
    new = {"class": "unheard of", "box": [0, 0, 10, 10], "of": None}
    answer = post(client, f"/labels/{image}", {"base": own["version"], "boxes": [moved, new]})
    after = store.annotations([image], reader="diagnose")[image]
    assert (after.version, after.status) == (before.version + 1, "human")
    assert [(a.category, a.box) for a in after.annotations] == [
        (moved["class"], (2, 3, 22, 33)),
        ("unheard of", (0, 0, 10, 10)),
    ]
    assert after.annotations[0].attributes == before.annotations[0].attributes
    versions = client.get(f"/api/labels/{image}").json()["versions"]
    assert (versions[0]["version"], versions[0]["author"], versions[0]["objects"]) == (2, "ada", 2)
    assert versions[0]["made"]
    undo(client, answer)
    back = store.annotations([image], reader="diagnose")[image]
    assert back.version == 3
    assert [(a.category, a.box) for a in back.annotations] == [
        (a.category, a.box) for a in before.annotations
    ]
    assert back.classes == before.classes


def test_edited_labels_make_the_diagnosis_stale(client: TestClient, store: Store) -> None:
    image = mined(store)
    own = client.get(f"/api/labels/{image}").json()
    post(client, f"/labels/{image}", {"base": own["version"], "boxes": own["boxes"][1:]})
    stages = {s["stage"]: s for s in client.get("/api/overview").json()["stages"]}
    assert stages["diagnose"]["state"] == "stale"
    assert "labels edited since" in stages["diagnose"]["why"]


def test_two_people_do_not_overwrite_each_other(client: TestClient, store: Store) -> None:
    image = mined(store)
    own = client.get(f"/api/labels/{image}").json()
    body = {"base": own["version"], "boxes": own["boxes"][:1]}
    post(client, f"/labels/{image}", body)
    late = client.post(f"/api/labels/{image}", json={**body, "boxes": []})
    assert late.status_code == 409
    assert "changed meanwhile" in late.json()["error"]
    run = store.begin_run("label", config={})
    with pytest.raises(ConflictError):
        store.put_labels(run, image, [], own["version"])
    assert len(store.annotations([image], reader="diagnose")[image].annotations) == 1


@pytest.mark.parametrize(
    "box",
    [
        {"class": "a", "box": [0, 0, 0.5, 9]},
        {"class": "a", "box": [-9, 0, 9, 9]},
        {"class": "a", "box": [0, 0, 9, 1e6]},
        {"class": "a", "box": [9, 9, 0, 0]},
        {"class": "", "box": [0, 0, 9, 9]},
        {"class": " ", "box": [0, 0, 9, 9]},
        {"class": "a\nb", "box": [0, 0, 9, 9]},
        {"class": "a", "box": [0, 0, 9]},
        {"class": "a", "box": [0, 0, 9, 9], "of": 99999},
    ],
)
def test_boxes_that_are_none_are_refused(client: TestClient, store: Store, box: dict[str, Any]) -> None:
    image = mined(store)
    answer = client.post(f"/api/labels/{image}", json={"base": 1, "boxes": [box]})
    assert answer.status_code in (400, 422), answer.text
    assert store.annotations([image], reader="diagnose")[image].version == 1


def test_a_polygon_follows_its_box(client: TestClient, store: Store) -> None:
    image = mined(store)
    ring = ((10.0, 10.0, 20.0, 10.0, 20.0, 30.0),)
    shape = NewAnnotation(category="a", box=(10, 10, 20, 30), polygon=ring, difficult=True)
    store.put_labels(store.begin_run("label", config={}), image, [shape], 1)
    (own,) = client.get(f"/api/labels/{image}").json()["boxes"]
    post(client, f"/labels/{image}", {"base": 2, "boxes": [{**own, "box": [20, 10, 40, 30]}]})
    (after,) = store.annotations([image], reader="diagnose")[image].annotations
    assert after.polygon == ((20.0, 10.0, 40.0, 10.0, 40.0, 30.0),)
    assert after.difficult


def test_held_out_labels_are_neither_shown_nor_edited(client: TestClient, store: Store) -> None:
    run = store.begin_run("label", config={})
    for image in store.image_ids(role="holdout"):
        assert client.get(f"/api/labels/{image}").status_code == 403
        assert client.post(f"/api/labels/{image}", json={"base": 1, "boxes": []}).status_code == 403
        with pytest.raises(AccessError, match="in the holdout"):
            store.put_labels(run, image, [], 1)


# ---------------------------------------------------------------- suspects


@pytest.fixture
def _suspected(store: Store) -> None:
    """Labels were looked at; of so few data nearly all are suspects."""
    pipeline.suspects(store, SuspectsConfig(minimum=0.05))


@pytest.mark.usefixtures("_suspected")
def test_suspects_are_confirmed_cleared_and_left_open_again(client: TestClient, store: Store) -> None:
    listed = client.get("/api/suspects").json()["suspects"]
    first, second = listed[0]["id"], listed[1]["id"]
    answer = post(client, "/suspects/say", {"said": {first: "confirmed", second: "cleared"}})

    def said() -> dict[int, str]:
        found = client.get("/api/suspects").json()["suspects"]
        return {s["id"]: s["verdict"] for s in found if s["verdict"] != "open"}

    assert said() == {first: "confirmed", second: "cleared"}
    undo(client, answer)
    assert said() == {}
    assert client.post("/api/suspects/say", json={"said": {99999: "cleared"}}).status_code == 400


def test_what_was_said_of_suspects_is_forgotten_by_queries_too(store: Store) -> None:
    listed = pipeline.suspects(store, SuspectsConfig(minimum=0.05)).summary["suspects"]
    ids = tuple(s["id"] for s in listed)
    pipeline.suspects(store, SuspectsConfig(minimum=0.05, clear=ids))
    cleared = pipeline.query(store, QueryConfig(failures="FN", budget=3, name="c", device="cpu"))
    assert cleared.summary["left_out"] is None
    pipeline.suspects(store, SuspectsConfig(minimum=0.05, forget=ids))
    with pytest.raises(InputError, match="look like label errors"):
        pipeline.query(store, QueryConfig(failures="FN", budget=3, name="c", device="cpu"))


@pytest.mark.usefixtures("_suspected")
def test_a_suspect_label_is_mended_and_the_mending_undone(client: TestClient, store: Store) -> None:
    listed = client.get("/api/suspects").json()["suspects"]
    own = next(s for s in listed if s["mend"])
    before = store.annotations([own["image"]], reader="diagnose")[own["image"]]
    answer = post(client, "/suspects/mend", {"suspect": own["id"]})
    after = store.annotations([own["image"]], reader="diagnose")[own["image"]]
    assert after.version == before.version + 1
    assert after.annotations != before.annotations
    shown = {s["id"]: s for s in client.get("/api/suspects").json()["suspects"]}
    assert shown[own["id"]]["gone"]
    assert client.post("/api/suspects/mend", json={"suspect": own["id"]}).status_code == 400
    undo(client, answer)
    shown = {s["id"]: s for s in client.get("/api/suspects").json()["suspects"]}
    assert not shown[own["id"]]["gone"]


# ---------------------------------------------------------------- proof


def test_proof_shows_the_reports_tables_and_the_gallery_alone(client: TestClient, store: Store) -> None:
    found = client.get("/api/proof").json()
    assert found["tables"][0]["title"] == "Verification on the holdout: verify"
    assert [row[0] for row in found["tables"][0]["rows"]] == ["base", "nothing", "query"]
    for crop in found["gallery"]:
        assert client.get(f"/api/gallery/{crop['blob']}").headers["content-type"] == "image/png"
    other = store.samples()[0].blob
    assert client.get(f"/api/gallery/{other}").status_code == 404


def test_groups_that_are_too_small_to_tell_are_left_out(client: TestClient, store: Store) -> None:
    outcome = store.outcomes(kind="FN")[0]
    asked = {"class": outcome.category, "cause": outcome.cause}
    assert client.get("/api/proof/groups", params=asked).json() == {"groups": []}
