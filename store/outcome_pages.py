"""Failures and successes of the current diagnosis, page by page: what a person scrolls through.

In: which outcomes and in what order. Out: counts by kind, cause and class; the places where pages begin; one
page. A page is found by the values of the row before it (keyset), so that what the last page costs does not
depend on how many lie before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from store.findings import current_outcome_ids, outcome_record
from store.models import OutcomeRow
from store.records import Outcome, OutcomeFilter, OutcomeSort
from store.session import Database, table

Place = tuple[float, int]
"""Where a row lies in an order: the value that is sorted by, and its id."""

_AREA = (OutcomeRow.x2 - OutcomeRow.x1) * (OutcomeRow.y2 - OutcomeRow.y1)
_VALUES: dict[OutcomeSort, tuple[ColumnElement[Any], bool]] = {  # by what, and largest first?
    "score": (OutcomeRow.score.expression, True),
    "-score": (OutcomeRow.score.expression, False),
    "size": (_AREA, True),
    "-size": (_AREA, False),
    "iou": (OutcomeRow.iou.expression, True),
    "image": (OutcomeRow.image_id.expression, False),
}


def outcome_counts(database: Database) -> list[tuple[str, str | None, str, int]]:
    """(kind, cause, class, number) of the current diagnosis."""
    columns = (OutcomeRow.kind, OutcomeRow.cause, OutcomeRow.category)
    query = (
        select(*columns, func.count())
        .where(OutcomeRow.id.in_(current_outcome_ids()))
        .group_by(*columns)
        .order_by(*columns)
    )
    with database.reading() as connection:
        return [(row[0], row[1], row[2], int(row[3])) for row in connection.execute(query)]


def outcome_places(
    database: Database, chosen: OutcomeFilter, sort: OutcomeSort, step: int
) -> tuple[int, list[Place]]:
    """How many there are, and the place of every `step`-th row, the first one's included."""
    value, down = _VALUES[sort]
    order = (value.desc() if down else value.asc(), OutcomeRow.id.asc())
    number = func.row_number().over(order_by=order)
    rows = _chosen(select(value.label("value"), OutcomeRow.id, number.label("number")), chosen).subquery()
    query = (
        select(rows.c.value, rows.c.id).where((rows.c.number - 1) % step == 0).order_by(rows.c.number)
    )
    total = _chosen(select(func.count()).select_from(table(OutcomeRow)), chosen)
    with database.reading() as connection:
        places = [(float(row[0]), int(row[1])) for row in connection.execute(query)]
        return int(connection.scalar(total) or 0), places


def outcome_page(
    database: Database,
    chosen: OutcomeFilter,
    sort: OutcomeSort,
    *,
    at: Place | None,
    limit: int,
    past: bool = False,
    backwards: bool = False,
) -> list[Outcome]:
    """Rows in order from a place on.

    Args:
        at: None means the first (backwards: the last).
        past: without the row at the place itself.
        backwards: from the place towards the first; the rows come in that order too.
    """
    value, down = _VALUES[sort]
    down, up = (not down, True) if backwards else (down, False)
    query = _chosen(select(table(OutcomeRow)), chosen)
    if at is not None:
        further = value < at[0] if down else value > at[0]
        beside = OutcomeRow.id < at[1] if up else OutcomeRow.id > at[1]
        same = beside if past else or_(beside, OutcomeRow.id == at[1])
        query = query.where(or_(further, and_(value == at[0], same)))
    first = (value.desc() if down else value.asc(), OutcomeRow.id.desc() if up else OutcomeRow.id.asc())
    with database.reading() as connection:
        return [outcome_record(row) for row in connection.execute(query.order_by(*first).limit(limit))]


def outcome_place(outcome: Outcome, sort: OutcomeSort) -> Place:
    """Where an outcome lies in an order."""
    x1, y1, x2, y2 = outcome.box
    values = {
        "score": outcome.score,
        "size": (x2 - x1) * (y2 - y1),
        "iou": outcome.iou,
        "image": float(outcome.image_id),
    }
    return values[sort.removeprefix("-")], outcome.id or 0


def _chosen(query: Select[Any], chosen: OutcomeFilter) -> Select[Any]:
    query = query.where(OutcomeRow.id.in_(current_outcome_ids()))
    wanted: tuple[tuple[Any, Sequence[Any]], ...] = (
        (OutcomeRow.kind, chosen.kinds),
        (OutcomeRow.cause, chosen.causes),
        (OutcomeRow.category, chosen.categories),
        (OutcomeRow.image_id, chosen.image_ids),
    )
    for column, values in wanted:
        if values:
            query = query.where(column.in_(values))
    return query
