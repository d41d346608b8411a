"""The map of the page: PCA of what the index holds, against scikit-learn's, and circled pool images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from starlette.testclient import TestClient

from curator.review.embedding import PER_IMAGE, SIDE, plane, spaced
from store.store import Store


def test_the_plane_is_that_of_pca() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 12)) * np.arange(1, 13)
    found, kept = plane(vectors)
    pca = PCA(2).fit(vectors)
    wanted = pca.transform(vectors)
    for axis in range(2):
        assert abs(np.corrcoef(found[:, axis], wanted[:, axis])[0, 1]) > 0.995  # ends are cut off
    assert kept == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)
    assert found.min() == 0
    assert found.max() == SIDE
    for few in (np.zeros((0, 3)), np.ones((1, 3)), np.ones((5, 1)), np.ones((5, 3))):
        assert plane(few)[0].shape == (len(few), 2)


def test_ids_are_drawn_evenly() -> None:
    assert spaced([3, 4, 5], 5) == [3, 4, 5]
    assert spaced(list(range(100)), 3) == [0, 49, 99]


def test_the_map_holds_what_was_diagnosed_and_the_pool(client: TestClient, store: Store) -> None:
    found = client.get("/api/map").json()
    kinds = [found["kinds"][kind] for kind in found["kind"]]
    outcomes = store.outcomes()
    for kind in ("FN", "FP", "TP"):
        numbers = {n for n, own in zip(found["number"], kinds, strict=True) if own == kind}
        assert numbers == {o.id for o in outcomes if o.kind == kind}
    pool = [n for n, own in zip(found["number"], kinds, strict=True) if own == "pool"]
    assert set(pool) <= set(store.image_ids(role="pool"))
    assert max(pool.count(image) for image in pool) <= PER_IMAGE
    point = client.get("/api/map/points/0").json()
    assert point["kind"] == kinds[0]
    assert client.get("/api/map/points/99999").status_code == 400
    held = store.image_ids(role="holdout")[:1]
    for asked in ({"name": "a", "images": held}, {"name": "query", "images": pool[:1]}):
        assert client.post("/api/map/select", json=asked).status_code in (400, 409)
    kept = client.post("/api/map/select", json={"name": "circled", "images": pool}).json()
    assert set(store.selection("circled").image_ids) == set(pool)
    undone = client.post(f"/api{kept['undo']['path']}", json=kept["undo"]["body"])
    assert undone.status_code == 200
    assert "circled" not in [s.name for s in store.selections()]
