"""Annotations in versions, categories and tags.

In: `NewAnnotation`s. Out: `AnnotationSet`s. Changed labels make a new version of the image's annotations,
never an edit, so that whatever was computed from the old ones stays explainable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select
from sqlalchemy.orm import aliased

from store.access import check_annotations
from store.keys import content_key
from store.models import AnnotationRow, AnnotationVersion, Category, ClassList, ListedImage, Tag
from store.records import Annotation, AnnotationSet, NewAnnotation, NewImage, Reader
from store.records import Category as CategoryRecord
from store.session import Database, chunks, put_by_key, table, upsert


def put_annotations(
    connection: Connection, run_id: int, images: Sequence[NewImage], ids: Sequence[int]
) -> list[bool]:
    """Store a new version where the contents changed, and which classes the labels speak of; True for each
    image that got a version."""
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
    _put_lists(connection, run_id, labelled, changed)
    return [
        image.annotations is not None and image_id in changed
        for image, image_id in zip(images, ids, strict=True)
    ]


def _put_lists(
    connection: Connection, run_id: int, labelled: Mapping[int, NewImage], changed: Collection[int]
) -> None:
    """The last word on an image's labels says what they speak of; new labels without a list: of all."""
    without = [i for i in changed if labelled[i].listed is None]
    for part in chunks(without):
        connection.execute(delete(table(ListedImage)).where(ListedImage.image_id.in_(part)))
    lists = {i: image.listed for i, image in labelled.items() if image.listed is not None}
    keys = {names: content_key("classes", sorted(names)) for names in dict.fromkeys(lists.values())}
    if keys:
        rows = [{"key": key, "names": sorted(set(names)), "run_id": run_id} for names, key in keys.items()]
        ids = dict(zip(keys, put_by_key(connection, ClassList, rows, key="key"), strict=True))
        upsert(
            connection,
            ListedImage,
            [{"image_id": i, "class_list_id": ids[n], "run_id": run_id} for i, n in lists.items()],
            unique=("image_id",),
            update=("class_list_id", "run_id"),
        )


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
    lists: dict[int, frozenset[str]] = {}
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
                    objects.setdefault(row.version_id, []).append(annotation_of(row))
            listed = listed_classes(connection, part, lists)
            for row in versions:
                own = tuple(objects.get(row.id, ()))
                classes = listed.get(row.image_id)
                found[row.image_id] = AnnotationSet(
                    image_id=row.image_id,
                    version=row.version,
                    key=row.key,
                    status=row.status,
                    annotations=own,
                    classes=_spoken(classes, own),
                )
    return {image_id: found[image_id] for image_id in ids if image_id in found}


def _spoken(listed: frozenset[str] | None, own: Sequence[Annotation]) -> frozenset[str] | None:
    """The list and the classes of the image's own objects; the list itself where it holds them."""
    more = {a.category for a in own} - listed if listed is not None else set()
    return listed | more if more else listed  # type: ignore[operator]


def listed_classes(
    connection: Connection, ids: Sequence[int], known: dict[int, frozenset[str]]
) -> dict[int, frozenset[str]]:
    """Classes that the images' labels speak of; absent where nothing says so. `known` keeps lists by id."""
    rows = connection.execute(
        select(ListedImage.image_id, ListedImage.class_list_id).where(ListedImage.image_id.in_(ids))
    ).all()
    missing = {row[1] for row in rows} - set(known)
    if missing:
        lists = select(ClassList.id, ClassList.names).where(ClassList.id.in_(sorted(missing)))
        known.update((row[0], frozenset(row[1])) for row in connection.execute(lists))
    return {row[0]: known[row[1]] for row in rows}


def annotation_of(row: Any) -> Annotation:
    """A stored row with its class's name as a record."""
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
