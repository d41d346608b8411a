"""What goes wrong on a cluster of one machine, and what it costs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import InputError, StageError
from curator.jobs import dispatch
from curator.jobs.base import Done, Failed
from curator.jobs.ray import RayExecutor
from curator.jobs.worker import Refused, Worker
from tests.jobs.conftest import need_ray
from tests.jobs.works import Doubling, DyingSetup, Strange, set_ups, tried

need_ray()

if TYPE_CHECKING:
    from collections.abc import Iterable


def collect(executor: RayExecutor, work: Any, items: Iterable[Any]) -> dict[Any, Done | Failed]:
    found = [result for batch in executor.run(work, items) for result in batch]
    assert len({result.key for result in found}) == len(found)  # each item once
    return {result.item: result for result in found}


def failures(found: dict[Any, Done | Failed]) -> dict[Any, str]:
    return {item: result.reason for item, result in found.items() if isinstance(result, Failed)}


def times(folder: Path) -> Counter[int]:
    return Counter(item for item, _ in tried(folder))


def test_a_poisoned_item_fails_alone(two_actors: RayExecutor, tmp_path: Path) -> None:
    """6 leaves by os._exit, 17 is killed; their batch mates are done, alone."""
    found = collect(two_actors, Doubling(str(tmp_path), poison=(6, 17)), range(24))
    why = failures(found)
    assert sorted(why) == [6, 17]
    for reason in why.values():
        assert reason.startswith("its worker process died on ")
        assert reason.endswith("(crash, exit or out of memory), and again when tried alone")
        assert "\n" not in reason
    done = {item: result.value for item, result in found.items() if isinstance(result, Done)}
    assert done == {i: 2 * i for i in range(24) if i not in (6, 17)}
    assert (times(tmp_path)[6], times(tmp_path)[17]) == (2, 2)
    assert max(times(tmp_path).values()) <= 3  # once more where the answer of a batch went down with a worker


def test_one_that_died_by_accident_is_done(two_actors: RayExecutor, tmp_path: Path) -> None:
    found = collect(two_actors, Doubling(str(tmp_path), dies_once=(5,), batch_size=1), range(8))
    assert failures(found) == {}
    assert times(tmp_path)[5] == 2


def test_a_worker_that_is_killed_costs_its_batch_only(two_actors: RayExecutor, tmp_path: Path) -> None:
    found: list[Done | Failed] = []
    killed = 0
    for batch in two_actors.run(Doubling(str(tmp_path), slow=0.15), range(40)):
        found += batch
        if not killed:
            pid = tried(tmp_path)[-1][1]
            os.kill(pid, signal.SIGSTOP)
            within = sum(own == pid for _, own in tried(tmp_path)) % 4  # else it may just have answered
            killed = pid if within else 0
            os.kill(pid, signal.SIGKILL if within else signal.SIGCONT)
    assert killed
    assert sorted((r.item, r.value) for r in found if isinstance(r, Done)) == [(i, 2 * i) for i in range(40)]
    again = [item for item, count in times(tmp_path).items() if count > 1]
    assert 1 <= len(again) <= 8  # the batch that it worked on, and one whose answer was on its way
    assert len(set_ups(tmp_path)) <= 3  # both workers, and the one that took its place


@pytest.mark.parametrize("size", [1, 3])
def test_items_that_take_too_long(
    importable: None, two_actors: RayExecutor, tmp_path: Path, size: int
) -> None:
    """4 is stuck for good: it failed; 7 was stuck once: it is done."""
    two_actors._timeout, before = 0.4, two_actors._timeout
    try:
        work = Doubling(str(tmp_path), stuck=(4,), stuck_once=(7,), batch_size=size)
        found = collect(two_actors, work, range(10))
    finally:
        two_actors._timeout = before
    (reason,) = failures(found).values()
    assert isinstance(found[4], Failed)
    assert reason.startswith("it took longer than 0.4 s on ")
    assert reason.endswith(", and again when tried alone")
    assert (times(tmp_path)[4], times(tmp_path)[7]) == (2, 2)


def test_results_that_cannot_be_sent(two_actors: RayExecutor) -> None:
    found = collect(two_actors, Strange(), ["1", "generator", "2", "3"])
    assert sorted(failures(found)) == ["generator"]
    assert "cannot pickle 'generator' object" in failures(found)["generator"]


def test_workers_that_die_while_they_are_set_up(two_actors: RayExecutor) -> None:
    with pytest.raises(StageError, match="4 workers in a row died while they set DyingSetup up"):
        list(two_actors.run(DyingSetup(), range(4)))


def test_a_work_that_only_kills(
    two_actors: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "IN_A_ROW", 4)
    with pytest.raises(StageError, match="4 workers in a row were lost without one finished batch"):
        list(two_actors.run(Doubling(str(tmp_path), poison=tuple(range(40))), range(40)))


def test_paths_count_from_where_the_command_was_given(
    two_actors: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    collect(two_actors, Doubling("."), range(3))
    assert len(set_ups(tmp_path)) >= 1


def test_another_version_is_refused(tmp_path: Path) -> None:
    answer = Worker().prepare(Doubling(str(tmp_path)), "cpu", str(tmp_path), "0.0.7")
    assert isinstance(answer, Refused)
    assert answer.reason.startswith("expected curator 0.0.7 on ")
    assert set_ups(tmp_path) == []


def test_a_closed_executor_ends_its_run(two_actors: RayExecutor, tmp_path: Path) -> None:
    with RayExecutor(device="cpu", actors=2) as executor:  # on the cluster that runs already
        for held in list(two_actors._workers().workers):
            two_actors._workers().end(held)  # makes room
        left = iter(executor.run(Doubling(str(tmp_path), slow=0.05), range(50)))
        next(left)
    with pytest.raises(StageError, match="this run was ended"):
        next(left)


def test_the_same_work_again_is_not_set_up_again(two_actors: RayExecutor, tmp_path: Path) -> None:
    work = Doubling(str(tmp_path), slow=0.02)
    for _ in range(3):
        collect(two_actors, work, range(30))
    assert len(set_ups(tmp_path)) == len(set(set_ups(tmp_path))) <= 2


def test_more_actors_than_the_cluster_has(two_actors: RayExecutor) -> None:
    """A program's own cluster is used as it is, and left alone."""
    import ray

    collect(two_actors, Strange(), ["1"])  # Ray is started now
    with RayExecutor(device="cpu", actors=5) as more, pytest.raises(InputError, match="at most 2 actors"):
        list(more.run(Strange(), ["1"]))
    with RayExecutor(device="cuda") as more, pytest.raises(InputError, match="has no GPU"):
        list(more.run(Strange(), ["1"]))
    assert ray.is_initialized()


