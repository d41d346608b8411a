"""A tiny rendered workspace, copied for every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from curator import pipeline
from curator.data.settings import AddConfig
from curator.example.dataset import write_dataset
from curator.inpaint.checkpoint import save_pipeline
from curator.inpaint.exemplar import build_pipeline
from store.records import ROLES
from store.store import Store
from tests.stale.loop import SIZES, detecting, diagnosing


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the workspaces `added` (images), `detected`, `diagnosed`, and `inpainter` with random weights."""
    root = tmp_path_factory.mktemp("stale")
    write_dataset(root / "data", sizes=SIZES, seed=4, size=96)
    save_pipeline(build_pipeline(size=32, width=32, channels=(16, 32), seed=1), root / "inpainter")
    with Store.create(root / "added") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
    shutil.copytree(root / "added", root / "detected")
    with Store.open(root / "detected") as store:
        pipeline.detect(store, detecting())
    shutil.copytree(root / "detected", root / "diagnosed")
    with Store.open(root / "diagnosed") as store:
        pipeline.diagnose(store, diagnosing())
    return root


@pytest.fixture
def fresh(folder: Path, tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    """Opens a new copy of the workspace `added`, `detected` or `diagnosed`."""
    with ExitStack() as opened:
        count = 0

        def copy(name: str = "diagnosed") -> Store:
            nonlocal count
            count += 1
            path = tmp_path / f"{name}-{count}"
            shutil.copytree(folder / name, path)
            return opened.enter_context(Store.open(path))

        yield copy


@pytest.fixture
def inpainter(folder: Path) -> Path:
    """The folder of an inpainter with random weights."""
    return folder / "inpainter"
