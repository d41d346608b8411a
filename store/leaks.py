"""What must not be added to a training set, because it would tell a detector about the holdout. This is the
one window that other stages have on the holdout.

In: image ids, or pictures that are no images of the workspace. Out: for each that leaks, why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection, func, select

from store.appearance import Appearance
from store.lookalikes import Lookalikes
from store.models import Member, Run
from store.records import Leak, Role
from store.session import Database, chunks

THRESHOLD = 1.0
"""Largest unlikeness of two pictures that count as one; `curator add --near-duplicates` sets another."""


def near_threshold(database: Database) -> float:
    """The workspace's own: that of the newest `curator add` which was given one."""
    with database.reading() as connection:
        configs = connection.scalars(select(Run.config).where(Run.stage == "add").order_by(Run.id.desc()))
        for config in configs:
            found = config.get("near_duplicates")
            if found is not None:
                return float(found)
    return THRESHOLD


def leaks(
    database: Database, lookalikes: Lookalikes, ids: Sequence[int], roles: Sequence[Role]
) -> dict[int, Leak]:
    """Those of `ids` that leak, in their order. Equal beats a shared group, which beats nearly equal."""
    wanted = list(dict.fromkeys(ids))
    with database.reading() as connection:
        protected = _protected(connection, roles)
        found = {
            i: Leak(reason="equal", role=protected[i], image_id=i) for i in wanted if i in protected
        }
        if "holdout" in roles:
            rest = [i for i in wanted if i not in found]
            found |= {
                i: Leak(reason="group", role="holdout", image_id=other)
                for i, other in _group_mates(connection, rest).items()
            }
    rest = [i for i in wanted if i not in found]
    others = sorted(protected, key=lambda i: (protected[i] != "holdout", i))
    if rest and others:
        for i, other in lookalikes.pairs(rest, others, threshold=near_threshold(database), first=True):
            found[i] = Leak(reason="nearly equal", role=protected[other], image_id=other)
    return {i: found[i] for i in wanted if i in found}


def picture_leaks(
    database: Database, lookalikes: Lookalikes, pictures: Sequence[Appearance], roles: Sequence[Role]
) -> list[tuple[Leak, ...]]:
    """Per picture the protected images that it looks like: holdout first."""
    with database.reading() as connection:
        protected = _protected(connection, roles)
    described = [(picture.hashes, picture.thumbnail) for picture in pictures]
    found: list[list[Leak]] = [[] for _ in pictures]
    for place, other in lookalikes.like(
        described, sorted(protected), threshold=near_threshold(database)
    ):
        found[place].append(Leak(reason="nearly equal", role=protected[other], image_id=other))
    return [tuple(sorted(some, key=lambda leak: (leak.role != "holdout", leak.image_id))) for some in found]


def same_picture(lookalikes: Lookalikes, image_id: int, picture: Appearance) -> bool:
    """Is a picture the image, written anew or resized, neither cut nor mirrored?"""
    return lookalikes.in_place(image_id, picture.thumbnail) <= THRESHOLD


def _protected(connection: Connection, roles: Sequence[Role]) -> dict[int, Role]:
    """Image id -> "holdout", or else "mine", of the images in one of the roles."""
    rows = connection.execute(select(Member.image_id, Member.role).where(Member.role.in_(list(roles))))
    found: dict[int, Role] = {}
    for row in rows:
        if found.get(row[0]) != "holdout":
            found[row[0]] = cast(Role, row[1])
    return found


def _group_mates(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """Image id -> the first holdout image with a group key that is also one of its own."""
    held = select(Member.group_key, func.min(Member.image_id).label("other"))
    held = held.where(Member.role == "holdout", Member.group_key.is_not(None)).group_by(Member.group_key)
    mates = held.subquery()
    found: dict[int, int] = {}
    for part in chunks(ids):
        rows = connection.execute(
            select(Member.image_id, func.min(mates.c.other))
            .join(mates, mates.c.group_key == Member.group_key)
            .where(Member.image_id.in_(part))
            .group_by(Member.image_id)
        )
        found.update((row[0], row[1]) for row in rows)
    return found


