"""`curator train` on a real workspace: trains, skips, resumes, refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.errors import InputError
from curator.example.dataset import write_dataset
from curator.prove.settings import TrainConfig
from store.errors import AccessError, NotFoundError
from store.records import Hit, Selection
from store.store import Store

SPEC = (
    "curator:ssd?classes=red-blossom,yellow-blossom,violet-blossom,red-stem,yellow-stem,violet-stem"
    "&size=64&channels=4,6,8,8,8&anchors=12,24,40,60"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    write_dataset(root / "data", sizes={"train": 6, "pool": 6}, seed=2)
    with Store.create(root / "ws") as store:
        for role in ("train", "pool"):
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
        chosen = store.image_ids(role="pool")[:2]
        run = store.begin_run("query", config={})
        hits = tuple(
            Hit(
                rank=rank,
                image_id=i,
                outcome_id=None,
                group="",
                score=0.0,
                box=(0.0, 0.0, 192.0, 192.0),
            )
            for rank, i in enumerate(chosen, start=1)
        )
        store.put_selection(run, Selection(name="query", arm="query", hits=hits, config={}, key="k"))
        store.finish_run(run, status="done", counts={})
    return root / "ws"


def config(out: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(detector=SPEC, out=out, steps=4, batch_size=2, batch_norm="train", device="cpu")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_it_trains_once_and_writes_weights_that_load(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    with Store.open(workspace) as store:
        first = pipeline.train(store, config(out))
        assert (first.done, first.skipped, first.failed) == (1, 0, 0)
        assert (first.summary["images"], first.summary["added"]) == (6, 0)
        trained = load_detector(f"curator:{out}", "cpu")
        assert trained.fingerprint == first.summary["fingerprint"] != load_detector(SPEC, "cpu").fingerprint
        out.unlink()
        second = pipeline.train(store, config(out))
        assert (second.done, second.skipped) == (0, 1)
        assert second.summary == first.summary
        assert load_detector(f"curator:{out}", "cpu").fingerprint == trained.fingerprint


def test_selected_images_are_added_and_change_the_weights(workspace: Path, tmp_path: Path) -> None:
    with Store.open(workspace) as store:
        without = pipeline.train(store, config(tmp_path / "a.safetensors"))
        added = pipeline.train(store, config(tmp_path / "b.safetensors", selections=("query",)))
    assert added.summary["added"] == 2
    assert added.summary["fingerprint"] != without.summary["fingerprint"]


def test_out_is_a_safetensors_file_and_replaces_no_other_detector(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    with Store.open(workspace) as store:
        with pytest.raises(InputError, match=r"ends with \.safetensors, such as .*/weights\.safetensors$"):
            pipeline.train(store, config(tmp_path / "weights.pth"))
        first = pipeline.train(store, config(out))
        again = pipeline.train(store, config(out, steps=5))  # the same detector, trained otherwise
        assert again.summary["fingerprint"] != first.summary["fingerprint"]
        assert pipeline.train(store, config(out)).skipped == 1
        held = out.read_bytes()
        lies = r"curator-ssd of 6 classes \(red-blossom, .* \.\.\.\) lies there, not "
        fewer = SPEC.replace(",violet-stem", "")
        with pytest.raises(InputError, match=lies + "curator-ssd of 5 classes .*; name another --out"):
            pipeline.train(store, config(out, detector=fewer))
        other = SPEC.replace("curator:ssd?", "curator:fcos?").partition("&")[0]
        with pytest.raises(InputError, match=lies + "curator-fcos of 6 classes"):
            pipeline.train(store, config(out, detector=other))
        assert out.read_bytes() == held
        out.write_text("notes")
        with pytest.raises(InputError, match="a file lies there that curator did not write"):
            pipeline.train(store, config(out))
        assert out.read_text() == "notes"


def test_average_precision_is_shown_while_it_trains_and_changes_no_weight(
    tmp_path: Path,
) -> None:
    write_dataset(tmp_path / "data", sizes={"train": 6, "mine": 5}, seed=2)
    with Store.create(tmp_path / "ws") as store:
        pipeline.add(store, AddConfig(format="coco", path=tmp_path / "data" / "train", role="train"))
        with pytest.raises(InputError, match="expected annotated images with the role mine"):
            pipeline.train(store, config(tmp_path / "watched.safetensors", watch=2))
        pipeline.add(store, AddConfig(format="coco", path=tmp_path / "data" / "mine", role="mine"))
        watched = pipeline.train(store, config(tmp_path / "watched.safetensors", watch=3, seed=5))
        assert [step for step, _ in watched.summary["watched"]] == [3, 4]
        assert all(0 <= precision <= 1 for _, precision in watched.summary["watched"])
    with Store.create(tmp_path / "other") as store:
        pipeline.add(store, AddConfig(format="coco", path=tmp_path / "data" / "train", role="train"))
        plain = pipeline.train(store, config(tmp_path / "plain.safetensors", seed=5))
    assert plain.summary["fingerprint"] == watched.summary["fingerprint"]


def test_a_killed_training_continues(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"steps": 53, "seed": 9}
    steps = 0
    step = torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 52:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)  # type: ignore[arg-type]

    with Store.open(workspace) as store:
        monkeypatch.setattr(torch.optim.AdamW, "step", counted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(store, config(tmp_path / "a.safetensors", **wanted))
        assert not (tmp_path / "a.safetensors").exists()
        resumed = pipeline.train(store, config(tmp_path / "a.safetensors", **wanted))
        assert steps == 52 + 3  # from the checkpoint of step 50
        shutil.rmtree(workspace / "training")
        whole = pipeline.train(store, config(tmp_path / "b.safetensors", **wanted))
    assert resumed.summary["fingerprint"] == whole.summary["fingerprint"]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_cannot_be_trained_is_refused(workspace: Path, tmp_path: Path) -> None:
    with Store.open(workspace) as store:
        with pytest.raises(NotFoundError):
            pipeline.train(store, config(tmp_path / "a.safetensors", selections=("none",)))
        with pytest.raises(InputError, match="accepted sample"):
            pipeline.train(store, config(tmp_path / "a.safetensors", samples=("none",)))
        hidden = store.image_ids(role="pool")[-1]
        with pytest.raises(AccessError):
            store.annotations([hidden], reader="train")
    with Store.create(tmp_path / "empty") as store, pytest.raises(InputError, match="role train"):
        pipeline.train(store, config(tmp_path / "a.safetensors"))
