"""Two machines, as far as one machine can be two: nodes of a Ray cluster on loopback, one of which dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator import pipeline
from curator.data.settings import AddConfig
from curator.errors import InputError
from curator.example.dataset import write_dataset
from curator.jobs import cluster as clusters
from curator.jobs.base import Done, Failed, Work
from curator.jobs.choose import open_executor
from curator.jobs.ray import RayExecutor
from curator.synthesize.settings import SynthesizeConfig
from store.records import ROLES
from store.store import Store
from tests.jobs.conftest import need_ray
from tests.jobs.works import Doubling, set_ups
from tests.stale.loop import (
    detecting,
    diagnosing,
    explaining,
    indexing,
    read_explanations,
    read_samples,
)

need_ray()

SIZES = {"train": 2, "mine": 5, "pool": 14, "holdout": 2}


def clusters_began() -> bool:
    """Has this process begun a cluster, in tests of another file? Then it asks for Ray's token from then on:
    nodes that do not send it could not reach it, and its actors would never start."""
    from ray._raylet import AuthenticationMode, get_authentication_mode

    return bool(get_authentication_mode() == AuthenticationMode.TOKEN)


@pytest.fixture(scope="module")
def nodes(importable: None) -> Iterator[Any]:
    """A cluster whose head computes nothing, and two nodes with one CPU each; another is added when asked."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray13-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        settings = {**clusters.QUIET, **clusters.LOOPBACK, "RAY_TMPDIR": folder}
        if clusters_began():
            settings[clusters.AUTH_MODE] = "token"
        for name, value in settings.items():
            patch.setenv(name, value)
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            found.add_node(num_cpus=1)
        yield found
        found.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker with one CPU: sums in another number of threads differ in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the workspace `added`, and `here`, worked on in this process."""
    root = tmp_path_factory.mktemp("nodes")
    write_dataset(root / "data", sizes=SIZES, seed=5, size=96)
    with Store.create(root / "added") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
    shutil.copytree(root / "added", root / "here")
    with Store.open(root / "here") as store:
        pipeline.detect(store, detecting(roles=("mine", "pool")))
        pipeline.diagnose(store, diagnosing())
        pipeline.index(store, indexing())
    return root


@dataclass
class KillsANode:
    """Kills, after the first batch of the work called `during`, the node of a worker that has batches."""

    inner: RayExecutor
    cluster: Any
    during: str
    killed: list[str] = field(default_factory=list)
    lost: int = 0

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Done | Failed]]:
        for batch in self.inner.run(work, items):
            yield batch
            if type(work).__name__ == self.during and not self.killed:
                self._kill()

    def _kill(self) -> None:
        assert self.inner._pool is not None
        held = next(h for h in self.inner._pool.workers if h.ready and h.flights)
        assert held.ready is not None
        os.kill(held.ready.pid, signal.SIGSTOP)  # so that what it works on is lost for certain
        self.lost = len(held.flights)
        (node,) = (n for n in self.cluster.worker_nodes if n.node_id == held.ready.node)
        self.cluster.remove_node(node, allow_graceful=False)
        os.kill(held.ready.pid, signal.SIGKILL)
        self.killed.append(held.ready.node)


def detections(store: Store) -> dict[int, tuple[Any, ...]]:
    model = store.outcomes()[0].model_id if store.outcomes() else store.models()[0].id
    ids = [*store.image_ids(role="mine"), *store.image_ids(role="pool")]
    found = store.detections(model, ids)
    return {
        i: (s.key, s.pin, s.detections.boxes.tobytes(), s.detections.scores.tobytes())
        for i, s in found.items()
    }


def indexed(store: Store, name: str) -> dict[str, bytes]:
    """Every stored box of the space with its vectors, by image."""
    found = {}
    for kind in ("offered", "outcomes"):
        rows = store.boxes(name, kind)  # type: ignore[arg-type]
        order = np.lexsort((np.arange(len(rows)), rows.image_ids))  # files are in the order of the results
        for what in ("image_ids", "sizes", "boxes", "labels", "scores", "outcome_ids", "attribution_ids"):
            found[f"{kind} {what}"] = getattr(rows, what)[order].tobytes()
        for view, values in rows.views.items():
            found[f"{kind} {view}"] = values[order].tobytes()
        for view, values in rows.image_views.items():
            found[f"{kind} {view} of the image"] = values[rows.image_places][order].tobytes()
    return found


def test_a_node_dies_in_the_middle(folder: Path, nodes: Any, tmp_path: Path) -> None:
    """Of `detect` and, after another has joined, of `index`: the rows are those of one process."""
    shutil.copytree(folder / "added", tmp_path / "there")
    with (
        Store.open(folder / "here") as here,
        Store.open(tmp_path / "there") as there,
        open_executor(f"ray://{nodes.address}?actors=2", "cpu") as executor,
    ):
        assert executor is not None
        disturbed = KillsANode(executor, nodes, "DetectWork")
        result = pipeline.detect(there, detecting(roles=("mine", "pool")), executor=disturbed)
        assert (result.done, result.failed, len(disturbed.killed)) == (19, 0, 1)
        assert disturbed.lost >= 1
        assert detections(there) == detections(here)
        pipeline.diagnose(there, diagnosing())

        nodes.add_node(num_cpus=1)
        disturbed = KillsANode(executor, nodes, "IndexWork")
        result = pipeline.index(there, indexing(), executor=disturbed)
        assert (result.done, result.failed, len(disturbed.killed)) == (19, 0, 1)
        name = result.summary["space"]
        shape, same = here.space(name), there.space(name)
        assert shape is not None and same is not None  # noqa: PT018
        assert {k: v.tobytes() for k, v in same.arrays.items()} == {
            k: v.tobytes() for k, v in shape.arrays.items()
        }
        assert len(there.boxes(name, "offered")) > 100
        assert indexed(there, name) == indexed(here, name)
        again = pipeline.detect(there, detecting(roles=("mine", "pool")))  # in this process
        assert (again.done, again.skipped) == (0, 19)


def test_explain_and_synthesize_give_the_rows_of_one_process(
    folder: Path, nodes: Any, tmp_path: Path
) -> None:
    """`synthesize` runs several times in a row on the same workers, whose results come in any order."""
    painting = SynthesizeConfig(
        budget=2, attempts=3, batch_size=1, device="cpu", failures="FN", inpainter="compose:"
    )
    nodes.add_node(num_cpus=2)
    rows = []
    for place in ("local", f"ray://{nodes.address}?actors=2"):
        shutil.copytree(folder / "here", tmp_path / place[:3])
        with Store.open(tmp_path / place[:3]) as store, open_executor(place, "cpu") as executor:
            assert pipeline.explain(store, explaining(), executor=executor).failed == 0
            assert pipeline.synthesize(store, painting, executor=executor).failed == 0
            rows.append((read_explanations(store), read_samples(store)))
    assert rows[0] == rows[1]
    assert len(rows[0][0]) > 5
    assert len(rows[0][1]) >= 2


def test_a_command_joins_a_cluster_and_leaves_it_running(folder: Path, nodes: Any, tmp_path: Path) -> None:
    shutil.copytree(folder / "added", tmp_path / "ws")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "curator.cli", "-w", str(tmp_path / "ws"), "detect", "--json"),
            *("--detector", detecting().detector, "--device", "cpu", "--batch-size", "1"),
            *("--executor", f"ray://{nodes.address}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    summary = json.loads(ran.stdout)
    assert (summary["done"], summary["failed"]) == (5, 0)
    assert all(node.any_processes_alive() for node in nodes.list_all_nodes())


def test_wrong_addresses_are_told_at_once(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        monkeypatch.setattr(clusters, "JOIN", 4)
        with (
            pytest.raises(
                InputError, match=f"could not join .no answer as of a Ray cluster.*address=127.*{port}"
            ),
            RayExecutor(f"127.0.0.1:{port}") as executor,
        ):
            list(executor.run(Doubling(str(tmp_path)), [1]))
    with pytest.raises(InputError, match=f"ray://127.0.0.1:{port}: nobody answers there .Connection refused"):
        open_executor(f"ray://127.0.0.1:{port}")


def test_every_worker_has_a_gpu_of_its_own(nodes: Any, tmp_path: Path) -> None:
    """As Ray counts them: this machine needs none for that."""
    node = nodes.add_node(num_cpus=3, num_gpus=2)
    with RayExecutor(nodes.address, device="auto") as executor:
        found = list(executor.run(Doubling(str(tmp_path), batch_size=1, slow=0.1), range(12)))
    assert len(found) == 12
    assert sorted(path.read_text() for path in tmp_path.glob("setup-*")) == ["cuda 0", "cuda 1"]
    assert len(set(set_ups(tmp_path))) == 2
    nodes.remove_node(node)