# ---------------------------------------------------------------- processes

CHILD = """
import sys
from curator.jobs.choose import open_executor
from tests.jobs.works import Doubling
if __name__ == "__main__":
    with open_executor(sys.argv[1], "cpu") as executor:
        if executor is None:
            from curator.jobs.local import LocalExecutor
            executor = LocalExecutor("cpu")
        for batch in executor.run(Doubling(sys.argv[2], slow=0.3, ballast=[0] * 10), range(400)):
            print("batch", flush=True)
"""


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those started; but for Ray's two agents, which end a minute
    after a cluster that was killed: they try to tell it before."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child for child in found - {pid} if not command_of(child).endswith("Agent")}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ")
    except OSError:
        return ""


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        living |= {pid} if state != "Z" else set()
    return living


@pytest.fixture
def child(
    request: pytest.FixtureRequest, importable: None, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    temporary = Path(tempfile.mkdtemp(prefix="r"))  # short, as Ray wants it
    (tmp_path / "temporary").symlink_to(temporary)
    running = subprocess.Popen(
        [sys.executable, "-c", CHILD, request.param, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with running:
        yield running
        running.kill()
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.parametrize(
    ("child", "how"),
    [("local", signal.SIGINT), ("ray?actors=2", signal.SIGINT), ("ray?actors=2", signal.SIGKILL)],
    indirect=["child"],
)
def test_a_stopped_command_leaves_no_process(
    child: subprocess.Popen[str], how: signal.Signals, tmp_path: Path
) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "batch\n"
    started = descendants(child.pid)
    child.send_signal(how)
    output, errors = child.communicate(timeout=30)
    assert set(output.splitlines()) <= {"batch"}
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt")
        assert list((tmp_path / "temporary").iterdir()) == []
    until = time.monotonic() + 20
    while (left := alive(started)) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == set()
