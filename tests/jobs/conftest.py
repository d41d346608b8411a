"""A Ray cluster of this machine for the tests of a file; skipped where ray is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from curator.jobs.ray import RayExecutor

ROOT = Path(__file__).resolve().parents[2]


def need_ray() -> None:
    """Skip where ray is missing; where it is not it is imported as curator does it, on loopback."""
    if find_spec("ray") is not None:
        from curator.jobs.cluster import import_ray

        import_ray()
    pytest.importorskip("ray", reason='pip install "curator[ray]"')


@pytest.fixture(scope="session")
def importable() -> Iterator[None]:
    """Processes that are started find the tests' works by name."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def two_actors(importable: None) -> Iterator[RayExecutor]:
    """An executor with two workers."""
    need_ray()
    from curator.jobs.ray import RayExecutor

    with RayExecutor(device="cpu", actors=2) as executor:
        yield executor
