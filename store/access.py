"""Who may see what: the rules that keep the holdout untouched and the pool unlabelled.

pixels       an image whose only role is "holdout": "verify" alone
annotations  (and tags) any of these grants them:
               role train or mine;
               role pool and in a stored selection, or judged as a hit (the annotator has labelled it);
               role pool, for "oracle", who stands for the annotator;
               role holdout, for "verify".
             An image that is in the pool and in the holdout is a leak: no selection opens it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from store.errors import AccessError, NotFoundError
from store.models import FeedbackRow, HitRow, Image, Member
from store.records import Reader, Role
from store.session import chunks


def may_see_pixels(roles: frozenset[str], reader: Reader) -> bool:
    """Apply the first rule above."""
    return roles != {"holdout"} or reader == "verify"


def may_see_annotations(roles: frozenset[str], selected: bool, reader: Reader) -> bool:
    """Apply the second rule above."""
    if roles & {"train", "mine"}:
        return True
    if "holdout" in roles:
        return reader == "verify"
    return selected or reader == "oracle"


def check_role(role: Role | None, reader: Reader) -> None:
    """Refuse a listing of the holdout.

    Raises:
        AccessError: for another reader than "verify".
    """
    if role == "holdout" and reader != "verify":
        raise AccessError(
            f"{reader}: holdout images are read by `curator verify` alone; use role train, mine or pool"
        )


def check_pixels(connection: Connection, image_ids: Sequence[int], reader: Reader) -> None:
    """Refuse holdout-only images.

    Raises:
        AccessError: names the first such image.
    """
    if reader == "verify":
        return
    for image_id, roles in roles_of(connection, image_ids).items():
        if not may_see_pixels(roles, reader):
            raise AccessError(
                f"{reader}: image {image_id} is in the holdout, which `curator verify` alone reads"
            )


def check_annotations(connection: Connection, image_ids: Sequence[int], reader: Reader) -> None:
    """Refuse annotations that the reader must not see.

    Raises:
        AccessError: names the first such image and why.
    """
    selected = _selected(connection, image_ids)
    for image_id, roles in roles_of(connection, image_ids).items():
        if may_see_annotations(roles, image_id in selected, reader):
            continue
        if "holdout" in roles:
            also = " (and in the pool: a leak, drop it from one of them)" if "pool" in roles else ""
            raise AccessError(
                f"{reader}: image {image_id} is in the holdout{also}, whose labels `curator verify` "
                "alone reads"
            )
        raise AccessError(
            f"{reader}: image {image_id} is in the pool and in no selection, so its labels stay "
            "hidden; select it first with `curator query`"
        )


def check_selectable(connection: Connection, image_ids: Sequence[int]) -> None:
    """Refuse a selection that would put a holdout image into training.

    Raises:
        AccessError: names the images.
    """
    leaks = [i for i, roles in roles_of(connection, image_ids).items() if "holdout" in roles]
    if leaks:
        raise AccessError(
            f"a selection must not hold holdout images, got {len(leaks)} (ids "
            f"{', '.join(map(str, leaks[:5]))}); leave out what Store.leaks() names"
        )


def roles_of(connection: Connection, image_ids: Sequence[int]) -> Mapping[int, frozenset[str]]:
    """Roles per image, in the order asked for.

    Raises:
        NotFoundError: an id that the workspace does not hold.
    """
    found: dict[int, set[str]] = {}
    for part in chunks(list(dict.fromkeys(image_ids))):
        query = (
            select(Image.id, Member.role)
            .outerjoin(Member, Member.image_id == Image.id)
            .where(Image.id.in_(part))
        )
        for image_id, role in connection.execute(query):
            found.setdefault(image_id, set()).add(role)
    for image_id in image_ids:
        if image_id not in found:
            raise NotFoundError(f"no image {image_id} in this workspace")
    return {image_id: frozenset(found[image_id]) for image_id in image_ids}


def _selected(connection: Connection, image_ids: Sequence[int]) -> set[int]:
    chosen: set[int] = set()
    for part in chunks(list(set(image_ids))):
        chosen.update(connection.scalars(select(HitRow.image_id).where(HitRow.image_id.in_(part)).distinct()))
        judged = select(FeedbackRow.image_id).where(FeedbackRow.image_id.in_(part)).distinct()
        chosen.update(connection.scalars(judged))  # a hit until it was refined away
    return chosen
