"""What every executor does, here and on a cluster: the same assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curator.errors import InputError
from curator.jobs.base import Done, Executor, Failed
from curator.jobs.local import LocalExecutor
from curator.jobs.stage import run_items
from store.store import Store
from tests.jobs.works import Doubling, Refusing, Strange, set_ups, tried


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "local":
        return LocalExecutor("cpu")
    found: Executor = request.getfixturevalue("two_actors")
    return found


@pytest.fixture
def processes(executor: Executor) -> int:
    return 1 if isinstance(executor, LocalExecutor) else 2


def results(executor: Executor, work: Any, items: Any) -> dict[Any, Done | Failed]:
    found = [result for batch in executor.run(work, items) for result in batch]
    assert len({result.key for result in found}) == len(found)  # each item once
    return {result.item: result for result in found}


def test_every_item_gives_its_result(executor: Executor, tmp_path: Path) -> None:
    found = results(executor, Doubling(str(tmp_path), name="k"), range(23))
    assert found == {i: Done(f"k{i}", i, 2 * i) for i in range(23)}


def test_the_model_is_loaded_once_per_worker(executor: Executor, processes: int, tmp_path: Path) -> None:
    results(executor, Doubling(str(tmp_path), slow=0.02), range(40))
    assert len(set_ups(tmp_path)) == len(set(set_ups(tmp_path))) <= processes
    assert {str(pid) for _, pid in tried(tmp_path)} == set(set_ups(tmp_path))


def test_nothing_to_do(executor: Executor, tmp_path: Path) -> None:
    assert list(executor.run(Doubling(str(tmp_path)), [])) == []
    assert list(executor.run(Refusing(), iter(()))) == []
    assert set_ups(tmp_path) == []


def test_bad_items_fail_alone(executor: Executor, tmp_path: Path) -> None:
    work = Doubling(str(tmp_path), raises=(2, 9), explodes=(5,), name="x")
    found = results(executor, work, range(12))
    assert {i: r.reason for i, r in found.items() if isinstance(r, Failed)} == {
        2: "ValueError: no 2",
        5: "a batch with [5]",
        9: "ValueError: no 9",
    }
    assert {i: r.value for i, r in found.items() if isinstance(r, Done)} == {
        i: 2 * i for i in range(12) if i not in (2, 5, 9)
    }
    assert [item for item, _ in tried(tmp_path)].count(2) == 1  # its own exception is no reason to try again


def test_what_set_up_says_is_said(executor: Executor) -> None:
    with pytest.raises(InputError, match=r"the detector changed:\s+expected a, got b"):
        list(executor.run(Refusing(), [1, 2, 3]))


def test_large_results_come_back_whole(executor: Executor) -> None:
    found = results(executor, Strange(), [str(i) for i in range(5)])
    assert [found[str(i)].value.sum() for i in range(5)] == [i << 20 for i in range(5)]  # type: ignore[union-attr]


def test_items_are_asked_for_when_they_can_be_taken(
    executor: Executor, processes: int, tmp_path: Path
) -> None:
    asked = 0

    def source() -> Iterator[int]:
        nonlocal asked
        for item in range(60):
            asked += 1
            yield item

    size, taken = 3, 0
    most = size * 2 * processes if processes > 1 else size
    for batch in executor.run(Doubling(str(tmp_path), batch_size=size), source()):
        assert asked - taken <= most
        taken += len(batch)
    assert (asked, taken) == (60, 60)


def test_a_run_can_be_left_and_another_begun(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    left = executor.run(Doubling(str(tmp_path / "first"), slow=0.05), range(50))
    next(iter(left))
    found = results(executor, Doubling(str(tmp_path / "second")), range(10))
    assert len(found) == 10
    assert len(tried(tmp_path / "first")) < 50


# ---------------------------------------------------------------- with the Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "ws") as opened:
        yield opened


def stage(
    store: Store, executor: Executor, work: Any, items: list[int], **more: Any
) -> tuple[Any, list[Any]]:
    saved: list[Any] = []
    run_id = store.begin_run("test", config={}, seed=0)
    counts: dict[str, int] = {}
    result = run_items(
        store,
        run_id,
        counts,
        stage="test",
        work=work,
        items=items,
        save=lambda done: saved.append((done.item, done.value)),
        executor=executor,
        **more,
    )
    store.finish_run(run_id, status="done", counts=counts)
    return result, saved


def test_stored_items_are_skipped_and_failed_ones_tried_again(
    executor: Executor, store: Store, tmp_path: Path
) -> None:
    work = Doubling(str(tmp_path), name="s", raises=(3,))
    first, saved = stage(store, executor, work, list(range(6)))
    assert (first.done, first.skipped, first.failed, first.exit_code) == (5, 0, 1, 3)
    assert sorted(saved) == [(i, 2 * i) for i in range(6) if i != 3]
    second, saved = stage(store, executor, Doubling(str(tmp_path), name="s"), list(range(8)))
    assert (second.done, second.skipped, second.failed) == (3, 5, 0)
    assert sorted(saved) == [(3, 6), (6, 12), (7, 14)]


def test_saved_in_order_where_a_stage_wants_it(executor: Executor, store: Store, tmp_path: Path) -> None:
    work = Doubling(str(tmp_path), name="o", batch_size=2, explodes=(3,), slow=0.01)
    result, saved = stage(store, executor, work, list(range(17)), in_order=True)
    assert saved == [(i, 2 * i) for i in range(17) if i != 3]
    assert (result.done, result.failed) == (16, 1)


def test_no_item_is_handed_out_after_the_end(executor: Executor, store: Store, tmp_path: Path) -> None:
    """`until` stops the source: what is under way is finished and stored, and nothing else."""
    work = Doubling(str(tmp_path), name="u", batch_size=1)
    result, saved = stage(store, executor, work, list(range(40)), until=lambda item: item >= 5)
    assert sorted(item for item, _ in saved) == list(range(5))
    assert result.done == 5
