"""Garbage goes, and nothing that is named, young or about to be named."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from store import garbage
from store.errors import NotFoundError, WorkspaceError
from store.models import Run
from store.records import DatasetVersion, Trial
from store.session import table
from store.store import Store
from tests.store.test_removal import begin, sample

HOUR = 3600.0


def blob(store: Store, text: str, *, hours: float = 0.0) -> str:
    """A blob of some age."""
    name = store.put_blob(text.encode())
    age(place(store, name), hours)
    return name


def place(store: Store, name: str) -> Path:
    """Where it lies."""
    return store.path / "blobs" / name[:2] / name


def age(path: Path, hours: float) -> None:
    """Make a file old."""
    when = time.time() - hours * HOUR
    os.utime(path, (when, when))


def test_what_anything_names_stays(store: Store, run: int, build: Any) -> None:
    [image] = store.add_images(run, [build.image(1, "train")])
    kept = [blob(store, f"kept {n}", hours=9) for n in range(5)]
    line = blob(store, "lines of a record", hours=9)
    record = blob(store, f'{{"images": ["{line}"]}}', hours=9)
    store.describe_run(run, {"gate": {"blob": kept[0]}, "gallery": [{"blob": kept[1]}]})
    store.put_trial(run, Trial(verification="v", arm="a", seed=0, metrics={"fates": kept[2]}, key="t"))
    store.put_sample(run, sample(store, "s", scene=image.image_id))
    version = DatasetVersion(name="v", image_ids=(), sample_ids=(), manifest={"record": record}, key="v")
    store.put_version(run, version)
    own = store.samples(name="synthesis")[0].blob
    age(place(store, own), 9)
    loose = [blob(store, f"loose {n}", hours=9) for n in range(3)]
    young = blob(store, "young")
    (store.path / "blobs" / "ab").mkdir(exist_ok=True)
    part = store.path / "blobs" / "ab" / f"ab{'0' * 62}.1234.part"
    part.write_bytes(b"killed")
    age(part, 9)
    quiet = store.require_quiet(HOUR)
    files, size = store.loose_blobs(quiet)
    assert files == len(loose) + 3  # the part, and two kept ones that nothing names
    assert store.collect_blobs(quiet) == (files, size)
    assert store.loose_blobs(quiet) == (0, 0)
    for name in (*kept[:3], line, record, own, young):
        assert store.blob(name)
    for name in (*kept[3:], *loose):
        with pytest.raises(NotFoundError):
            store.blob(name)
    assert not part.exists()
    begin(store)
    store.remove_samples(name="synthesis")
    store.remove_verification("v")
    assert store.collect_blobs(quiet)[0] == 2  # the sample's and the trial's


def test_what_is_put_again_is_young(store: Store) -> None:
    name = blob(store, "twice", hours=9)
    quiet = store.require_quiet(HOUR)
    assert store.loose_blobs(quiet)[0] == 1
    store.put_blob(b"twice")
    assert store.loose_blobs(quiet) == (0, 0)
    assert garbage.drop_blob(place(store, name), set(), quiet.before) == 0  # it was listed before that
    assert store.blob(name) == b"twice"


def test_a_file_set_aside_by_a_killed_collection(store: Store, run: int) -> None:
    wanted, loose = blob(store, "wanted"), blob(store, "loose")
    store.describe_run(run, {"blob": wanted})
    for name in (wanted, loose):
        aside = place(store, name).with_name(name + garbage.ASIDE)
        place(store, name).rename(aside)
        age(aside, 9)
    store.collect_blobs(store.require_quiet(HOUR))
    assert store.blob(wanted) == b"wanted"
    assert not list((store.path / "blobs").rglob(f"*{garbage.ASIDE}"))
    with pytest.raises(NotFoundError):
        store.blob(loose)


def test_nothing_goes_while_another_process_is_at_work(store: Store, run: int) -> None:
    other = {"process": f"1 {garbage.Path('/proc/1/stat').read_text().rpartition(')')[2].split()[19]}"}
    with store._database.writing() as connection:
        connection.execute(update(table(Run)).where(Run.id == run).values(**other))
    for ask in (lambda: store.require_quiet(HOUR), store.require_alone):
        with pytest.raises(WorkspaceError, match=rf"run {run} \(add\) is going on"):
            ask()
    started = datetime.now(UTC) - timedelta(hours=5)
    with store._database.writing() as connection:  # another machine's may be dead: its age decides
        far = {"host": "elsewhere", "started_at": started}
        connection.execute(update(table(Run)).where(Run.id == run).values(**far))
    quiet = store.require_quiet(HOUR)
    assert quiet.waiting == (f"run {run} (add) on elsewhere",)
    young, old = blob(store, "4 hours", hours=4), blob(store, "6 hours", hours=6)
    store.collect_blobs(quiet)
    assert store.blob(young)
    with pytest.raises(NotFoundError):
        store.blob(old)


def test_nothing_goes_while_somebody_writes(sqlite_store: Store) -> None:
    store = sqlite_store
    with Store.open(store.path) as other, other.transaction():
        other.begin_run("add", config={})
        with pytest.raises(WorkspaceError, match="another process is writing"):
            store.require_quiet(HOUR)


def test_free_pages_go_back(sqlite_store: Store, build: Any) -> None:
    store = sqlite_store
    run = store.begin_run("add", config={})
    ids = [a.image_id for a in store.add_images(run, [build.image(n, "pool") for n in range(2000)])]
    assert store.free_database_bytes() == 0
    begin(store)
    store.remove_images(ids, store_filter())
    free = store.free_database_bytes()
    assert free > 100_000
    store.vacuum()
    assert store.free_database_bytes() == 0
    assert store.counts()["images"] == 0


def store_filter() -> Any:
    from store.records import MembershipFilter

    return MembershipFilter()
