"""Annotations in versions, categories and tags.

In: `NewAnnotation`s. Out: `AnnotationSet`s. Changed labels make a new version of the image's annotations,
never an edit, so that whatever was computed from the old ones stays explainable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select
from sqlalchemy.orm import aliased

from store.access import check_annotations
from store.keys import content_key
from store.models import AnnotationRow, AnnotationVersion, Category, DatasetClass, Member, Tag
from store.records import Annotation, AnnotationSet, NewAnnotation, NewImage, Reader
from store.records import Category as CategoryRecord
from store.session import Database, chunks, put_by_key, table, upsert


def put_annotations(
    connection: Connection, run_id: int, images: Sequence[NewImage], ids: Sequence[int]
) -> list[bool]:
    """Store a new version where the contents changed; True for each image that got one."""
    labelled = {
        image_id: image for image, image_id in zip(images, ids, strict=True) if image.annotations is not None
    }
    newest: dict[int, tuple[int, str]] = {}
    for part in chunks(list(labelled)):
        newest.update(
            (row[0], (row[1], row[2]))
            for row in connection.execute(
                _newest_versions(
                    part, AnnotationVersion.image_id, AnnotationVersion.version, AnnotationVersion.key
                )
            )
        )
    keys = {i: content_key(_plain(image.annotations or ()), image.status) for i, image in labelled.items()}
    fresh = [i for i in labelled if newest.get(i, (0, ""))[1] != keys[i]]
    if fresh:
        version = table(AnnotationVersion)
        made = connection.execute(
            insert(version).returning(version.c.image_id, version.c.id),
            [
                {
                    "image_id": i,
                    "version": newest.get(i, (0, ""))[0] + 1,
                    "key": keys[i],
                    "status": labelled[i].status,
                    "run_id": run_id,
                }
                for i in fresh
            ],
        )
        version_ids = {row[0]: row[1] for row in made}
        names = list(dict.fromkeys(a.category for i in fresh for a in labelled[i].annotations or ()))
        categories = (
            dict(
                zip(
                    names,
                    put_by_key(connection, Category, [{"name": n} for n in names], key="name"),
                    strict=True,
                )
            )
            if names
            else {}
        )
        rows = [
            {
                "version_id": version_ids[i],
                "category_id": categories[a.category],
                "x1": a.box[0],
                "y1": a.box[1],
                "x2": a.box[2],
                "y2": a.box[3],
                "crowd": a.crowd,
                "difficult": a.difficult,
                "polygon": a.polygon,
                "attributes": dict(a.attributes),
            }
            for i in fresh
            for a in labelled[i].annotations or ()
        ]
        if rows:
            connection.execute(insert(table(AnnotationRow)), rows)
    changed = set(fresh)
    return [
        image.annotations is not None and image_id in changed
        for image, image_id in zip(images, ids, strict=True)
    ]


def _plain(annotations: Sequence[NewAnnotation]) -> list[dict[str, Any]]:
    return [
        {
            "category": a.category,
            "box": [float(v) for v in a.box],
            "crowd": a.crowd,
            "difficult": a.difficult,
            "polygon": a.polygon,
            "attributes": a.attributes,
        }
        for a in annotations
    ]


def _newest_versions(images: Sequence[int], *columns: Any) -> Select[Any]:
    """Of each image its newest version, looked up in the index of (image, version): what it costs does not
    depend on how many others there are."""
    other = aliased(AnnotationVersion)
    newest = select(func.max(other.version)).where(other.image_id == AnnotationVersion.image_id)
    return select(*columns).where(
        AnnotationVersion.image_id.in_(images), AnnotationVersion.version == newest.scalar_subquery()
    )


def put_tags(connection: Connection, run_id: int, images: Sequence[NewImage], ids: Sequence[int]) -> None:
    """Store the images' tags; a tag of the same name is replaced."""
    upsert(
        connection,
        Tag,
        [
            {"image_id": image_id, "name": name, "value": value, "run_id": run_id}
            for image, image_id in zip(images, ids, strict=True)
            for name, value in image.tags.items()
        ],
        unique=("image_id", "name"),
        update=("value", "run_id"),
    )


def categories(database: Database) -> list[CategoryRecord]:
    """All categories, by id."""
    with database.reading() as connection:
        return [
            CategoryRecord(id=row[0], name=row[1])
            for row in connection.execute(select(Category.id, Category.name).order_by(Category.id))
        ]


def annotation_sets(database: Database, ids: Sequence[int], reader: Reader) -> dict[int, AnnotationSet]:
    """Newest annotation version per image, after the access check."""
    found: dict[int, AnnotationSet] = {}
    objects: dict[int, list[Annotation]] = {}
    with database.reading() as connection:
        check_annotations(connection, ids, reader)
        for part in chunks(sorted(set(ids))):
            versions = connection.execute(_newest_versions(part, table(AnnotationVersion))).all()
            for some in chunks([row.id for row in versions]):
                rows = connection.execute(
                    select(table(AnnotationRow), Category.name)
                    .join(Category, Category.id == AnnotationRow.category_id)
                    .where(AnnotationRow.version_id.in_(some))
                    .order_by(AnnotationRow.id)
                )
                for row in rows:
                    objects.setdefault(row.version_id, []).append(_annotation(row))
            listed = _listed(connection, part)
            for row in versions:
                own = tuple(objects.get(row.id, ()))
                classes = listed.get(row.image_id)
                found[row.image_id] = AnnotationSet(
                    image_id=row.image_id,
                    version=row.version,
                    key=row.key,
                    status=row.status,
                    annotations=own,
                    classes=None if classes is None else classes.union(a.category for a in own),
                )
    return {image_id: found[image_id] for image_id in ids if image_id in found}


def _listed(connection: Connection, ids: Sequence[int]) -> dict[int, frozenset[str]]:
    """Classes that the images' data sets list; absent where none does."""
    of_dataset: dict[int, set[str]] = {}
    for dataset, name in connection.execute(
        select(DatasetClass.dataset_id, Category.name).join(
            Category, Category.id == DatasetClass.category_id
        )
    ):
        of_dataset.setdefault(dataset, set()).add(name)
    if not of_dataset:
        return {}
    images: dict[int, set[int]] = {}
    for image, dataset in connection.execute(
        select(Member.image_id, Member.dataset_id).where(
            Member.image_id.in_(ids), Member.dataset_id.in_(list(of_dataset))
        )
    ):
        images.setdefault(image, set()).add(dataset)
    known: dict[frozenset[int], frozenset[str]] = {}
    return {
        image: known.setdefault(key, frozenset().union(*(of_dataset[d] for d in key)))
        for image, key in ((image, frozenset(datasets)) for image, datasets in images.items())
    }


def _annotation(row: Any) -> Annotation:
    polygon = None if row.polygon is None else tuple(tuple(ring) for ring in row.polygon)
    return Annotation(
        id=row.id,
        category_id=row.category_id,
        category=row.name,
        box=(row.x1, row.y1, row.x2, row.y2),
        crowd=row.crowd,
        difficult=row.difficult,
        polygon=polygon,
        attributes=row.attributes,
    )


def tags(database: Database, ids: Sequence[int], reader: Reader) -> dict[int, dict[str, str]]:
    """Tags per image, after the access check."""
    found: dict[int, dict[str, str]] = {}
    with database.reading() as connection:
        check_annotations(connection, ids, reader)
        for part in chunks(sorted(set(ids))):
            for row in connection.execute(
                select(table(Tag)).where(Tag.image_id.in_(part)).order_by(Tag.name)
            ):
                found.setdefault(row.image_id, {})[row.name] = row.value
    return found
