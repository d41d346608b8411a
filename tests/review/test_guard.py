"""Who is refused: no token, another site, another name of this machine, paths that lead out, too much."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from curator.errors import InputError
from curator.review import guard
from curator.review.app import create_app
from curator.review.server import bind, hosts_of
from store.store import Store
from tests.review.reviewed import EVIL, HIDDEN, TOKEN, served

HOST = "127.0.0.1:8765"
HERE = {"origin": f"http://{HOST}"}
ADDRESSES = ["/", "/failures", "/api/overview", "/api/failures", "/static/js/main.js", "/api/openapi.json"]


@pytest.fixture(scope="module")
def opened(reviewed: Path) -> Iterator[Store]:
    with Store.open(reviewed) as store:
        yield store


@pytest.fixture
def stranger(opened: Store) -> Iterator[TestClient]:
    """A browser without the token."""
    app = create_app(opened, token=TOKEN, hosts=[HOST], author="ada")
    with TestClient(app, base_url=f"http://{HOST}", follow_redirects=False) as client:
        yield client


@pytest.fixture
def known(stranger: TestClient) -> TestClient:
    stranger.get("/", params={"token": TOKEN})
    return stranger


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "é"])
def test_without_the_token_nothing_is_told(stranger: TestClient, address: str, token: str | None) -> None:
    answer = stranger.get(address, params={} if token is None else {"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    stranger.cookies.set("curator-review", "wrong")
    assert stranger.get(address).status_code == 403


def test_the_token_in_an_address_becomes_a_strict_cookie(stranger: TestClient) -> None:
    answer = stranger.get("/failures", params={"token": TOKEN})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert stranger.get("/api/overview").status_code == 200
    assert stranger.get("/api/overview", params={"token": "wrong"}).status_code == 200  # the cookie counts


def test_the_token_does_not_open_the_api_by_address(stranger: TestClient) -> None:
    assert stranger.get("/api/overview", params={"token": TOKEN}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1:8765.evil.example"},
        {"host": "127.0.0.1"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8765"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_another_site_is_refused(known: TestClient, headers: dict[str, str]) -> None:
    assert known.get("/api/overview", headers=headers).status_code == 403


def test_a_change_needs_this_origin_and_json(known: TestClient) -> None:
    body = b'{"selection": "query", "images": [], "verdict": "accepted"}'
    json = {"content-type": "application/json"}
    assert known.post("/api/feedback", content=body, headers=json).status_code == 403
    evil = {"origin": "http://evil.example", **json}
    assert known.post("/api/feedback", content=body, headers=evil).status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = known.post("/api/feedback", content=body, headers={**HERE, "content-type": kind})
        assert answer.status_code == 415


@pytest.mark.parametrize("address", [*ADDRESSES, "/nowhere", "/api/failures/99999"])
def test_every_answer_forbids_what_is_from_elsewhere(known: TestClient, address: str) -> None:
    headers = known.get(address).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


PATHS = [
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e/app.py",
    "/static/..%5capp.py",
    "/static//etc/passwd",
    "/static/js/../../../../../pyproject.toml",
    "/api/images/..%2f..%2fetc%2fpasswd/picture",
    "/api/samples/1%2f..%2f2/crop",
    "/api/gallery/..%2fcurator.db",
]


def test_no_path_leads_out(opened: Store) -> None:
    with served(opened) as address:
        host, port = address.split("/")[2].split(":")
        for path in PATHS:
            cookie = f"Cookie: curator-review={TOKEN}\r\nConnection: close"
            request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{cookie}\r\n\r\n"
            status, answer = raw(int(port), request.encode())
            assert status in (400, 404, 422), (path, answer)
            assert b"create_app" not in answer
            assert b"root:" not in answer


def raw(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and bytes of an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(request)
        answer = b""
        while part := line.recv(65536):
            answer += part
    return int(answer.split()[1]), answer


def test_a_huge_request_is_refused(known: TestClient) -> None:
    large = b'{"a": "' + b"x" * (guard.MOST_BYTES + 10) + b'"}'
    headers = {**HERE, "content-type": "application/json"}
    assert known.post("/api/feedback", content=large, headers=headers).status_code == 413


def test_a_slow_request_is_ended(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.3)
    with served(opened) as address:
        host, port = address.split("/")[2].split(":")
        head = (
            f"POST /api/feedback HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
            f"Cookie: curator-review={TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
        )
        began = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(head.encode() + b'{"a"')
            answer = line.recv(65536)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert time.monotonic() - began < 15


def test_held_out_pictures_are_not_shown(known: TestClient, opened: Store) -> None:
    for image in opened.image_ids(role="holdout"):
        assert known.get(f"/api/images/{image}/picture").status_code == 403
        assert known.get(f"/api/images/{image}/crop", params={"box": "0,0,9,9"}).status_code == 403


def read_everything(client: TestClient, opened: Store) -> dict[str, Any]:
    """Every answer in JSON that the page may ask for."""
    names = ["/api/about", "/api/overview", "/api/failures/counts", "/api/failures?limit=200&kind=FN&kind=FP"]
    names += [f"/api/failures/{o.id}" for o in opened.outcomes()]
    answers = {}
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200, (name, answer.text)
        answers[name] = answer.text
    return answers


def test_neither_hidden_labels_nor_held_out_images_are_told(known: TestClient, opened: Store) -> None:
    held = [image.uri.rpartition("/")[2] for image in opened.images(reader="verify", role="holdout")]
    texts = read_everything(known, opened)
    assert any(EVIL[:8] in text for text in texts.values())
    for name, text in texts.items():
        assert HIDDEN not in text, name
        assert not any(file in text for file in held), name


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com", "not an address"])
def test_only_an_address_of_this_machine_is_listened_at(host: str) -> None:
    with pytest.raises(InputError, match="--host"):
        bind(host, 0)


def test_a_taken_port_is_said() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot listen"):
            bind("127.0.0.1", port)
        assert hosts_of(first) == [f"127.0.0.1:{port}", f"localhost:{port}"]
