"""The local copies of fetched images: a limit, several processes, kills; and buckets without a server."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from curator import pipeline
from curator.data.settings import AddConfig
from store.errors import RemoteError
from store.image_cache import cache_folder, cached, keep, limit, shrink
from store.remote import checked, fetch
from store.store import Store
from tests.pictures import scene


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/*"))


def test_what_was_read_longest_ago_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATOR_CACHE_GB", "0.00001")  # 10,000 bytes
    texts = [bytes([n]) * 1000 for n in range(9)]
    for age, text in enumerate(texts):
        keep(digest(text), text)
        file = folder / digest(text)[:2] / digest(text)
        os.utime(file, (time.time() - 100 + age,) * 2)
    assert cached(digest(texts[0])) == texts[0]  # now the newest
    for n in range(3):
        keep(digest(bytes([99, n]) * 500), bytes([99, n]) * 500)
    assert held(folder) <= 10_000
    assert cached(digest(texts[0])) == texts[0]
    assert cached(digest(texts[1])) is None
    keep(digest(b"x" * 20_000), b"x" * 20_000)  # larger than all of it
    assert cached(digest(b"x" * 20_000)) is None
    monkeypatch.setenv("CURATOR_CACHE_GB", "0")
    keep(digest(b"y"), b"y")
    assert cached(digest(b"y")) is None
    monkeypatch.setenv("CURATOR_CACHE_GB", "much")
    assert limit() == 10_000_000_000


def test_wrong_bytes_are_never_kept_and_trouble_is_not_the_readers(folder: Path) -> None:
    keep(digest(b"right"), b"wrong")
    assert not folder.exists()
    folder.parent.mkdir()
    folder.write_text("no folder")
    keep(digest(b"right"), b"right")
    assert cached(digest(b"right")) is None


def test_left_parts_go_after_an_hour(folder: Path) -> None:
    (folder / "ab").mkdir(parents=True)
    old, new = folder / "ab" / ".part-1-a", folder / "ab" / ".part-1-b"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    shrink(folder, 10**9)
    assert (old.exists(), new.exists()) == (False, True)


def test_several_processes_one_killed(folder: Path, tmp_path: Path) -> None:
    script = (
        "import hashlib, itertools\nfrom store.image_cache import cached, keep\n"
        "for n in itertools.count():\n"
        "    data = str(n % 300).encode() * 5000\n    sha = hashlib.sha256(data).hexdigest()\n"
        "    keep(sha, data)\n    found = cached(sha)\n    assert found in (None, data)\n"
        "    if n == 0: print('on', flush=True)\n"
    )
    environment = {**os.environ, "CURATOR_CACHE_GB": "0.001"}
    workers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"on\n"
    time.sleep(0.7)
    assert [worker.poll() for worker in workers] == [None, None]
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
    assert shrink(folder, 10**6) <= 1.2 * 10**6
    for file in folder.glob("*/*"):
        if not file.name.startswith(".part-"):
            assert digest(file.read_bytes()) == file.name


def test_a_bucket_in_memory(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    try:
        for number in range(3):
            scene(number).save(tmp_path / f"{number}.png")
            memory.pipe_file(f"/bucket/pool/{number}.png", (tmp_path / f"{number}.png").read_bytes())
        memory.pipe_file("/bucket/pool/clip.mp4", b"no picture")
        with Store.create(tmp_path / "ws") as store:
            config = AddConfig(format="images", path="memory://bucket/pool", role="pool")
            result = pipeline.add(store, config)
            assert (result.done, result.summary["dataset"]) == (3, "pool")
            assert any(".mp4" in note for note in result.summary["notes"])
            assert pipeline.add(store, config).skipped == 3
            image = store.images(reader="index", role="pool")[0]
            assert image.uri == "memory://bucket/pool/0.png"
            assert store.pixels(image, reader="index").shape == (240, 320, 3)
    finally:
        memory.rm("/bucket", recursive=True)
    assert (cache_folder("images")).is_dir()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(RemoteError, match=r'^az://c/x: az:// needs pip install "curator\[azure\]"$'):
        fetch("az://c/x")


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///", "s3://b/../c", "s3://b/a::zip://x", "file:///etc", "x://b"]
)
def test_addresses_that_name_no_folder(uri: str) -> None:
    with pytest.raises(RemoteError, match="expected"):
        checked(uri)
    assert (
        checked("abfs://container@account.dfs.core.example/x/")
        == "abfs://container@account.dfs.core.example/x"
    )
