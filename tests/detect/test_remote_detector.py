"""Detectors behind a web address, against real servers on this machine."""

from __future__ import annotations

import email
import io
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from curator.cli import app
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.detect import http_service
from curator.detect.base import Detector
from curator.detect.black_box import BlackBox
from curator.detect.checking import predict_each
from curator.detect.load import load_detector, load_known
from curator.detect.probe import probe_pictures
from curator.detect.remote import build
from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.diagnose.run import diagnose
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError, CuratorError, InputError
from curator.explain.base import Target
from curator.explain.run import explain
from curator.explain.settings import ExplainConfig
from curator.explain.target import scores_of
from curator.registry import Spec
from curator.tensors import image_tensor
from store.records import Detections
from store.store import Store

CLASSES = ("cup", "plate")
GOOD = {"boxes": [[1, 2, 30.5, 40]], "scores": [0.75], "labels": [1]}


@cache
def tiny(seed: int = 1) -> Detector:
    return make_detector(SsdOptions(classes=CLASSES, size=96, anchors=(12, 24, 48, 72)), seed=seed)


def found_by(detector: Detector, images: list[Tensor]) -> list[dict[str, Any]]:
    return [
        {"boxes": d.boxes.tolist(), "scores": d.scores.tolist(), "labels": d.labels.tolist()}
        for d, _ in detector.predict(images, score_threshold=0.2)
    ]


@dataclass
class Service:
    """A real server around a real detector, which can be told to misbehave.

    Attributes:
        about: what a GET gives. trouble: called with the handler before the next answers; True: it answered.
        requests: method, path with query, headers and number of pictures of each request.
    """

    about: dict[str, Any] = field(default_factory=lambda: {"version": "1", "classes": list(CLASSES)})
    detector: Detector = field(default_factory=tiny)
    answer: Callable[[list[Tensor]], Any] | None = None
    trouble: list[Callable[[BaseHTTPRequestHandler], bool]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], int]] = field(default_factory=list)

    def start(self, port: int = 0) -> Service:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.requests.append(("GET", self.path, dict(self.headers), 0))
                if not (service.trouble and service.trouble.pop(0)(self)):
                    send(self, service.about)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = b"Content-Type: %b\n\n" % self.headers["Content-Type"].encode()
                form: Any = email.message_from_bytes(head + body).get_payload()
                files = [Image.open(io.BytesIO(part.get_payload(decode=True))) for part in form]
                assert all(file.format == "PNG" and file.mode == "RGB" for file in files)
                service.requests.append(("POST", self.path, dict(self.headers), len(files)))
                if service.trouble and service.trouble.pop(0)(self):
                    return
                images = [image_tensor(np.asarray(file)) for file in files]
                plain = {"images": found_by(service.detector, images)}
                plain["version"] = service.about.get("version")
                send(self, service.answer(images) if service.answer else plain)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def spec(self) -> str:
        return f"http://127.0.0.1:{self.port}/predict"

    def posted(self) -> list[int]:
        """Pictures of each POST."""
        return [count for method, _, _, count in self.requests if method == "POST"]


def send(
    handler: BaseHTTPRequestHandler,
    value: Any,
    status: int = 200,
    kind: str = "application/json",
    **more: str,
) -> bool:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, text in {"Content_Length": str(len(body)), **more}.items():
        handler.send_header(name.replace("_", "-"), text)
    handler.end_headers()
    handler.wfile.write(body)
    return True


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service().start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_service, "FIRST_WAIT", 0.02)


