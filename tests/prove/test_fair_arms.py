"""`verify` and `train` leave out what equals the holdout, and draw from the whole pool or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from curator.cli import app
from curator.data.run_add import add
from curator.data.run_additions import left_out
from curator.data.settings import AddConfig
from curator.errors import InputError
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.prove.run_arms import read_pool, usable_hits, usable_samples
from curator.prove.run_train import train
from curator.prove.run_verify import verify
from curator.prove.settings import TrainConfig, VerifyConfig
from store.images import encode_png
from store.keys import content_key
from store.records import Hit, NewAnnotation, Role, Sample, Selection, Verdict
from store.store import Store

DETECTOR = f"curator:ssd?classes={','.join(CLASSES)}&size=96&channels=4,6,8,8,8&anchors=16,32,56,80"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fair") / "data"
    write_dataset(folder, sizes={"train": 6, "mine": 3, "pool": 8, "holdout": 4}, seed=7, size=96)
    return folder


@pytest.fixture
def store(data: Path, tmp_path: Path) -> Any:
    """A workspace whose selection "query" holds half of the labelled pool."""
    roles: tuple[Role, ...] = ("train", "mine", "pool", "holdout")
    with Store.create(tmp_path / "ws") as store:
        for role in roles:
            add(store, AddConfig(format="coco", path=data / role, role=role))
        select(store, store.image_ids(role="pool")[:4])
        yield store


def select(store: Store, ids: Sequence[int]) -> None:
    hits = tuple(
        Hit(rank=k, image_id=i, outcome_id=None, group="g", box=(0, 0, 9, 9), score=0.0)
        for k, i in enumerate(ids, start=1)
    )
    selection = Selection(name="query", arm="query", hits=hits, config={}, key=content_key(list(ids)))
    store.put_selection(store.begin_run("query", config={}), selection)


def add_copies(
    store: Store,
    source: Path,
    numbers: Sequence[int],
    folder: Path,
    role: Role,
    *,
    quality: int | None = None,
) -> None:
    """Add images of a data set in another role: byte by byte, or encoded anew."""
    table = json.loads((source / "annotations.json").read_text())
    table["images"] = [table["images"][n] for n in numbers]
    ids = {image["id"] for image in table["images"]}
    table["annotations"] = [a for a in table["annotations"] if a["image_id"] in ids]
    (folder / "images").mkdir(parents=True)
    (folder / "annotations.json").write_text(json.dumps(table))
    for image in table["images"]:
        if quality is None:
            shutil.copyfile(source / image["file_name"], folder / image["file_name"])
        else:
            Image.open(source / image["file_name"]).save(folder / image["file_name"], quality=quality)
    add(store, AddConfig(format="coco", path=folder, role=role))


def leak(store: Store, data: Path, folder: Path) -> None:
    """Two selected and two training images get into the holdout: one of each as it is, one encoded anew."""
    for role in ("pool", "train"):
        add_copies(store, data / role, [0], folder / f"{role}-same", "holdout")
        add_copies(store, data / role, [1], folder / f"{role}-near", "holdout", quality=85)


def config(**fields: Any) -> VerifyConfig:
    return VerifyConfig(
        **{"detector": DETECTOR, "budget": 4, "steps": 1, "batch_size": 2, "device": "cpu", **fields}
    )


def test_verify_leaves_out_what_equals_the_holdout_and_says_so(
    store: Store, data: Path, tmp_path: Path
) -> None:
    clean = verify(store, config(arms=("nothing", "query")))
    assert (clean.summary["left_out"], clean.summary["warnings"]) == (0, [])
    assert clean.summary["arms"]["query"]["n_added"] == [4]
    leak(store, data, tmp_path / "leaks")
    result = verify(store, config(arms=("nothing", "query")))
    assert (result.done, result.skipped) == (2, 0)  # other images: other trials
    assert result.summary["arms"]["query"]["n_added"] == [2]
    assert result.summary["left_out"] == 4
    assert result.summary["left_out_by_reason"] == {
        "equals a holdout image": 2,
        "nearly equals a holdout image": 2,
    }
    warning, advice, short = result.summary["warnings"]
    assert short.startswith("query adds 2 images where 4 were asked for")
    assert warning.endswith("2 of role train, 2 of selection 'query'")
    assert "--near-duplicates 0" in advice


def test_train_leaves_them_out_too_and_reads_none_of_their_labels(
    store: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak(store, data, tmp_path / "leaks")
    ids = store.image_ids(role="train") + store.image_ids(role="pool")
    bad = set(store.leaks(ids, roles=("holdout",)))
    assert len(bad) == 4
    read: set[int] = set()
    annotations = Store.annotations

    def watched(self: Store, ids: Sequence[int], **named: Any) -> Any:
        read.update(ids)
        return annotations(self, ids, **named)

    monkeypatch.setattr(Store, "annotations", watched)
    result = train(
        store,
        TrainConfig(
            detector=DETECTOR,
            out=tmp_path / "w.safetensors",
            selections=("query",),
            steps=1,
            batch_size=2,
            device="cpu",
        ),
    )
    assert (result.summary["images"], result.summary["added"], result.summary["left_out"]) == (4, 2, 4)
    assert len(result.summary["warnings"]) == 2
    assert read
    assert not read & (bad | set(store.image_ids(role="holdout")))


def test_a_training_image_may_equal_a_mined_one(store: Store, data: Path, tmp_path: Path) -> None:
    add_copies(store, data / "train", [0, 2], tmp_path / "mined", "mine")
    train_ids = store.image_ids(role="train")
    assert len(store.leaks(train_ids)) == 2
    assert not left_out(store, (), ()).originals
    add_copies(store, data / "train", [2], tmp_path / "both", "holdout", quality=85)
    assert left_out(store, (), ()).originals.keys() == {train_ids[2]}


def test_samples_made_from_copies_of_the_holdout_are_left_out(
    store: Store, data: Path, tmp_path: Path
) -> None:
    mined = store.image_ids(role="mine")
    run = store.begin_run("synthesize", config={})
    for number, (scene, exemplar) in enumerate(
        [(mined[1], mined[2]), (mined[0], None), (mined[1], mined[0])]
    ):
        sample = Sample(
            name="batch",
            blob=store.put_blob(encode_png(np.full((8, 8, 3), number, np.uint8))),
            width=8,
            height=8,
            recipe="culprit",
            group="g",
            scene_image_id=scene,
            exemplar_image_id=exemplar,
            outcome_id=None,
            painted=(0, 0, 4, 4),
            annotations=(NewAnnotation(category=CLASSES[0], box=(0, 0, 4, 4)),),
            seed=0,
            key=f"sample-{number}",
        )
        store.put_sample(run, sample)
        verdict = Verdict(check="c", accepted=True, value=1.0, bound=0.0, reason="")
        store.put_verdicts(run, sample.key, [verdict])
    assert len(usable_samples(store, "batch", left_out(store, (), ("batch",)))) == 3
    add_copies(store, data / "mine", [0], tmp_path / "leaks", "holdout")
    without = left_out(store, (), ("batch",))
    assert [s.key for s in usable_samples(store, "batch", without)] == ["sample-0"]
    assert without.summary()["left_out"] == 2
    add_copies(store, data / "mine", [1], tmp_path / "more", "holdout")
    with pytest.raises(InputError, match=r"all 3 tell of held-out images \(3: its scene equals"):
        usable_samples(store, "batch", left_out(store, (), ("batch",)))


def test_a_selection_of_leaks_alone_is_refused(store: Store, data: Path, tmp_path: Path) -> None:
    select(store, store.image_ids(role="pool")[:1])
    add_copies(store, data / "pool", [0], tmp_path / "leaks", "holdout", quality=85)
    with pytest.raises(InputError, match=r"got none \(1: nearly equals a holdout image\); select anew"):
        usable_hits(store, "query", left_out(store, ("query",), ()))


def test_random_and_oracle_are_drawn_from_the_whole_pool_or_not_at_all(data: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    with Store.create(workspace) as store:
        for role in ("train", "holdout"):
            add(store, AddConfig(format="coco", path=data / role, role=role))
        with pytest.raises(InputError, match="expected all of its 0 images labelled"):
            read_pool(store)
        add(store, AddConfig(format="images", path=data / "pool" / "images", role="pool"))
        select(store, store.image_ids(role="pool")[:3])
        add_copies(store, data / "pool", [0, 1, 2], tmp_path / "labelled", "pool")
        for arm in ("random", "oracle"):
            with pytest.raises(
                InputError, match="expected all of its 8 images labelled, got 3; leave"
            ) as bad:
                verify(store, config(arms=("nothing", arm, "query"), budget=2))
            assert bad.value.exit_code == 2
            assert "curator query --method random" in str(bad.value)
            assert "\n" not in str(bad.value)
        assert not [s for s in store.selections() if s.name != "query"]
        assert not store.trials("verify")
        assert verify(store, config(arms=("nothing", "query"), budget=2)).done == 2
        add_copies(store, data / "pool", [3, 4, 5, 6, 7], tmp_path / "rest", "pool")
        assert len(read_pool(store).images) == 8
    command = f"-w {workspace} verify --detector {DETECTOR} --arms nothing,random --budget 2 --steps 1"
    text = CliRunner().invoke(app, [*command.split(), "--batch-size", "2", "--device", "cpu"]).stdout
    assert "number of false positives (FN fixed, broken) or of found objects (FP fixed, new FP)" in text
