"""What is read of exported data sets without the ids of their images, of which there may be millions.

In: a name or a number. Out: `DatasetVersion` records; whole ones come from `products.versions`.
"""

from __future__ import annotations

from sqlalchemy import select

from store.models import VersionRow
from store.records import DatasetVersion
from store.session import Database


def version_heads(
    database: Database, *, name: str | None = None, number: int | None = None
) -> list[DatasetVersion]:
    """Versions by id without the ids of their images and samples, which a list need not read; or those of a
    name, or that of a number, perhaps none."""
    columns = (VersionRow.id, VersionRow.name, VersionRow.manifest, VersionRow.key, VersionRow.run_id)
    query = select(*columns).order_by(VersionRow.id)
    if name is not None:
        query = query.where(VersionRow.name == name)
    if number is not None:
        query = query.where(VersionRow.id == number)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        DatasetVersion(
            name=row.name,
            image_ids=(),
            sample_ids=(),
            manifest=row.manifest,
            key=row.key,
            id=row.id,
            run_id=row.run_id,
        )
        for row in rows
    ]


def version_image_ids(database: Database, number: int) -> tuple[int, ...]:
    """Images of the Store in a version, as it has them."""
    with database.reading() as connection:
        return tuple(connection.scalar(select(VersionRow.image_ids).where(VersionRow.id == number)) or ())
