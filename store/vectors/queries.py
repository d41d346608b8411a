"""What the vector spaces ask of SQL, besides the places of images.

In: a connection. Out: rows, ids, or a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, exists, select, text
from sqlalchemy.orm import aliased

from store.errors import NotFoundError
from store.models import Image, IndexedImage, Member, SpaceRow
from store.records import BoxesKind, ImageBoxes, Ints, Role
from store.session import chunks, table
from store.vectors.places import KINDS

WRITERS = 0x6375726174  # PostgreSQL's advisory lock: rows of files are given out by one transaction at a time


def one_writer(connection: Connection, *, wait: bool = True) -> bool:
    """Let this transaction alone give out rows of files until it ends; True when it may.

    SQLite has the whole database locked already.
    """
    if connection.dialect.name != "postgresql":
        return True
    name = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    found = connection.scalar(text(f"SELECT {name}(:lock)"), {"lock": WRITERS})
    return wait or bool(found)


def find_space(connection: Connection, name: str) -> Any:
    """The row of a space, or None."""
    return connection.execute(select(table(SpaceRow)).where(SpaceRow.name == name)).one_or_none()


def require_space(connection: Connection, name: str) -> Any:
    """The row of a space.

    Raises:
        NotFoundError: names the spaces that exist.
    """
    found = find_space(connection, name)
    if found is None:
        known = connection.scalars(select(SpaceRow.name).order_by(SpaceRow.name)).all()
        raise NotFoundError(
            f"no vector space called {name!r}; there are: {', '.join(known) or 'none (run `curator index`)'}"
        )
    return found


def check_sizes(connection: Connection, images: Sequence[ImageBoxes]) -> None:
    """Refuse boxes of unknown images or of images of another size.

    Raises:
        NotFoundError, ValueError: name the image.
    """
    sizes = image_sizes(connection, np.array([image.image_id for image in images], np.int64))
    for image, size in zip(images, sizes.tolist(), strict=True):
        if size == [0, 0]:
            raise NotFoundError(f"no image {image.image_id} in this workspace")
        if size != list(image.size):
            raise ValueError(
                f"boxes of image {image.image_id}: expected its size {size[0]} x {size[1]}, got "
                f"{image.size[0]} x {image.size[1]} (height x width)"
            )


def places_of(
    connection: Connection, space_id: int, kind: BoxesKind, keys: Sequence[bytes]
) -> dict[bytes, int]:
    """The places of those keys that are stored."""
    found: dict[bytes, int] = {}
    for part in chunks(keys):
        query = select(IndexedImage.key, IndexedImage.place).where(
            IndexedImage.space_id == space_id, IndexedImage.kind == KINDS[kind], IndexedImage.key.in_(part)
        )
        found.update((bytes(row[0]), row[1]) for row in connection.execute(query))
    return found


def may_read(connection: Connection, image_ids: Ints, role: Role | None) -> NDArray[np.bool_]:
    """Which of the images (M,) are of a role, or, without one, not in the holdout alone."""
    if role is not None:
        query = select(Member.image_id).where(Member.role == role)
    else:
        other = aliased(Member)
        elsewhere = exists().where(other.image_id == Member.image_id, other.role != "holdout")
        query = select(Member.image_id).where(Member.role == "holdout", ~elsewhere)
    found = np.fromiter(connection.scalars(query.distinct()), dtype=np.int64)
    mask: NDArray[np.bool_] = np.isin(image_ids, found, invert=role is None)
    return mask


def image_sizes(connection: Connection, image_ids: Ints) -> Ints:
    """Heights and widths (N, 2) of images; 0 where an id is unknown."""
    if not len(image_ids):
        return np.zeros((0, 2), np.int64)
    unique, places = np.unique(image_ids, return_inverse=True)
    sizes = np.zeros((len(unique), 2), np.int64)
    for part in chunks(unique.tolist()):
        query = select(Image.id, Image.height, Image.width).where(Image.id.in_(part))
        found = np.array([tuple(row) for row in connection.execute(query)], np.int64).reshape(-1, 3)
        sizes[np.searchsorted(unique, found[:, 0])] = found[:, 1:]
    return sizes[places]
