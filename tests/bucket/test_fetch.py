"""Objects of a real S3 server on loopback: whole, after some tries, or one clear line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from store.errors import CorruptionError, RemoteError
from store.image_cache import cached
from store.images import read_bytes
from store.remote import TRIES, fetch, fetch_file, gone, listed
from tests.bucket.conftest import Bucket

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("fault", [503, 500, "short", "lie", "reset", "hang"])
def test_trouble_that_passes_is_waited_for(bucket: Bucket, fault: int | str, tmp_path: Path) -> None:
    bucket.write("a b/ü#1.jpg", DATA)
    bucket.faults.reset()
    key = "a%20b/%C3%BC%231.jpg"
    uri = f"{bucket.uri}/a b/ü#1.jpg"
    bucket.script(key, fault, fault)
    assert read_bytes(uri, sha256=SHA) == DATA
    assert bucket.gets(key) == 3 if fault != "lie" else bucket.gets(key) >= 2
    bucket.script(key, fault)
    fetch_file(uri, tmp_path / "out", size=len(DATA))
    assert (tmp_path / "out").read_bytes() == DATA


def test_tries_end_and_nothing_short_is_cached(bucket: Bucket) -> None:
    bucket.write("x.jpg", DATA)
    bucket.faults.reset()
    bucket.script("x.jpg", *["short"] * 9)
    with pytest.raises(RemoteError, match=rf"{bucket.uri}/x.jpg: not read in {TRIES} tries \(.*\)$"):
        read_bytes(f"{bucket.uri}/x.jpg", sha256=SHA)
    assert bucket.gets("x.jpg") == TRIES
    assert cached(SHA) is None
    bucket.script("x.jpg", *["lie"] * 9)
    with pytest.raises(RemoteError, match=rf"x.jpg: not read in {TRIES} tries \("):
        fetch(f"{bucket.uri}/x.jpg", size=len(DATA))


def test_what_is_missing_or_changed_is_said_at_once(bucket: Bucket) -> None:
    with pytest.raises(RemoteError, match=r"no.jpg: nothing is there$"):
        fetch(f"{bucket.uri}/no.jpg")
    assert bucket.gets("no.jpg") == 1
    bucket.script("secret.jpg", 403, 403)
    with pytest.raises(RemoteError, match=r"secret.jpg: cannot be read \(PermissionError"):
        fetch(f"{bucket.uri}/secret.jpg")
    assert bucket.gets("secret.jpg") == 1
    bucket.write("changed.jpg", DATA + b"!")
    with pytest.raises(CorruptionError, match=r"changed since it was added \(sha256 "):
        read_bytes(f"{bucket.uri}/changed.jpg", sha256=SHA)


def test_a_second_reading_asks_nobody_and_a_damaged_copy_is_fetched_again(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.write("x.jpg", DATA)
    uri = f"{bucket.uri}/x.jpg"
    bucket.faults.reset()
    assert [read_bytes(uri, sha256=SHA) for _ in range(3)] == [DATA] * 3
    assert bucket.gets() == 1
    (file,) = (tmp_path / "cache" / "images").glob("*/*")
    file.write_bytes(DATA[:-1])
    assert read_bytes(uri, sha256=SHA) == DATA
    assert bucket.gets() == 2


def test_listing_and_absence(bucket: Bucket) -> None:
    keys = ["s/a.jpg", "s/a/b.jpg", "s/a/", "s/ö/c#?.txt", "other/x.jpg", "s/a.jpg/odd.jpg"]
    for number, key in enumerate(keys):
        bucket.write(key, b"x" * number)
    found = {entry.uri.removeprefix(f"{bucket.uri}/"): entry for entry in listed(f"{bucket.uri}/s")}
    assert {k for k in found if not k.endswith("/")} >= {keys[0], keys[1], keys[3], keys[5]}
    assert found["s/a/b.jpg"].size == 1
    assert "other/x.jpg" not in found
    uris = [f"{bucket.uri}/{key}" for key in ("s/a.jpg", "no.jpg")]
    assert gone(uris) == {uris[1]}
