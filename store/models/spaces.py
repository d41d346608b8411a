"""Tables of vector spaces."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, LargeBinary, SmallInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Id, Json, RunId


class SpaceRow(Base):
    """What every image of a vector space holds (`store.records.SpaceShape`); its rows are in files.

    `arrays` names a blob (safetensors), "" where there are none.
    """

    __tablename__ = "spaces"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)
    views: Mapped[Json]
    image_views: Mapped[Json]
    classes: Mapped[int]
    facts: Mapped[Json]
    arrays: Mapped[str]
    run_id: Mapped[RunId]


class IndexedImage(Base):
    """Where the rows of one image lie in the files of a space. A million of them are normal: rows are small.

    `kind` is 0 ("offered") or 1 ("outcomes"). `place` numbers the images of a kind from 0, in the order of
    the files, and is the row of the image's own views. The last place of a kind tells how many rows of its
    files count: those of all images are adjacent. `key` is the first half of the content key's SHA-256.
    """

    __tablename__ = "indexed_images"
    __table_args__ = (
        UniqueConstraint("space_id", "kind", "key"),
        Index(None, "image_id"),
        {"sqlite_with_rowid": False},
    )
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    kind: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    key: Mapped[bytes] = mapped_column(LargeBinary(16))
    first_box: Mapped[int]
    boxes: Mapped[int]
    first_candidate: Mapped[int]
    candidates: Mapped[int]
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
