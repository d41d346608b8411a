"""Runs, item states and the current items of a stage.

In: what a stage reports. Out: `RunRecord`s, the keys that need no second computation, and the set of items
that readers see.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update

from store.errors import NotFoundError
from store.models import CurrentItem, Item, Run
from store.records import ItemStatus, RunRecord
from store.session import Database, chunks, table, upsert


def begin_run(
    database: Database,
    stage: str,
    *,
    config: Mapping[str, Any],
    seed: int | None,
    models: Sequence[str],
    parents: Sequence[int],
) -> int:
    """Insert a run as "running"; returns its id."""
    row = {
        "stage": stage,
        "status": "running",
        "config": dict(config),
        "seed": seed,
        "models": list(models),
        "parents": list(parents),
        "code_version": code_version(),
        "host": platform.node(),
        "started_at": datetime.now(UTC),
        "finished_at": None,
        "counts": {},
    }
    with database.writing() as connection:
        return int(connection.execute(insert(table(Run)).returning(table(Run).c.id), row).scalar_one())


def finish_run(
    database: Database,
    run_id: int,
    *,
    status: Literal["done", "partial", "failed"],
    counts: Mapping[str, int],
) -> None:
    """Set a run's end."""
    with database.writing() as connection:
        result = connection.execute(
            update(Run)
            .where(Run.id == run_id)
            .values(status=status, counts=dict(counts), finished_at=datetime.now(UTC))
        )
        if not result.rowcount:
            raise NotFoundError(f"no run {run_id} in this workspace; `curator runs` lists them")


def runs(database: Database, stage: str | None) -> list[RunRecord]:
    """Runs, newest first."""
    query = select(table(Run)).order_by(Run.id.desc())
    if stage is not None:
        query = query.where(Run.stage == stage)
    with database.reading() as connection:
        return [
            RunRecord(
                id=row.id,
                stage=row.stage,
                status=row.status,
                config=row.config,
                seed=row.seed,
                code_version=row.code_version,
                models=tuple(row.models),
                parents=tuple(row.parents),
                started_at=row.started_at,
                finished_at=row.finished_at,
                counts=row.counts,
            )
            for row in connection.execute(query)
        ]


def done_keys(database: Database, stage: str, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that are recorded as done."""
    found: set[str] = set()
    with database.reading() as connection:
        for part in chunks(keys):
            found.update(
                connection.scalars(
                    select(Item.key).where(Item.stage == stage, Item.status == "done", Item.key.in_(part))
                )
            )
    return found


def record_items(database: Database, run_id: int, items: Sequence[ItemStatus]) -> None:
    """Upsert item states under the run's stage."""
    with database.writing() as connection:
        stage = connection.scalar(select(Run.stage).where(Run.id == run_id))
        if stage is None:
            raise NotFoundError(f"no run {run_id} in this workspace; `curator runs` lists them")
        upsert(
            connection,
            Item,
            [
                {
                    "stage": stage,
                    "key": item.key,
                    "status": item.status,
                    "run_id": run_id,
                    "image_id": item.image_id,
                    "message": item.message,
                }
                for item in items
            ],
            unique=("stage", "key"),
            update=("status", "run_id", "image_id", "message"),
        )


def failed_items(database: Database, run_id: int) -> list[ItemStatus]:
    """Failed items of a run, by key."""
    query = select(Item.key, Item.image_id, Item.message).where(
        Item.run_id == run_id, Item.status == "failed"
    )
    with database.reading() as connection:
        return [
            ItemStatus(key=row.key, status="failed", image_id=row.image_id, message=row.message)
            for row in connection.execute(query.order_by(Item.key))
        ]


def set_current(database: Database, stage: str, keys: Sequence[str], *, run_id: int) -> None:
    """Make `keys` the current items of `stage`; several calls within one run add up."""
    with database.writing() as connection:
        connection.execute(
            delete(CurrentItem).where(CurrentItem.stage == stage, CurrentItem.run_id != run_id)
        )
        upsert(
            connection,
            CurrentItem,
            [{"stage": stage, "key": key, "run_id": run_id} for key in keys],
            unique=("stage", "key"),
            update=(),
        )


@cache
def code_version() -> str:
    """The installed version, with the commit when the code runs from a checkout."""
    try:
        release = version("curator")
    except PackageNotFoundError:
        release = "0+unknown"
    git = Path(__file__).resolve().parents[1] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            head = (git / head.removeprefix("ref: ")).read_text().strip()
    except OSError:  # an installed wheel, or a packed reference
        return release
    return f"{release}+{head[:12]}"
