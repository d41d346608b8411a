"""Images with their memberships and duplicates.

In: `NewImage`s from importers. Out: `ImageRecord`s and `Membership`s. Images are known by the hash of their
bytes, wherever their files lie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, exists, func, select, update

from store.access import check_pixels, check_role
from store.labels import put_annotations, put_tags
from store.lookalikes import Lookalikes
from store.models import AppearanceRow, Category, Dataset, Image, Member
from store.records import (
    AddedImage,
    ImageRecord,
    Membership,
    NewImage,
    Reader,
    Role,
)
from store.remote import gone, is_remote
from store.runs import last_id
from store.session import Database, chunks, put_by_key, table, upsert

Pair = tuple[int, Role]
MANY = 5000  # images from which a table is read whole


def add_images(
    database: Database, lookalikes: Lookalikes, run_id: int, images: Sequence[NewImage], threshold: float
) -> list[AddedImage]:
    """Upsert images, memberships, annotations and tags; one result per input, in order."""
    if not images:
        return []
    with database.writing() as connection:
        known = _known(connection, [image.sha256 for image in images])
        ids = put_by_key(
            connection,
            Image,
            [
                {
                    "uri": image.uri,
                    "sha256": image.sha256,
                    "phash": image.phash,
                    "width": image.width,
                    "height": image.height,
                    "run_id": run_id,
                }
                for image in images
            ],
            key="sha256",
            last=partial(last_id, connection, Image),
        )
        _follow_moved_files(connection, images, known)
        _put_appearances(connection, run_id, images, ids)
        same_as = _same_as(connection, lookalikes, images, ids, known, threshold)
        _put_members(connection, run_id, images, ids)
        changed = put_annotations(connection, run_id, images, ids)
        put_tags(connection, run_id, images, ids)
    created = []
    for image in images:  # a second file with the same bytes in this batch is not new
        created.append(image.sha256 not in known)
        known.setdefault(image.sha256, image.uri)
    return [
        AddedImage(image_id=image_id, created=new, same_as=same, annotation_changed=change)
        for image_id, new, same, change in zip(ids, created, same_as, changed, strict=True)
    ]


def _known(connection: Connection, hashes: Sequence[str]) -> dict[str, str]:
    """sha256 -> URI of the images that are stored already."""
    found: dict[str, str] = {}
    for part in chunks(hashes):
        found.update(
            (row[0], row[1])
            for row in connection.execute(select(Image.sha256, Image.uri).where(Image.sha256.in_(part)))
        )
    return found


def _follow_moved_files(connection: Connection, images: Sequence[NewImage], known: dict[str, str]) -> None:
    """Point to the new place of a file that is gone from its old one."""
    moved = {old for image in images if (old := known.get(image.sha256)) is not None and old != image.uri}
    missing = gone(old for old in moved if is_remote(old))
    missing |= {old for old in moved if not is_remote(old) and not Path(old).exists()}
    for image in images:
        if known.get(image.sha256) in missing:
            connection.execute(update(Image).where(Image.sha256 == image.sha256).values(uri=image.uri))


def _put_appearances(
    connection: Connection, run_id: int, images: Sequence[NewImage], ids: Sequence[int]
) -> None:
    upsert(
        connection,
        AppearanceRow,
        [
            {
                "image_id": image_id,
                "hashes": image.appearance.hashes,
                "thumbnail": image.appearance.thumbnail,
                "run_id": run_id,
            }
            for image, image_id in zip(images, ids, strict=True)
            if image.appearance is not None
        ],
        unique=("image_id",),
        update=(),
    )


def _same_as(
    connection: Connection,
    lookalikes: Lookalikes,
    images: Sequence[NewImage],
    ids: Sequence[int],
    known: dict[str, str],
    threshold: float,
) -> list[tuple[Pair, ...]]:
    """Memberships of equal or nearly equal images, those earlier in the batch included."""
    alike: dict[int, set[int]] = {image_id: {image_id} for image_id in ids}
    for image_id, other in lookalikes.pairs(ids, None, threshold=threshold, fill=False):
        alike[image_id].add(other)
    stored: dict[int, list[tuple[int, Role, str]]] = {}
    for part in chunks(sorted(set().union(*alike.values()))):
        for row in connection.execute(
            select(Member.image_id, Member.role, Dataset.name)
            .join(Dataset, Dataset.id == Member.dataset_id)
            .where(Member.image_id.in_(part))
            .order_by(Member.id)
        ):
            stored.setdefault(row[0], []).append((row[0], cast(Role, row[1]), row[2]))
    batch = [(image_id, image.role, image.dataset) for image, image_id in zip(images, ids, strict=True)]
    earlier: dict[int, list[tuple[int, Role, str]]] = {}
    found: list[dict[Pair, None]] = [{} for _ in images]
    first_uri: dict[str, str] = dict(known)
    for index, image in enumerate(images):
        # the same bytes under another name in the same data set: a duplicate file, not a second visit
        if first_uri.setdefault(image.sha256, image.uri) != image.uri and image.sha256 not in known:
            found[index][(ids[index], image.role)] = None
        for members in (stored, earlier):  # a later one of the batch reports the pair
            for other in sorted(alike[ids[index]]):
                for member in members.get(other, ()):
                    if member != batch[index]:  # a membership is no duplicate of itself
                        found[index][member[:2]] = None
        earlier.setdefault(ids[index], []).append(batch[index])
    return [tuple(pairs) for pairs in found]


def _put_members(connection: Connection, run_id: int, images: Sequence[NewImage], ids: Sequence[int]) -> None:
    names = list(dict.fromkeys(image.dataset for image in images))
    datasets = dict(
        zip(
            names,
            put_by_key(connection, Dataset, [{"name": name} for name in names], key="name"),
            strict=True,
        )
    )
    upsert(
        connection,
        Member,
        [
            {
                "image_id": image_id,
                "dataset_id": datasets[image.dataset],
                "role": image.role,
                "split": image.split,
                "group_key": image.group_key,
                "captured_at": image.captured_at,
                "source": image.source,
                "run_id": run_id,
            }
            for image, image_id in zip(images, ids, strict=True)
        ],
        unique=("image_id", "dataset_id", "role"),
        update=("split", "group_key", "captured_at", "source"),
        keep=("group_key", "captured_at"),  # a second look without --group-pattern takes no key away
    )


def put_categories(database: Database, names: Sequence[str]) -> None:
    """Create the categories that are missing, in this order."""
    if names:
        with database.writing() as connection:
            put_by_key(connection, Category, [{"name": name} for name in names], key="name")


_PAGE = 5000  # rows read at a time


# ---------------------------------------------------------------- reading


def ids_by_sha256(database: Database, hashes: Sequence[str]) -> dict[str, int]:
    """sha256 -> id of those that are stored."""
    with database.reading() as connection:
        return {
            row[0]: row[1]
            for part in chunks(list(dict.fromkeys(hashes)))
            for row in connection.execute(select(Image.sha256, Image.id).where(Image.sha256.in_(part)))
        }


def hashes_of(database: Database, ids: Sequence[int]) -> list[str]:
    """The sha256 of images, by id."""
    query = select(Image.id, Image.sha256).order_by(Image.id)
    wanted = sorted(set(ids))
    with database.reading() as connection:
        if len(wanted) > MANY:  # one pass over the table costs less than thousands of look-ups
            kept = set(wanted)
            rows = connection.execute(query.where(Image.id.between(wanted[0], wanted[-1])))
            return [sha256 for image, sha256 in rows if image in kept]
        return [
            row[1] for part in chunks(wanted) for row in connection.execute(query.where(Image.id.in_(part)))
        ]


def state(database: Database) -> str:
    """Digest of what decides which images are which and which must not mix: of every membership the role, the
    image's content and its group. One pass, flat memory."""
    digest = hashlib.sha256()
    query = (
        select(Member.role, Image.id, Image.sha256, Member.group_key)
        .join(Image, Image.id == Member.image_id)
        .order_by(Member.image_id, Member.role, Member.group_key)
        .execution_options(yield_per=_PAGE)
    )
    with database.reading() as connection:
        for part in connection.execute(query).partitions():
            digest.update("".join(f"{r}\0{i}\0{s}\0{g}\n" for r, i, s, g in part).encode())
    return digest.hexdigest()


