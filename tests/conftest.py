"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from curator.progress import set_quiet

os.environ.setdefault("CURATOR_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores; libraries that take all of them wait for one another (up to 11-fold).
    share = str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", share)


OPEN = PIL.Image.open


@pytest.fixture(autouse=True)
def _pillow_as_it_is() -> Iterator[None]:
    """The package ultralytics, where a test imports it, replaces Pillow's `open` for the whole process."""
    yield
    PIL.Image.open = OPEN


@pytest.fixture(autouse=True)
def _as_loud_as_before() -> Iterator[None]:
    """`curator -q`, run within a test, keeps its whole process quiet, whatever test comes next."""
    yield
    set_quiet(False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set CURATOR_SHARED)")
    return path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved `ExemplarInpaintPipeline` with random weights, for crops of 32 pixels."""
    from curator.inpaint.checkpoint import save_pipeline
    from curator.inpaint.exemplar import build_pipeline

    folder = tmp_path_factory.mktemp("inpainter")
    save_pipeline(build_pipeline(size=32, width=32, channels=(16, 32), seed=1), folder)
    return folder


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny StableDiffusionInpaintPipeline with its own tokenizer, random weights."""
    pytest.importorskip("transformers")
    from tests.tiny_diffusion import save_stable_diffusion

    return save_stable_diffusion(tmp_path_factory.mktemp("sd"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: begun last, it would keep one core waiting for it."""
    items.sort(key=lambda item: "test_kill_and_resume" not in item.nodeid)
