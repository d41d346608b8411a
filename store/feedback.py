"""What people say of hits: kept by the selection's name, so that it outlives the query that replaces it.

In: `Feedback`. Out: the same, by image.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select

from store.models import FeedbackRow
from store.records import Feedback
from store.session import Database, chunks, table, upsert

BOX = ("x1", "y1", "x2", "y2")


def put_feedback(database: Database, run_id: int, feedback: Sequence[Feedback]) -> None:
    """Store feedback; what was said of the same hit before is replaced."""
    rows = [
        {
            "selection": own.selection,
            "image_id": int(own.image_id),
            "accepted": bool(own.accepted),
            "group_name": own.group,
            "run_id": run_id,
            **dict(zip(BOX, map(float, own.box), strict=True)),
        }
        for own in feedback
    ]
    with database.writing() as connection:
        update = ("accepted", "group_name", "run_id", *BOX)
        upsert(connection, FeedbackRow, rows, unique=("selection", "image_id"), update=update)


def remove_feedback(database: Database, selection: str, image_ids: Sequence[int]) -> None:
    """Forget what was said of some hits."""
    with database.writing() as connection:
        for part in chunks(sorted(set(image_ids))):
            own = (FeedbackRow.selection == selection) & FeedbackRow.image_id.in_(part)
            connection.execute(delete(FeedbackRow).where(own))


def feedback(database: Database, selection: str) -> list[Feedback]:
    """What was said of a selection's hits, past ones too, by image."""
    query = select(table(FeedbackRow)).where(FeedbackRow.selection == selection)
    with database.reading() as connection:
        return [
            Feedback(
                selection=row.selection,
                image_id=row.image_id,
                accepted=row.accepted,
                group=row.group_name,
                box=(row.x1, row.y1, row.x2, row.y2),
            )
            for row in connection.execute(query.order_by(FeedbackRow.image_id))
        ]