def has_role(role: Role, dataset: str | None = None) -> ColumnElement[bool]:
    """SQL: the image of the enclosing query has the role (in the data set)."""
    member = select(Member.id).where(Member.image_id == Image.id, Member.role == role)
    if dataset is not None:
        member = member.join(Dataset, Dataset.id == Member.dataset_id).where(Dataset.name == dataset)
    return exists(member)


def images(
    database: Database, *, reader: Reader, role: Role | None, ids: Sequence[int] | None, dataset: str | None
) -> list[ImageRecord]:
    """Image records by id order, after the access check."""
    check_role(role, reader)
    query = select(table(Image)).order_by(Image.id)
    if role is not None:
        query = query.where(has_role(role, dataset))
    elif dataset is not None:
        query = query.where(
            exists(
                select(Member.id)
                .join(Dataset, Dataset.id == Member.dataset_id)
                .where(Member.image_id == Image.id, Dataset.name == dataset)
            )
        )
    if role is None and ids is None and reader != "verify":  # everything that the reader may see
        query = query.where(
            exists(select(Member.id).where(Member.image_id == Image.id, Member.role != "holdout"))
        )
    with database.reading() as connection:
        if ids is None:
            rows = connection.execute(query).all()
        else:
            check_pixels(connection, ids, reader)
            wanted = sorted(set(ids))
            rows = [
                row for part in chunks(wanted) for row in connection.execute(query.where(Image.id.in_(part)))
            ]
    return [_record(row) for row in rows]


