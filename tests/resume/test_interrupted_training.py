"""Ctrl-C (a real SIGINT) in a training: the same command continues at that step, to the very same weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.example.dataset import write_dataset
from curator.prove.settings import TrainConfig, VerifyConfig
from store.store import Store

CHILD = Path(__file__).parent / "interrupted_child.py"
SPEC = (
    "curator:ssd?classes=red-blossom,yellow-blossom,violet-blossom,red-stem,yellow-stem,violet-stem"
    "&size=64&channels=4,6,8,8,8&anchors=12,24,40,60"
)
TRAIN: dict[str, Any] = {"steps": 12, "batch_size": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interrupted")
    write_dataset(root / "data", sizes={"train": 6, "mine": 4, "holdout": 20}, seed=2)
    with Store.create(root / "ws") as store:
        for role in ("train", "mine", "holdout"):
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
        pipeline.detect(store, DetectConfig(detector=SPEC, device="cpu"))
        pipeline.diagnose(store, DiagnoseConfig(device="cpu"))
    return root


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Optimiser steps of this process inside."""
    steps = [0]

    def count(*_: Any) -> None:
        steps[0] += 1

    handle = register_optimizer_step_pre_hook(count)
    try:
        yield steps
    finally:
        handle.remove()


def interrupted(when: str, workspace: Path, *words: str) -> str:
    """Give a command to another process, which is interrupted; what it said."""
    settings = ["--steps", "12", "--batch-size", "2", "--device", "cpu"]
    child = subprocess.run(
        [sys.executable, str(CHILD), when, "--workspace", str(workspace), *words, *settings],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 130, child.stderr[-2000:]
    assert "stopped; the same command continues where it was" in child.stderr
    return child.stderr


@pytest.mark.timeout(300)
def test_a_training_stopped_by_ctrl_c_continues_at_that_step(root: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    shutil.copytree(root / "ws", workspace)
    out = tmp_path / "stopped.safetensors"
    interrupted("step:7", workspace, "train", "--detector", SPEC, "--out", str(out), "--batch-norm", "train")
    assert not out.exists()
    wanted = {"detector": SPEC, "batch_norm": "train", **TRAIN}
    with Store.open(workspace) as store:
        with counted_steps() as steps:
            pipeline.train(store, TrainConfig(out=out, **wanted))
        assert steps == [12 - 7]
        shutil.rmtree(workspace / "training")
        whole = tmp_path / "whole.safetensors"
        with counted_steps() as steps:
            pipeline.train(store, TrainConfig(out=whole, **wanted))
        assert steps == [12]
        assert not list((workspace / "training").rglob("checkpoint*"))
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.timeout(300)
def test_a_trial_stopped_while_the_holdout_is_read_is_not_trained_again(root: Path, tmp_path: Path) -> None:
    fates = {}
    for name in ("stopped", "whole"):
        workspace = tmp_path / name
        shutil.copytree(root / "ws", workspace)
        if name == "stopped":
            pictures = f"holdout:{root / 'data' / 'holdout'}"
            interrupted(pictures, workspace, "verify", "--arms", "nothing", "--score-threshold", "0.2")
        with Store.open(workspace) as store:
            config = VerifyConfig(arms=("nothing",), score_threshold=0.2, **TRAIN)
            with counted_steps() as steps:
                result = pipeline.verify(store, config)
            assert (result.done, result.failed) == (1, 0)
            assert steps == [0 if name == "stopped" else 12]
            (trial,) = store.trials("verify")
            fates[name] = (store.blob(trial.metrics["fates"]), trial.metrics["training"])
            assert not list((workspace / "training").glob("*"))
    assert fates["stopped"] == fates["whole"]
