"""Labels that a person edits: every edit is a new version with author and time; nothing is overwritten.

In: the boxes of an image and the version that they were made from. Out: the new version. Two people who edit
one image at once do not overwrite each other: the second is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from store.access import roles_of
from store.errors import AccessError, ConflictError, NotFoundError
from store.labels import annotation_of, listed_classes, put_annotations
from store.models import AnnotationRow, AnnotationVersion, Category, Image, Run
from store.records import Annotation, NewAnnotation, NewImage
from store.session import Database, table


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVersion:
    """A version of an image's labels.

    Attributes:
        objects: how many it has. stage: the stage that made it. author: "" where nobody is named.
    """

    version: int
    objects: int
    stage: str
    author: str
    made_at: datetime


def put_labels(
    database: Database, run_id: int, image_id: int, objects: Sequence[NewAnnotation], base: int
) -> int:
    """Store new labels of an image; returns the newest version (the old one where nothing changed).

    Args:
        base: the version that was edited, 0 for an image without labels.
    Raises:
        AccessError: labels that nobody may edit here: of the holdout, or hidden ones of the pool.
        ConflictError: there is a newer version than `base`.
    """
    with database.writing() as connection:
        require_editable(connection, image_id)
        newest = _newest(connection, image_id)
        if newest != base:
            raise ConflictError(
                f"the labels of image {image_id} were changed meanwhile (version {newest}, yours is {base}); "
                "load them again"
            )
        row = connection.execute(select(table(Image)).where(Image.id == image_id)).one()
        classes = listed_classes(connection, [image_id], {}).get(image_id)
        image = NewImage(
            uri=row.uri,
            sha256=row.sha256,
            phash=row.phash,
            width=row.width,
            height=row.height,
            dataset="",
            role="mine",
            annotations=tuple(objects),
            listed=None if classes is None else tuple(sorted(classes)),
        )
        put_annotations(connection, run_id, [image], [image_id])
        return _newest(connection, image_id)


def label_versions(database: Database, image_id: int) -> list[LabelVersion]:
    """Versions of an image's labels, newest first."""
    with database.reading() as connection:
        require_editable(connection, image_id)
        rows = connection.execute(
            select(
                AnnotationVersion.id,
                AnnotationVersion.version,
                Run.stage,
                Run.config,
                Run.started_at,
            )
            .join(Run, Run.id == AnnotationVersion.run_id)
            .where(AnnotationVersion.image_id == image_id)
            .order_by(AnnotationVersion.version.desc())
        ).all()
        counts = {row.id: len(_objects(connection, row.id)) for row in rows}
    return [
        LabelVersion(
            version=row.version,
            objects=counts[row.id],
            stage=row.stage,
            author=str(row.config.get("author", "")),
            made_at=row.started_at,
        )
        for row in rows
    ]


def labels_of_version(database: Database, image_id: int, version: int) -> tuple[Annotation, ...]:
    """The objects of one version.

    Raises:
        NotFoundError: there is no such version.
    """
    with database.reading() as connection:
        require_editable(connection, image_id)
        number = connection.scalar(
            select(AnnotationVersion.id).where(
                AnnotationVersion.image_id == image_id, AnnotationVersion.version == version
            )
        )
        if number is None:
            raise NotFoundError(f"image {image_id} has no labels of version {version}")
        return tuple(_objects(connection, number))


def require_editable(connection: Connection, image_id: int) -> None:
    """Refuse images whose labels are not edited by hand here.

    Raises:
        AccessError: neither a training nor a mined image, or held out.
    """
    roles: Mapping[int, frozenset[str]] = roles_of(connection, [image_id])
    own = roles[image_id]
    if "holdout" in own or not own & {"train", "mine"}:
        where = "in the holdout" if "holdout" in own else "neither a training nor a mined image"
        raise AccessError(f"image {image_id} is {where}: its labels are not shown or edited here")


def _newest(connection: Connection, image_id: int) -> int:
    query = select(AnnotationVersion.version).where(AnnotationVersion.image_id == image_id)
    return connection.scalar(query.order_by(AnnotationVersion.version.desc()).limit(1)) or 0


def _objects(connection: Connection, version_id: int) -> list[Annotation]:
    query: Any = (
        select(table(AnnotationRow), Category.name)
        .join(Category, Category.id == AnnotationRow.category_id)
        .where(AnnotationRow.version_id == version_id)
        .order_by(AnnotationRow.id)
    )
    return [annotation_of(row) for row in connection.execute(query)]
