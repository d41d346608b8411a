"""One small workspace, made once; tests that change it get a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install 'curator[review]'")

from starlette.testclient import TestClient

from curator.review.app import create_app
from store.store import Store
from tests.review.reviewed import TOKEN, copied, make_reviewed

HOST = "127.0.0.1:8765"


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace; not to be changed."""
    return make_reviewed(tmp_path_factory.mktemp("reviewed"))


@pytest.fixture
def store(reviewed: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy that a test may change."""
    with Store.open(copied(reviewed, tmp_path)) as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    """A browser that was given the token."""
    app = create_app(store, token=TOKEN, hosts=[HOST, "localhost:8765"], author="ada")
    with TestClient(app, base_url=f"http://{HOST}", headers={"origin": f"http://{HOST}"}) as client:
        assert client.get("/", params={"token": TOKEN}).status_code == 200
        yield client
