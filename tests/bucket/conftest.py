"""A real S3 server on loopback, behind a proxy that may fail (`faults`)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.faults import Faults


class Bucket:
    """A bucket of the server, and the proxy before it."""

    def __init__(self, faults: Faults) -> None:
        import s3fs

        self.faults = faults
        self.name = f"b{uuid.uuid4().hex[:12]}"
        self.uri = f"s3://{self.name}"
        self.files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        self.files.mkdir(self.name)

    def put(self, folder: Path, prefix: str) -> str:
        """Upload a folder; returns its URI."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.write(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        self.faults.reset()
        return f"{self.uri}/{prefix}"

    def write(self, key: str, data: bytes) -> None:
        """Upload one object."""
        self.files.pipe_file(f"{self.name}/{key}", data)

    def remove(self, key: str) -> None:
        """Delete one object."""
        self.files.rm_file(f"{self.name}/{key}")

    def script(self, key: str, *faults: int | str) -> None:
        """What the next GETs of a key get."""
        self.faults.script[f"{self.name}/{key}"] = list(faults)

    def gets(self, suffix: str = "") -> int:
        """GETs of objects that came, those whose keys end so."""
        return sum(n for key, n in self.faults.gets.items() if key != self.name and key.endswith(suffix))


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """The port of a moto server."""
    pytest.importorskip("s3fs", reason='pip install "curator[s3]"')
    moto = pytest.importorskip("moto.server", reason='pip install "moto[s3]" flask flask-cors s3fs')
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield started.get_host_and_port()[1]
    started.stop()


@pytest.fixture
def bucket(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket; waits are short, the cache is the test's own."""
    import fsspec

    import store.remote

    faults = Faults(server)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", faults.url)
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store.remote, "FIRST_WAIT", 0.02)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1}})
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield Bucket(faults)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    faults.close()