def iter_images(
    database: Database, *, reader: Reader, roles: Sequence[Role], rows: int
) -> Iterator[list[ImageRecord]]:
    """Images of any of `roles` by id, a page at a time."""
    for role in roles:
        check_role(role, reader)
    has_any = exists(select(Member.id).where(Member.image_id == Image.id, Member.role.in_(roles)))
    query = select(table(Image)).where(has_any).order_by(Image.id).limit(rows)
    last = 0
    while True:  # a transaction a page: between two of them others may write
        with database.reading() as connection:
            page = [_record(row) for row in connection.execute(query.where(Image.id > last)).all()]
        if page:
            yield page
        if len(page) < rows:
            return
        last = page[-1].id


def _record(row: Any) -> ImageRecord:
    return ImageRecord(
        id=row.id, uri=row.uri, sha256=row.sha256, phash=row.phash, width=row.width, height=row.height
    )


def image_ids(database: Database, role: Role, dataset: str | None) -> list[int]:
    """Ids of the images of a role."""
    with database.reading() as connection:
        return list(connection.scalars(select(Image.id).where(has_role(role, dataset)).order_by(Image.id)))


def image_count(database: Database, role: Role) -> int:
    """How many images have a role."""
    query = select(func.count(Member.image_id.distinct())).where(Member.role == role)
    with database.reading() as connection:
        return int(connection.scalar(query) or 0)


def memberships(database: Database, ids: Sequence[int] | None) -> list[Membership]:
    """Memberships by image, in the order they were stored."""
    query = (
        select(table(Member), Dataset.name.label("dataset"))
        .join(Dataset, Dataset.id == Member.dataset_id)
        .order_by(Member.image_id, Member.id)
    )
    with database.reading() as connection:
        parts: list[Any] = (
            [query]
            if ids is None
            else [query.where(Member.image_id.in_(part)) for part in chunks(sorted(set(ids)))]
        )
        return [
            Membership(
                image_id=row.image_id,
                dataset=row.dataset,
                role=row.role,
                split=row.split,
                group_key=row.group_key,
                captured_at=row.captured_at,
                source=row.source,
            )
            for part in parts
            for row in connection.execute(part)
        ]


def near_duplicates(
    lookalikes: Lookalikes, ids: Sequence[int], among: Sequence[int], threshold: float
) -> dict[int, int]:
    """image id -> the first other image of `among` that looks like it."""
    return dict(lookalikes.pairs(ids, sorted(set(among)), threshold=threshold, first=True))