@pytest.fixture
def images() -> list[Tensor]:
    draw = np.random.default_rng(0)
    sizes = [(60, 90), (80, 50), (64, 64), (40, 100), (70, 70)]
    return [image_tensor(draw.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def assert_same(ours: Detections, theirs: Detections) -> None:
    """Equal detections, best first; those that score alike to the last bits may stand either way."""
    assert (np.diff(ours.scores) <= 0).all()
    rows = []
    for found in (ours, theirs):
        order = np.lexsort((*found.boxes.T[::-1], found.labels))
        rows.append((found.labels[order], found.boxes[order], found.scores[order]))
    (labels, boxes, scores), (own_labels, own_boxes, own_scores) = rows
    np.testing.assert_array_equal(labels, own_labels)
    np.testing.assert_allclose(boxes, own_boxes, atol=1e-4)
    np.testing.assert_allclose(scores, own_scores, atol=1e-6)


def test_it_finds_what_the_wrapped_detector_finds(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(f"{service.spec}?curator_batch=2"))
    assert isinstance(box, BlackBox)
    assert box.classes == CLASSES
    found = box.predict(images, score_threshold=0.3)
    assert service.posted() == [2, 2, 1]
    expected = service.detector.predict(images, score_threshold=0.3)
    for (ours, pin), (theirs, _), image in zip(found, expected, images, strict=True):
        assert len(theirs) > 0
        assert_same(ours, theirs)  # 8-bit pictures arrive as they are
        assert pin.image_size == tuple(image.shape[-2:])
    dark = images[0] * 0.613  # between the steps of 8 bits
    ours = box.predict([dark], score_threshold=0.2)[0][0]
    theirs = service.detector.predict([dark], score_threshold=0.2)[0][0]
    n = min(len(ours), len(theirs), 5)
    np.testing.assert_allclose(ours.scores[:n], theirs.scores[:n], atol=5e-3)
    assert box.predict([], score_threshold=0.5) == []


def test_targets_by_prediction(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(service.spec))
    found, pin = box.predict(images[:1], score_threshold=0.3)[0]
    box_of = tuple(map(float, found.boxes[0]))
    target = Target(candidate=0, label=int(found.labels[0]), kind="probability", box=box_of)
    scores = scores_of(box, pin, [target])(torch.stack([images[0], images[0] * 0]))
    assert scores[0, 0] == pytest.approx(float(found.scores[0]), abs=1e-4)
    assert scores[1, 0] != scores[0, 0]


def test_names_as_labels_and_what_belongs_to_the_service(service: Service, images: list[Tensor]) -> None:
    service.answer = lambda images: {"images": [{**GOOD, "labels": ["cup"]} for _ in images]}
    box = build(Spec.parse(f"{service.spec}?model=a%20b&curator_batch=4&flag"))
    assert box.predict(images[:1], score_threshold=0.5)[0][0].labels.tolist() == [0]
    assert {path for _, path, _, _ in service.requests} == {"/predict?model=a%20b&flag"}


def test_requests_keep_to_the_size_limit(service: Service, images: list[Tensor]) -> None:
    service.answer = lambda images: {"images": [GOOD for _ in images]}
    box = build(Spec.parse(f"{service.spec}?curator_max_mb=0.03"))
    box.predict(images, score_threshold=0.9)
    assert sum(service.posted()) == 5
    assert max(service.posted()) < 5
    with pytest.raises(InputError, match=r"has 0\.\d MB as PNG, more than curator_max_mb allows"):
        box.predict([torch.rand(3, 200, 200)], score_threshold=0.5)


# ---------------------------------------------------------------- retries


def test_a_service_that_fails_twice_is_asked_again(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(service.spec))

    def hang_up(handler: BaseHTTPRequestHandler) -> bool:
        handler.close_connection = True
        handler.connection.close()
        return True

    service.trouble = [lambda h: send(h, {"error": "warming up"}, 503), hang_up]
    assert len(box.predict(images[:1], score_threshold=0.3)[0][0]) > 0
    assert len(service.posted()) == 3
    started = time.monotonic()
    service.trouble = [lambda h: send(h, {}, 429, Retry_After="1")]
    box.predict(images[:1], score_threshold=0.3)
    assert time.monotonic() - started >= 1


def test_when_it_is_not_asked_again(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(service.spec))
    service.trouble = [lambda h: send(h, b"no such model", 404, "text/plain")]
    with pytest.raises(InputError, match=r"127.0.0.1:\d+/predict: answered 404 Not Found: no such model"):
        box.predict(images[:1], score_threshold=0.3)
    service.trouble = [lambda h: send(h, b"", 301, Location="http://elsewhere.example/")]
    with pytest.raises(InputError, match=r"a redirect to http://elsewhere.example/; name that address"):
        box.predict(images[:1], score_threshold=0.3)
    service.trouble = [lambda h: send(h, b"busy", 503, Retry_After="3600")]
    with pytest.raises(InputError, match="it wants 3600 s of rest"):
        box.predict(images[:1], score_threshold=0.3)
    assert len(service.posted()) == 3


def test_a_dead_service_costs_its_tries_once(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(f"{service.spec}?curator_retries=2"))
    service.stop()
    answers = predict_each(box, images, score_threshold=0.3)
    assert all(isinstance(answer, InputError) for answer in answers)
    assert "refused the connection; is the service running? (asked once)" in str(answers[0])
    again = Service().start(service.port)
    try:
        assert len(box.predict(images[:1], score_threshold=0.3)[0][0]) > 0
        again.trouble = [lambda h: send(h, b"", 500)]
        assert len(box.predict(images[:1], score_threshold=0.3)[0][0]) > 0  # it has its tries back
    finally:
        again.stop()
    with pytest.raises(InputError, match=r"refused the connection; .*\(asked 3 times\)"):
        build(Spec.parse(f"{service.spec}?curator_retries=2"))


def test_time_out(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(f"{service.spec}?curator_timeout=0.3&curator_retries=1"))

    def late(handler: BaseHTTPRequestHandler) -> bool:
        time.sleep(0.8)
        return False

    service.trouble = [late, late]
    with pytest.raises(InputError, match=r"no answer within 0.3 s; .*curator_timeout.*\(asked 2 times\)"):
        box.predict(images[:1], score_threshold=0.3)

    def drip(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        for _ in range(8):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
        return True

    service.trouble = [drip]
    with pytest.raises(InputError, match=r"no answer within 0.3 s"):
        box.predict(images[:1], score_threshold=0.3)


# ---------------------------------------------------------------- bad answers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>hello</html>", "expected JSON, got '<html>hello</html>'"),
        (b'{"images": [', "expected JSON"),
        (b"\xff\xfe\x00", "expected JSON"),
        ([], r'expected \{"images": \[...\]\} for a POST, got \[\]'),
        ({"images": []}, "expected answers for 1 images, got 0"),
        ({"images": [GOOD, GOOD]}, "expected answers for 1 images, got 2"),
        ({"images": [{"boxes": [], "scores": []}]}, 'expected an image\'s answer as {"boxes", "scores"'),
        ({"images": [GOOD | {"boxes": [[1, 2, 3]]}]}, r"expected boxes \(n, 4\)"),
        ({"images": [GOOD | {"boxes": [[1, 2, 3, 4], [1]]}]}, "boxes .* of numbers"),
        ({"images": [GOOD | {"boxes": [["1", "2", "3", "4"]]}]}, "boxes .* of numbers"),
        ({"images": [GOOD | {"boxes": [[float("nan"), 2, 3, 4]]}]}, "box 0 .*expected finite numbers"),
        ({"images": [GOOD | {"boxes": [[30, 2, 3, 4]]}]}, "expected x1 <= x2"),
        ({"images": [GOOD | {"scores": [1.5]}]}, r"expected scores in \[0, 1\]"),
        ({"images": [GOOD | {"scores": [True]}]}, "expected scores of numbers"),
        ({"images": [GOOD | {"labels": [7]}]}, "expected labels 0 to 1"),
        ({"images": [GOOD | {"labels": [0.5]}]}, "expected whole numbers as labels"),
        ({"images": [GOOD | {"labels": ["fork"]}]}, r"expected labels among \['cup', 'plate'\].* got 'fork'"),
        ({"images": [GOOD], "version": "2"}, "version '2' and described itself with '1'"),
        ({"images": [GOOD], "classes": ["cup"]}, r"classes \['cup'\] and described itself with"),
    ],
)
def test_bad_answers(service: Service, images: list[Tensor], answer: Any, message: str) -> None:
    box = build(Spec.parse(service.spec))
    service.answer = lambda _: answer
    (found,) = predict_each(box, images[:1], score_threshold=0.3)
    assert isinstance(found, InputError)
    assert re.search(message, str(found))
    assert "\n" not in str(found)
    assert len(service.posted()) == 1


def test_wrong_types_and_sizes(service: Service, images: list[Tensor]) -> None:
    box = build(Spec.parse(f"{service.spec}?curator_max_mb=0.1"))
    service.trouble = [lambda h: send(h, b"{}", kind="text/html; charset=utf-8")]
    with pytest.raises(InputError, match="expected the content type application/json, got 'text/html"):
        box.predict(images[:1], score_threshold=0.3)
    service.trouble = [lambda h: send(h, b" " * 200_000)]
    with pytest.raises(InputError, match=r"its answer has more than 0\.1 MB"):
        box.predict(images[:1], score_threshold=0.3)

    def endless(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        handler.wfile.write(b" " * 200_000)
        return True

    service.trouble = [endless]
    with pytest.raises(InputError, match=r"its answer has more than 0\.1 MB"):
        box.predict(images[:1], score_threshold=0.3)

    def short(handler: BaseHTTPRequestHandler) -> bool:
        return send(handler, b'{"images": [', Content_Length="500")

    service.trouble = [short] * 4
    with pytest.raises(InputError, match="its answer ended 488 bytes early"):
        box.predict(images[:1], score_threshold=0.3)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([1], "expected a GET to give"),
        ({"version": "1"}, 'expected a GET to give "classes"'),
        ({"classes": []}, "different names"),
        ({"classes": ["a", "a"]}, "different names"),
        ({"classes": ["a", 3]}, "different names"),
        ({"classes": ["a"], "version": 3}, 'expected "version" to be a text'),
        ({"classes": ["a"], "version": "1", "least_score": 2}, r'expected "least_score" in \[0, 1\)'),
    ],
)
def test_bad_descriptions(service: Service, about: Any, message: str) -> None:
    service.about = about
    with pytest.raises(InputError, match=message):
        build(Spec.parse(service.spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http://", "expected an address such as http://localhost:8000/predict"),
        ("http:nothing", "expected an address such as"),
        ("http://127.0.0.1:port/predict", "expected an address such as"),
        ("http://my host:8000/predict", "expected a"),
        ("http://me:secret@127.0.0.1/predict", "expected no user or password in the address"),
        ("http://127.0.0.1:1/predict#a", "without #"),
        ("http://127.0.0.1:1/?curator_speed=1", "knows the options curator_batch"),
        ("http://127.0.0.1:1/?curator_batch=0", "curator_batch: expected a whole number from 1, got '0'"),
        ("http://127.0.0.1:1/?curator_timeout=soon", "curator_timeout: expected a number above 0"),
        ("http://127.0.0.1:1/?curator_header_env=NO_SUCH", "expected the environment variable NO_SUCH"),
        ("http://127.0.0.1:1/?curator_header_env=BAD_HEADER", "expected BAD_HEADER to hold a header"),
    ],
)
def test_bad_specs(spec: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD_HEADER", "Token: hush\nX: y")
    with pytest.raises(CuratorError, match=message) as caught:
        build(Spec.parse(spec))
    assert "hush" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_header_is_sent_and_never_shown(
    service: Service, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_HEADER", "Authorization: Bearer open-sesame")
    box = build(Spec.parse(f"{service.spec}?curator_header_env=SERVICE_HEADER"))
    box.predict(images[:1], score_threshold=0.3)
    assert {headers["Authorization"] for _, _, headers, _ in service.requests} == {"Bearer open-sesame"}

    def blurts(handler: BaseHTTPRequestHandler) -> bool:
        return send(handler, f"unknown token {handler.headers['Authorization'].split()[1]}".encode(), 401)

    service.trouble = [blurts]
    with pytest.raises(InputError, match=r"answered 401 Unauthorized: unknown token \*\*\*"):
        box.predict(images[:1], score_threshold=0.3)
    service.answer = lambda _: {"error": "invalid key Bearer open-sesame"}
    with pytest.raises(InputError, match=r"for a POST, got .*invalid key \*\*\*") as caught:
        box.predict(images[:1], score_threshold=0.3)
    assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(box.__dict__) + box.spec + box.fingerprint


def test_http_is_not_https(service: Service) -> None:
    with pytest.raises(InputError, match="the connection failed"):
        build(Spec.parse(service.spec.replace("http:", "https:") + "?curator_retries=0"))
    assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED


# ---------------------------------------------------------------- versions


def test_a_version_makes_the_fingerprint(service: Service) -> None:
    first = load_detector(service.spec, "cpu")
    assert load_detector(service.spec, "cpu") is first
    assert service.posted() == []
    service.about["version"] = "2"
    second = load_detector(service.spec, "cpu")
    assert second.fingerprint != first.fingerprint
    del service.about["version"]
    probed = load_detector(service.spec, "cpu")
    assert len(service.posted()) == 1
    assert load_detector(service.spec, "cpu") is probed
    service.detector = tiny(seed=2)
    other = load_detector(service.spec, "cpu")
    assert len({first.fingerprint, second.fingerprint, probed.fingerprint, other.fingerprint}) == 4
    boxed = load_detector(f"blackbox:{service.spec}", "cpu")
    service.detector = tiny(seed=3)
    assert load_detector(f"blackbox:{service.spec}", "cpu").fingerprint != boxed.fingerprint


def test_probe_pictures_are_stored_ones() -> None:
    for picture, again in zip(probe_pictures(), probe_pictures(), strict=True):
        assert torch.equal(picture, again)
        assert 0 <= picture.min() < picture.max() <= 1
        assert torch.equal(picture, (picture * 255).round() / 255)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((60 + 10 * number, 50)).save(folder / f"{number}.png")
    with Store.create(tmp_path / "workspace") as opened:
        add(opened, AddConfig(format="images", path=folder, role="mine"))
        yield opened


@pytest.fixture
def config(service: Service) -> DetectConfig:
    spec = f"{service.spec}?curator_retries=1"
    return DetectConfig(detector=spec, score_floor=0.3, batch_size=1, device="cpu")


def test_a_new_version_is_detected_anew(store: Store, service: Service, config: DetectConfig) -> None:
    assert detect(store, config).done == 6
    again = detect(store, config)
    assert (again.done, again.skipped, again.summary["warnings"]) == (0, 6, [])
    service.about["version"], service.detector = "2", tiny(seed=2)
    newer = detect(store, config)
    assert (newer.done, newer.skipped) == (6, 0)
    assert newer.summary["model"] != again.summary["model"]
    known = next(model for model in store.models() if model.id == again.summary["model"])
    with pytest.raises(InputError, match="its weights changed since its detections were stored"):
        load_known(known, "cpu")
    service.about["version"], service.detector = "1", tiny()
    assert detect(store, config).skipped == 6


def test_without_a_version_nothing_counts_as_stored(
    store: Store, service: Service, config: DetectConfig
) -> None:
    del service.about["version"]
    service.answer = lambda images: {"images": found_by(service.detector, images)}
    first = detect(store, config)
    again = detect(store, config)
    assert (first.done, again.done, again.skipped) == (6, 6, 0)
    assert "reports no version" in again.summary["warnings"][0]
    assert again.summary["detections"] == first.summary["detections"]  # each run's own, counted once
    assert again.summary["model"] == first.summary["model"]
    (model,) = store.models()
    assert load_known(model, "cpu").fingerprint == model.fingerprint  # so it can be diagnosed and explained
    service.detector = tiny(seed=2)
    with pytest.raises(InputError, match="its weights changed"):
        load_known(model, "cpu")


def test_a_service_killed_in_the_middle(store: Store, service: Service, config: DetectConfig) -> None:
    def dies(handler: BaseHTTPRequestHandler) -> bool:
        threading.Thread(target=service.stop).start()
        handler.close_connection = True
        handler.connection.close()
        time.sleep(0.2)
        return True

    def go(_: object) -> bool:
        return False

    service.trouble = [go, go, go, go, dies]  # two GETs to load it, two pictures
    stopped = detect(store, config)
    assert (stopped.done, stopped.failed, stopped.exit_code) == (2, 4, 3)
    assert all("refused" in reason or "connection" in reason for _, reason in stopped.failures)
    again = Service().start(service.port)
    try:
        rest = detect(store, config)
        assert (rest.done, rest.skipped, rest.failed) == (4, 2, 0)
        assert again.posted() == [1] * 4
    finally:
        again.stop()
        service.start()  # for the fixture to stop


def test_a_service_changed_in_the_middle(store: Store, service: Service, config: DetectConfig) -> None:
    def changes(_: object) -> bool:
        service.about["version"] = "2"
        return False

    service.trouble = [lambda _: False] * 3 + [changes]
    result = detect(store, config)
    assert (result.done, result.failed) == (1, 5)
    assert "described itself with '1'" in result.failures[0][1]
    assert detect(store, config).done == 6


@pytest.mark.parametrize("version", ["1", None])
def test_its_failures_are_explained(tmp_path: Path, service: Service, version: str | None) -> None:
    """Diagnosed and explained by its predictions, with a version and without; a changed model is refused."""
    service.about["version"] = version
    images, boxes = [], []
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((70, 50)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 70, "height": 50})
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 25, 25]})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    table = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "labels.json").write_text(json.dumps(table))
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="coco", path=tmp_path / "labels.json", role="mine"))
        detect(store, DetectConfig(detector=service.spec, score_floor=0.3, device="cpu"))
        diagnosed = diagnose(store, DiagnoseConfig(score_threshold=0.4, device="cpu"))
        assert (diagnosed.done, diagnosed.failed) == (2, 0)
        config = ExplainConfig(method="drise", samples=4, segments=8, successes=1, device="cpu")
        explained = explain(store, config)
        assert (explained.done, explained.failed) == (2, 0)
        assert explain(store, config).skipped == 2
        with pytest.raises(ConfigError, match="expected a detector with a network to look into"):
            explain(store, replace(config, method="e2x"))
        service.about["version"] = "2" if version else None
        service.detector = tiny(seed=2)
        with pytest.raises(InputError, match="its weights changed since its detections were stored"):
            explain(store, replace(config, samples=5))


