"""Runs, item states, and which run of a stage is current.

In: what a stage reports. Out: `RunRecord`s, the keys that need no second computation, and the run whose
configuration readers see (docs/decisions/0009).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Select, exists, func, insert, or_, select, update

from store.errors import NotFoundError
from store.models import Base, Item, Run
from store.processes import is_gone, this_process
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
    config_key: str,
    scope: str,
    aside: bool,
    facts: Mapping[str, Any],
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
        "config_key": config_key,
        "scope": scope,
        "aside": aside,
        "facts": dict(facts),
        "process": this_process(),
    }
    with database.writing() as connection:
        return int(connection.execute(insert(table(Run)).returning(table(Run).c.id), row).scalar_one())


def finish_run(
    database: Database,
    run_id: int,
    *,
    status: Literal["done", "partial", "failed", "interrupted"],
    counts: Mapping[str, int],
) -> None:
    """Set a run's end."""
    _change(database, run_id, status=status, counts=dict(counts), finished_at=datetime.now(UTC))


def describe_run(database: Database, run_id: int, facts: Mapping[str, Any]) -> None:
    """Set what a run has resolved, where that was not known when it began."""
    _change(database, run_id, facts=dict(facts))


def _change(database: Database, run_id: int, **values: Any) -> None:
    with database.writing() as connection:
        result = connection.execute(update(Run).where(Run.id == run_id).values(**values))
        if not result.rowcount:
            raise NotFoundError(f"no run {run_id} in this workspace; `curator runs` lists them")


def mark_interrupted(database: Database) -> None:
    """Give runs of this host whose process has ended without a word the status "interrupted"."""
    query = select(Run.id, Run.process).where(Run.status == "running", Run.host == platform.node())
    with database.reading() as connection:
        gone = [row.id for row in connection.execute(query) if is_gone(row.process)]
    if gone:
        with database.writing() as connection:
            connection.execute(
                update(Run).where(Run.id.in_(gone), Run.status == "running").values(status="interrupted")
            )


REMOVE = "remove"
"""The stage of removals; their facts hold the largest ids that were given out before ("last")."""


def last_id(connection: Connection, model: type[Base]) -> int:
    """The largest id of a table that was given out before the newest removal, 0 where nothing was removed.

    SQLite gives the largest ids out again once their rows are gone (PostgreSQL does not); what remembers an
    image by its id must never meet another one there.
    """
    query = select(Run.facts).where(Run.stage == REMOVE).order_by(Run.id.desc()).limit(1)
    facts = connection.scalar(query) or {}
    return int(facts.get("last", {}).get(table(model).name, 0))


def largest_ids(connection: Connection, models: Sequence[type[Base]]) -> dict[str, int]:
    """Table -> the largest id that was ever given out, for a removal's facts."""
    return {
        table(model).name: max(
            last_id(connection, model), connection.scalar(select(func.max(table(model).c.id))) or 0
        )
        for model in models
    }


def fresh_id(connection: Connection, model: type[Base]) -> dict[str, int]:
    """The id of a new row, {} where the database gives a new one by itself."""
    last = last_id(connection, model) if connection.dialect.name == "sqlite" else 0
    largest = connection.scalar(select(func.max(table(model).c.id))) or 0
    return {"id": last + 1} if last > largest else {}


def other_runs(database: Database) -> list[tuple[int, str, str, datetime, bool]]:
    """Runs that other processes have not finished, oldest first: id, stage, host, when it started, and
    whether it is of this host, where its process is known to live (`mark_interrupted`)."""
    query = select(Run.id, Run.stage, Run.host, Run.started_at, Run.process).where(Run.status == "running")
    with database.reading() as connection:
        rows = connection.execute(query.order_by(Run.id)).all()
    here = platform.node()
    return [
        (row.id, row.stage, row.host, row.started_at, row.host == here)
        for row in rows
        if row.host != here or row.process != this_process()
    ]


def runs(database: Database, stage: str | None) -> list[RunRecord]:
    """Runs, newest first."""
    query = select(table(Run)).order_by(Run.id.desc())
    if stage is not None:
        query = query.where(Run.stage == stage)
    with database.reading() as connection:
        return [_record(row) for row in connection.execute(query)]


def current_run(database: Database, stage: str, scope: str | None) -> RunRecord | None:
    """The newest run of a stage that was begun to be current and did not fail; None where there is none."""
    query = wanted_runs(stage, scope).limit(1)
    with database.reading() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def wanted_runs(stage: str, scope: str | None = None) -> Select[Any]:
    """SQL: the runs of a stage that may be current, newest first.

    One that was stopped before anything of its configuration was stored leaves the one before it current.
    """
    stored = exists().where(
        Item.stage == Run.stage, Item.config_key == Run.config_key, Item.status == "done"
    )
    query = select(table(Run)).where(
        Run.stage == stage,
        Run.aside.is_(False),
        Run.status != "failed",
        or_(Run.status != "interrupted", stored),
    )
    if scope is not None:
        query = query.where(Run.scope == scope)
    return query.order_by(Run.id.desc())


def _record(row: Any) -> RunRecord:
    return RunRecord(
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
        config_key=row.config_key,
        scope=row.scope,
        aside=row.aside,
        facts=row.facts,
    )


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


def claim_items(database: Database, run_id: int, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that are recorded as done, now as the run's configuration's, where an older version
    keyed that otherwise.

    An item's key says all that its configuration key does: nothing is written but after an upgrade.
    """
    stage, config_key = _keyed(database, run_id)
    found: set[str] = set()
    for part in chunks(keys):
        query = select(Item.key, Item.config_key).where(
            Item.stage == stage, Item.status == "done", Item.key.in_(part)
        )
        with database.reading() as connection:
            done = {row[0]: row[1] for row in connection.execute(query).all()}
        others = [key for key, other in done.items() if other != config_key]
        if others:
            with database.writing() as connection:
                connection.execute(
                    update(Item)
                    .where(Item.stage == stage, Item.key.in_(others))
                    .values(config_key=config_key)
                )
        found.update(done)
    return found


def config_key_of(database: Database, run_id: int) -> str:
    """The configuration key of a run.

    Raises:
        NotFoundError: no such run.
    """
    return _keyed(database, run_id)[1]


def _keyed(database: Database, run_id: int) -> tuple[str, str]:
    with database.reading() as connection:
        row = connection.execute(select(Run.stage, Run.config_key).where(Run.id == run_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no run {run_id} in this workspace; `curator runs` lists them")
    return row.stage, row.config_key


def record_items(database: Database, run_id: int, items: Sequence[ItemStatus]) -> None:
    """Upsert item states under the run's stage."""
    with database.writing() as connection:
        stage, config_key = _keyed(database, run_id)
        upsert(
            connection,
            Item,
            [
                {
                    "stage": stage,
                    "config_key": config_key,
                    "key": item.key,
                    "status": item.status,
                    "run_id": run_id,
                    "image_id": item.image_id,
                    "message": item.message,
                }
                for item in items
            ],
            unique=("stage", "key"),
            update=("status", "run_id", "image_id", "message", "config_key"),
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
