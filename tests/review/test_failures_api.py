"""Failures as the page reads them: pages, filters, neighbours, one failure, pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from curator.detect.settings import DetectConfig
from store.records import OutcomeFilter
from store.store import Store

SORTS = ["score", "-score", "size", "-size", "iou", "image"]


def walked(client: TestClient, sort: str, step: int) -> list[int]:
    """All failures by the places of their pages."""
    found = client.get("/api/failures/places", params={"sort": sort, "step": step}).json()
    ids = []
    for value, number in found["places"]:
        at = f"{value!r},{number}"
        page = client.get("/api/failures", params={"sort": sort, "limit": step, "at": at}).json()
        ids += [own["id"] for own in page["failures"]]
    assert len(ids) == found["total"]
    return ids


@pytest.mark.parametrize("sort", SORTS)
def test_pages_hold_every_failure_once_and_in_order(client: TestClient, store: Store, sort: str) -> None:
    ids = walked(client, sort, 4)
    of = {o.id: o for o in store.outcomes() if o.kind != "TP"}
    assert sorted(ids) == sorted(i for i in of if i is not None)

    def value(number: int) -> float:
        own = of[number]
        x1, y1, x2, y2 = own.box
        area = (x2 - x1) * (y2 - y1)
        named = {"score": own.score, "size": area, "iou": own.iou, "image": own.image_id}
        return float(named[sort.removeprefix("-")])

    down = not sort.startswith("-") and sort != "image"
    assert ids == sorted(ids, key=lambda i: (-value(i) if down else value(i), i))


def test_neighbours_walk_the_same_way(client: TestClient) -> None:
    ids = walked(client, "size", 60)
    at, seen = ids[0], [ids[0]]
    while (after := client.get(f"/api/failures/{at}", params={"sort": "size"}).json()["after"]) is not None:
        assert client.get(f"/api/failures/{after}", params={"sort": "size"}).json()["before"] == at
        seen.append(after)
        at = after
    assert seen == ids


def test_filters_choose(client: TestClient, store: Store) -> None:
    counts = client.get("/api/failures/counts").json()["counts"]
    assert sum(own["number"] for own in counts) == len(store.outcomes())
    for own in counts:
        wanted = {name: own[name] for name in ("kind", "cause", "class") if own[name] is not None}
        found = client.get("/api/failures", params=wanted).json()["failures"]
        assert len(found) == own["number"]
        assert {(f["kind"], f["cause"], f["class"]) for f in found} == {
            (own["kind"], own["cause"], own["class"])
        }
    two = sorted({own["class"] for own in counts if own["kind"] == "FN"})[:2]
    both = client.get("/api/failures/places", params={"kind": "FN", "class": two}).json()["total"]
    assert both == sum(o["number"] for o in counts if o["kind"] == "FN" and o["class"] in two)


def test_one_failure_says_everything(client: TestClient, store: Store) -> None:
    selection = store.selection("query")
    asked = next(hit for hit in selection.hits if hit.outcome_id is not None)
    found = client.get(f"/api/failures/{asked.outcome_id}").json()
    (outcome,) = store.outcomes(ids=[asked.outcome_id or 0])
    labels = store.annotations([outcome.image_id], reader="diagnose")[outcome.image_id]
    assert [t["class"] for t in found["truth"]] == [a.category for a in labels.annotations]
    stored = store.detections(outcome.model_id, [outcome.image_id])[outcome.image_id].detections
    assert len(found["detections"]) == len(stored)
    assert found["floor"] == DetectConfig.score_floor
    assert all(d["score"] >= found["floor"] for d in found["detections"])
    (hit,) = [h for h in found["hits"] if h["image"] == asked.image_id]
    assert (hit["selection"], hit["rank"]) == ("query", asked.rank)
    explained = found["explanations"][0]
    (attribution,) = store.attributions(outcome_ids=[outcome.id or 0])
    assert explained["current"]
    assert explained["method"] == "e2x"
    assert explained["full"] == pytest.approx(attribution.map.full)
    assert {r["kind"] for r in explained["regions"]} <= {"object", "support", "culprit"}


def test_a_sample_is_shown_with_the_failure_that_it_was_made_of(client: TestClient, store: Store) -> None:
    sample = store.samples()[0]
    found = client.get(f"/api/failures/{sample.outcome_id}").json()
    assert sample.id in [own["id"] for own in found["samples"]]


def test_the_heat_map_lies_over_the_image(client: TestClient, store: Store) -> None:
    outcome = next(o for o in store.outcomes(kind="FN") if store.attributions(outcome_ids=[o.id or 0]))
    answer = client.get(f"/api/failures/{outcome.id}/heat")
    assert answer.headers["content-type"] == "image/png"
    layer = np.asarray(Image.open(io.BytesIO(answer.content)))
    (image,) = store.images(reader="report", ids=[outcome.image_id])
    assert layer.shape == (image.height, image.width, 4)
    assert layer[..., 3].max() == 255
    assert layer[..., 3].min() < 128


def test_a_crop_shows_the_box_in_its_colour(client: TestClient, store: Store) -> None:
    outcome = store.outcomes(kind="FN")[0]
    box = ",".join(map(str, outcome.box))
    address = f"/api/images/{outcome.image_id}/crop"
    framed = client.get(address, params={"box": box, "kind": "FN", "side": 128})
    plain = client.get(address, params={"box": box, "side": 128})
    shapes = [np.asarray(Image.open(io.BytesIO(a.content))).astype(int) for a in (framed, plain)]
    assert max(shapes[0].shape[:2]) == 128
    changed = np.abs(shapes[0] - shapes[1]).sum(-1) > 90
    assert 0.01 < changed.mean() < 0.35
    assert "immutable" in framed.headers["cache-control"]


@pytest.mark.parametrize("box", ["", "1,2,3", "a,b,c,d", "5,5,1,1", "nan,0,1,1", "0,0,1e99,1"])
def test_a_crop_needs_a_box(client: TestClient, box: str) -> None:
    answer = client.get("/api/images/1/crop", params={"box": box})
    assert answer.status_code == 400
    assert "box" in answer.json()["error"]


def test_what_is_not_there_is_said(client: TestClient) -> None:
    assert client.get("/api/failures/99999").status_code == 404
    assert client.get(f"/api/failures/{2**80}").status_code == 404
    assert client.get("/api/images/99999/picture").status_code == 404
    assert client.get("/api/failures", params={"sort": "'; DROP TABLE runs"}).status_code == 422
    assert client.get("/api/failures", params={"at": "1;2"}).status_code == 400
    assert client.get("/api/failures", params={"limit": 10**9}).status_code == 422


def test_overview_says_what_to_do_next(client: TestClient, store: Store) -> None:
    found = client.get("/api/overview").json()
    assert found["counts"]["failures_FN"] == len(store.outcomes(kind="FN"))
    state = {stage["stage"]: stage["state"] for stage in found["stages"]}
    assert state == dict.fromkeys(state, "done")
    assert "6 hits of 'query' wait" in found["next"][0]["why"]
    run = store.begin_run("explain", config={}, scope="another", config_key="another")
    store.finish_run(run, status="done", counts={})
    stale = {s["stage"]: s["why"] for s in client.get("/api/overview").json()["stages"]}
    assert stale["index"] == f"explained since, run {run}"
    assert stale["diagnose"] == ""


def test_an_empty_workspace_is_told_how_to_begin(tmp_path_factory: pytest.TempPathFactory) -> None:
    from curator.review.app import create_app

    with Store.create(tmp_path_factory.mktemp("empty") / "ws") as empty:
        app = create_app(empty, token="t", hosts=["testserver"], author="ada")
        with TestClient(app, base_url="http://testserver") as client:
            client.get("/?token=t")
            found = client.get("/api/overview").json()
            assert "add coco" in found["next"][0]["command"]
            assert client.get("/api/failures/places").json() == {"total": 0, "step": 60, "places": []}


def test_places_and_pages_of_the_store_agree(store: Store) -> None:
    total, places = store.outcome_places(OutcomeFilter(kinds=("FN",)), "score", 3)
    assert len(places) == -(-total // 3)
    last = store.outcome_page(OutcomeFilter(kinds=("FN",)), "score", limit=2, backwards=True)
    first = store.outcome_page(OutcomeFilter(kinds=("FN",)), "score", limit=total)
    assert [o.id for o in last] == [o.id for o in first[::-1][:2]]