def run(store: Store, spec: str, *more: str) -> Any:
    command = ["-w", str(store.path), "detect", "--detector", spec, "--score-floor", "0.3", *more]
    return CliRunner().invoke(app, [*command, "--device", "cpu"])


def test_command(store: Store, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_HEADER", "X-Key: open-sesame")
    spec = f"{service.spec}?curator_header_env=SERVICE_HEADER&curator_retries=0"
    done = run(store, spec, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["done"] == 6
    again = run(store, spec)
    assert again.exit_code == 0
    assert "detections on 6 images" in again.stdout
    del service.about["version"]
    anew = run(store, spec)
    assert anew.exit_code == 0
    assert "warning: http://127.0.0.1" in anew.stdout
    service.answer = lambda images: {"images": [GOOD | {"scores": [2.0]} for _ in images]}
    service.about["version"] = "3"
    broken = run(store, spec)
    assert broken.exit_code == 1  # nothing of the new version could be done
    assert "expected scores in [0, 1]" in " ".join(broken.output.split())
    service.trouble = [lambda h: send(h, b"go away", 403, "text/plain")]
    script = "from curator.cli import main; main()"
    command = ["-w", str(store.path), "detect", "--detector", spec, "--device", "cpu"]
    refused = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("answered 403 Forbidden: go away")
    assert all(b"sesame" not in file.read_bytes() for file in Path(store.path).rglob("*") if file.is_file())


def test_the_server_in_the_manual(images: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "detectors.md").read_text(encoding="utf-8")
    code = manual.partition("A complete server:")[2].partition("```python\n")[2].partition("```")[0]
    detector = tiny()

    def model(pixels: np.ndarray) -> tuple[Any, ...]:
        return tuple(found_by(detector, [image_tensor(pixels)])[0].values())

    monkeypatch.setitem(sys.modules, "my_package", SimpleNamespace(model=model))
    names: dict[str, Any] = {"__name__": "server"}
    exec(compile(code, "docs/detectors.md", "exec"), names)
    handler = type("Quiet", (names["Handler"],), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        box = build(Spec.parse(f"http://127.0.0.1:{server.server_address[1]}/predict?curator_batch=2"))
        found = box.predict(images, score_threshold=0.3)
    finally:
        server.shutdown()
        server.server_close()
    for (ours, _), (theirs, _) in zip(found, detector.predict(images, score_threshold=0.3), strict=True):
        assert len(theirs) > 0
        assert_same(ours, theirs)
