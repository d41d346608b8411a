"""What people say of samples: a verdict beside the gate's own, which counts more than theirs.

In: a sample's id and a word. Out: what was said before.
"""

from __future__ import annotations

from sqlalchemy import and_, delete, func, insert, select

from store.errors import NotFoundError
from store.models import SampleRow, VerdictRow
from store.records import PERSON
from store.session import Database, table


def put_word(
    database: Database, run_id: int, sample_id: int, accepted: bool | None, reason: str
) -> bool | None:
    """Store what a person says of a sample beside the gate's verdicts; None takes it back.

    Returns:
        what was said before.
    Raises:
        NotFoundError: no such sample.
    """
    own = and_(VerdictRow.sample_id == sample_id, VerdictRow.check == PERSON)
    with database.writing() as connection:
        if connection.scalar(select(SampleRow.id).where(SampleRow.id == sample_id)) is None:
            raise NotFoundError(f"no sample {sample_id} in this workspace; `curator samples` lists them")
        before = connection.scalar(select(VerdictRow.accepted).where(own))
        connection.execute(delete(VerdictRow).where(own))
        last = connection.scalar(
            select(func.max(VerdictRow.position)).where(VerdictRow.sample_id == sample_id)
        )
        if accepted is not None:
            row = {
                "sample_id": sample_id,
                "position": 0 if last is None else last + 1,
                "check": PERSON,
                "accepted": accepted,
                "value": None,
                "bound": None,
                "reason": reason,
                "run_id": run_id,
            }
            connection.execute(insert(table(VerdictRow)), row)
    return before
