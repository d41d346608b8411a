"""The driver that every stage runs through: skip what is stored, work in batches, commit per batch.

In: items and a `Work`. Out: a `StageResult`; rows in the Store. A killed run loses at most one batch; the
same command again continues there (DESIGN.md, rules 4 and 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from curator.config import StageConfig
from curator.errors import CuratorError, one_line
from curator.jobs.base import Done, Executor, Failed, Work
from curator.jobs.local import LocalExecutor, batched
from curator.progress import progress
from store.records import ItemStatus
from store.session import CHUNK, ITEM_ERRORS

if TYPE_CHECKING:
    from store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage did.

    Attributes:
        done, skipped, failed: numbers of items; skipped ones were stored by an earlier run.
        failures: (item, reason) of the failed ones.
        summary: the stage's own figures, plain JSON.
    """

    stage: str
    run_id: int
    done: int = 0
    skipped: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when all went well, 3 when some items failed, 1 when nothing else was done or known."""
        return 0 if not self.failed else 3 if self.done or self.skipped else 1


@contextmanager
def recorded_run(
    store: Store,
    stage: str,
    config: StageConfig,
    *,
    models: Sequence[str] = (),
    parents: Sequence[int] = (),
    config_key: str = "",
    scope: str = "",
    aside: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, dict[str, int]]]:
    """Record a run around a block; yields (run id, counts to fill in).

    An exception marks it failed, Ctrl-C interrupted.

    Args:
        config_key, scope, aside, facts: as in `store.records.RunRecord`.
    """
    run_id = store.begin_run(
        stage,
        config=config.everything(),
        seed=config.seed,
        models=models,
        parents=parents,
        config_key=config_key,
        scope=scope,
        aside=aside,
        facts=facts,
    )
    counts: dict[str, int] = {}
    try:
        yield run_id, counts
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        store.finish_run(run_id, status="interrupted" if stopped else "failed", counts=counts)
        raise
    store.finish_run(run_id, status="partial" if counts.get("failed") else "done", counts=counts)


def run_items(
    store: Store,
    run_id: int,
    counts: dict[str, int],
    *,
    stage: str,
    work: Work,
    items: Iterable[Any],
    save: Callable[[Done], None],
    image_id: Callable[[Any], int | None] = lambda item: None,
    describe: Callable[[Any], str] = str,
    device: str = "auto",
    executor: Executor | None = None,
    failed_before: Sequence[tuple[str, str]] = (),
    in_order: bool = False,
    until: Callable[[Any], bool] = lambda item: False,
    prepare: Callable[[Any], Any] = lambda item: item,
) -> StageResult:
    """Process `items` that are not stored yet.

    An item that fails, in the work or while its result is stored, fails alone: nothing of it is stored.

    Args:
        items: read once, in pages; of those that are stored nothing is kept.
        save: writes one result through the Store; called inside the batch's transaction, in a savepoint.
        image_id: the image that an item belongs to, for the item's status row.
        describe: names an item for people.
        in_order: results are saved in the order of the items, however they come back; for a stage in which
            one result depends on those before it.
        until: asked before an item is handed out, once what came before is stored; True ends the work there.
        prepare: adds to an item what only its work needs, when it is handed out; the key stays the same.
    """
    order, todo, skipped = _left(store, run_id, work, items)
    counts.update(done=0, skipped=skipped, failed=len(failed_before))
    failures = list(failed_before)
    with progress(stage, len(todo)) as advance:
        handed = map(prepare, takewhile(lambda item: not until(item), todo))
        batches = (executor or LocalExecutor(device)).run(work, handed)
        for batch in _ordered(batches, order) if in_order else batches:
            statuses = []
            with store.transaction():
                for result in batch:
                    if isinstance(result, Done):
                        result = _saved(store, save, result)
                    if isinstance(result, Done):
                        statuses.append(
                            ItemStatus(key=result.key, status="done", image_id=image_id(result.item))
                        )
                        counts["done"] += 1
                    else:
                        statuses.append(
                            ItemStatus(
                                key=result.key,
                                status="failed",
                                image_id=image_id(result.item),
                                message=result.reason,
                            )
                        )
                        failures.append((describe(result.item), result.reason))
                        counts["failed"] += 1
                store.record_items(run_id, statuses)
            advance(len(batch))
    return StageResult(
        stage=stage,
        run_id=run_id,
        done=counts["done"],
        skipped=counts["skipped"],
        failed=counts["failed"],
        failures=tuple(failures),
    )


def _left(store: Store, run_id: int, work: Work, items: Iterable[Any]) -> tuple[list[str], list[Any], int]:
    """Keys and items that are not stored yet, and how many are."""
    keys: list[str] = []
    left: list[Any] = []
    skipped = 0
    for page in batched(items, CHUNK):
        own = [work.key(item) for item in page]
        stored = store.claim_items(run_id, own)
        skipped += sum(key in stored for key in own)
        keys += [key for key in own if key not in stored]
        left += [item for item, key in zip(page, own, strict=True) if key not in stored]
    return keys, left, skipped


def _ordered(batches: Iterable[list[Done | Failed]], keys: Sequence[str]) -> Iterator[list[Done | Failed]]:
    """The same results in the order of `keys`; what came too early waits."""
    waiting: dict[str, Done | Failed] = {}
    place = 0
    for batch in batches:
        waiting.update((result.key, result) for result in batch)
        ready = []
        while place < len(keys) and keys[place] in waiting:
            ready.append(waiting.pop(keys[place]))
            place += 1
        if ready:
            yield ready


def _saved(store: Store, save: Callable[[Done], None], result: Done) -> Done | Failed:
    """Store a result; one that cannot be stored becomes a failed item, and nothing of it stays."""
    try:
        with store.transaction():
            save(result)
    except (CuratorError, *ITEM_ERRORS) as error:
        return Failed(result.key, result.item, one_line(error))
    return result
