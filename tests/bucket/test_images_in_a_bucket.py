"""From `add` to `export` with images in a bucket: the rows of the same files on disk, faults or none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.data.run_export import export
from curator.data.settings import AddConfig, ExportConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import FormatError
from curator.example.dataset import write_dataset
from curator.explain.settings import ExplainConfig
from curator.query.settings import IndexConfig, QueryConfig
from store.errors import RemoteError
from store.records import Role
from store.store import Store
from tests.bucket.conftest import Bucket
from tests.query.rendered import DETECTOR
from tests.resume.test_kill_and_resume import rows

SIZES: dict[Role, int] = {"train": 6, "mine": 8, "pool": 8}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in another number of threads differ in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, sizes=SIZES, seed=4, size=96)
    return root


def places(root: str) -> list[AddConfig]:
    return [
        AddConfig(format="coco", path=f"{root}/train", role="train"),
        AddConfig(format="coco", path=f"{root}/mine", role="mine"),
        AddConfig(format="images", path=f"{root}/pool/images", role="pool"),
    ]


def story(workspace: Path, root: str) -> dict[str, list[str]]:
    """All stages; the rows, with `root` cut out of them, and the exported files by hash."""
    with Store.create(workspace) as store:
        for config in places(root):
            added = pipeline.add(store, config)
            assert added.failed == 0, added.failures
        assert pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu")).failed == 0
        pipeline.diagnose(store, DiagnoseConfig(score_threshold=0.4))
        explained = pipeline.explain(store, ExplainConfig(method="occlusion", device="cpu"))
        assert explained.failed == 0, explained.failures
        assert pipeline.index(store, IndexConfig(device="cpu")).failed == 0
        pipeline.query(store, QueryConfig(budget=3, name="chosen", method="random", device="cpu"))
        out = workspace / "exported"
        assert export(store, ExportConfig(format="coco", out=out, selections=("chosen",))).failed == 0
    files = {
        str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(out.rglob("*.*"))
        if f.name != "manifest.json"
    }
    plain = {
        table: [row.replace(root, "ROOT").replace(str(workspace), "WS") for row in found]
        for table, found in rows(workspace).items()
    }
    return {**plain, "exported files": [json.dumps(files)]}


def test_the_rows_of_local_files_whatever_fails(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    expected = story(tmp_path / "here", str(data))
    uri = bucket.put(data, "set")
    names = sorted(str(f.relative_to(data)) for f in data.rglob("*.jpg"))
    faults: tuple[int | str, ...] = (503, "short", 500, "reset", "lie", "hang")
    for number, name in enumerate(names):
        bucket.script(f"set/{name}", *(faults[(number + k) % 5] for k in range(number % 3)))
    bucket.script(f"set/{names[0]}", "hang", 503)
    bucket.script("set/mine/annotations.json", 503, "short")
    found = story(tmp_path / "there", uri)
    assert not any(bucket.faults.script.values())  # all of them came
    assert found.keys() == expected.keys()
    for table, those in expected.items():
        assert found[table] == those, table


def test_again_fetches_only_what_changed(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    uri = bucket.put(data, "set")
    config = AddConfig(format="coco", path=f"{uri}/mine", role="mine")
    with Store.create(tmp_path / "ws") as store:
        pipeline.add(store, config)
        assert (bucket.gets(".jpg"), bucket.gets(".json")) == (SIZES["mine"], 1)
        again = pipeline.add(store, config)
        assert (again.done, again.skipped, again.failed) == (0, SIZES["mine"], 0)
        assert bucket.gets() == SIZES["mine"] + 1
        labels = json.loads((data / "mine" / "annotations.json").read_text())
        first, second = (Path(image["file_name"]).name for image in labels["images"][:2])
        other = (data / "train" / "images").glob("*.jpg")
        bucket.write(f"set/mine/images/{first}", next(other).read_bytes())
        bucket.remove(f"set/mine/images/{second}")
        bucket.write("set/mine/annotations.json", json.dumps(labels, indent=1).encode())
        bucket.faults.reset()
        changed = pipeline.add(store, config)
        assert (bucket.gets(".jpg"), bucket.gets(".json")) == (1, 1)
        assert changed.summary["new_images"] == 1
        ((name, reason),) = changed.failures
        assert Path(name).name == second
        assert (
            reason == f"missing image: {uri}/mine/images/{second}; --images names the folder" or uri in reason
        )
        found = {image.uri for image in store.images(reader="detect", role="mine")}
        assert found == {f"{uri}/mine/images/{Path(image['file_name']).name}" for image in labels["images"]}


def test_one_image_that_cannot_be_read_leaves_the_rest(
    bucket: Bucket, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put(data / "pool" / "images", "pool")
    names = sorted(file.name for file in (data / "pool" / "images").iterdir())
    bucket.script(f"pool/{names[2]}", *[503] * 20)
    bucket.script(f"pool/{names[3]}", *[403] * 20)
    runner = CliRunner()
    assert runner.invoke(app, ["-w", str(tmp_path / "ws"), "init"]).exit_code == 0
    called = runner.invoke(
        app, ["-w", str(tmp_path / "ws"), "add", "images", uri, "--role", "mine", "--json"]
    )
    assert called.exit_code == 3, called.output
    said = json.loads(called.stdout)
    assert said["done"] == len(names) - 2
    reasons = dict(said["failures"])
    assert reasons[names[2]].startswith(f"{uri}/{names[2]}: not read in 4 tries (OSError: ")
    assert "PermissionError" in reasons[names[3]]
    bucket.faults.reset()
    with Store.open(tmp_path / "ws") as store:
        assert pipeline.add(store, AddConfig(format="images", path=uri, role="mine")).done == 2
        assert bucket.gets() == 2
        bucket.remove(f"pool/{names[0]}")
        shutil.rmtree(tmp_path / "cache")
        result = pipeline.detect(store, DetectConfig(detector=DETECTOR, device="cpu"))
        assert (result.done, result.failed) == (len(names) - 1, 1)
        assert result.failures[0][1].endswith("nothing is there")


def test_killed_and_begun_again(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    uri = bucket.put(data / "mine", "mine")
    for name in ("whole", "broken"):
        Store.create(tmp_path / name).close()
    bucket.faults.delay = 0.2
    command = [sys.executable, "-m", "curator.cli", "-w", str(tmp_path / "broken"), "add", "coco", uri]
    child = subprocess.Popen([*command, "--role", "mine"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for _ in range(600):
        if bucket.gets(".jpg") >= 2 or child.poll() is not None:
            break
        time.sleep(0.05)
    child.kill()
    output, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL, output
    bucket.faults.delay = 0.0
    found = {}
    for name in ("whole", "broken"):
        with Store.open(tmp_path / name) as store:
            result = pipeline.add(store, AddConfig(format="coco", path=uri, role="mine"))
            assert (result.done, result.failed) == (SIZES["mine"], 0)
        found[name] = rows(tmp_path / name)
    assert found["whole"] == found["broken"]


def test_labels_that_do_not_come_end_it_and_a_damaged_file_is_fetched_again(
    bucket: Bucket, data: Path, tmp_path: Path
) -> None:
    uri = bucket.put(data / "mine", "mine")
    config = AddConfig(format="coco", path=uri, role="mine")
    with Store.create(tmp_path / "ws") as store:
        bucket.script("mine/annotations.json", *[503] * 4)
        with pytest.raises(RemoteError, match=f"{uri}/annotations.json: not read in 4 tries"):
            pipeline.add(store, config)
        assert pipeline.add(store, config).done == SIZES["mine"]
        (labels,) = (tmp_path / "ws" / "remote").rglob("annotations.json")
        labels.write_bytes(b"{")
        assert pipeline.add(store, config).skipped == SIZES["mine"]


def test_yolo_and_voc_and_labels_here_with_images_there(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    counts = {}
    with Store.create(tmp_path / "made") as store:
        for config in places(str(data))[:1]:
            pipeline.add(store, config)
        for format in ("yolo", "voc"):
            export(store, ExportConfig(format=format, out=tmp_path / format))
    for format in ("yolo", "voc"):
        there = bucket.put(tmp_path / format, format)
        for kind, path in (("here", str(tmp_path / format)), ("there", there)):
            with Store.create(tmp_path / f"{format} {kind}") as store:
                result = pipeline.add(store, AddConfig(format=format, path=path, role="train"))
                assert result.failed == 0
                notes = [note.replace(there, "X").replace(path, "X") for note in result.summary["notes"]]
                counts[format, kind] = (result.summary["objects"], result.done, notes)
                assert str(tmp_path) not in str(result.summary["notes"]) or kind == "here"
        assert counts[format, "here"] == counts[format, "there"]
    images = bucket.put(data / "mine" / "images", "elsewhere")
    with Store.create(tmp_path / "mixed") as store:
        labels = data / "mine" / "annotations.json"
        shutil.copy(labels, tmp_path / "labels.json")
        config = AddConfig(format="coco", path=tmp_path / "labels.json", images=images, role="mine")
        assert pipeline.add(store, config).done == SIZES["mine"]
    named = bucket.put(data / "mine", "named")
    with Store.create(tmp_path / "file") as store:
        config = AddConfig(format="coco", path=f"{named}/annotations.json", role="mine")
        assert pipeline.add(store, config).done == SIZES["mine"]


def test_images_that_moved_are_followed(bucket: Bucket, data: Path, tmp_path: Path) -> None:
    folder = data / "pool" / "images"
    names = [file.name for file in folder.iterdir()]
    old = bucket.put(folder, "old")
    with Store.create(tmp_path / "ws") as store:
        pipeline.add(store, AddConfig(format="images", path=old, role="pool", dataset="pool"))
        new = bucket.put(folder, "new")
        bucket.remove(f"old/{names[0]}")
        pipeline.add(store, AddConfig(format="images", path=new, role="pool", dataset="pool"))
        uris = {image.uri for image in store.images(reader="index", role="pool")}
        assert uris == {f"{new}/{names[0]}", *(f"{old}/{name}" for name in names[1:])}


def test_wrong_addresses_are_one_line(bucket: Bucket, tmp_path: Path) -> None:
    with Store.create(tmp_path / "ws") as store:

        def add(path: str, format: str = "images") -> None:
            pipeline.add(store, AddConfig(format=format, path=path, role="pool"))

        with pytest.raises(RemoteError, match=f"{bucket.uri}/no: nothing is there"):
            add(f"{bucket.uri}/no")
        with pytest.raises(RemoteError, match="nothing is there"):
            add("s3://no-such-bucket-here/x")
        for secret in ("s3://KEY:SECRET@bucket/x", "s3://bucket/x?X-Amz-Signature=SECRET"):
            with pytest.raises(RemoteError, match="without a password") as caught:
                add(secret)
            assert "SECRET" not in str(caught.value)
        with pytest.raises(RemoteError, match="expected a local path or s3://"):
            add("ftp://host/x")
        bucket.write("texts/a.txt", b"x")
        with pytest.raises(FormatError, match=rf"^{bucket.uri}/texts: expected images, found 1 .txt"):
            add(f"{bucket.uri}/texts")
        with pytest.raises(FormatError, match="reads local folders alone"):
            add(f"{bucket.uri}/texts", "video")
    assert "SECRET" not in (tmp_path / "ws" / "curator.db").read_bytes().decode("latin1")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "testing"
