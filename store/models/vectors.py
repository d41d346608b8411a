"""Tables of vectors."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Boxed, Id, Identifier, ImageId, RunId


class VectorSpace(Base):
    """One append-only file per (embedder, view). `committed` is the number of its rows that count."""

    __tablename__ = "vector_spaces"
    __table_args__ = (UniqueConstraint("embedder", "view"),)
    id: Mapped[Id]
    embedder: Mapped[str]
    view: Mapped[str]
    dimension: Mapped[int]
    committed: Mapped[int]
    run_id: Mapped[RunId]


class VectorRow(Boxed, Base):
    """The owner of one vector; `id` is its FAISS id, `position` its row in the file. The vector of a culprit
    region names the attribution that blames it."""

    __tablename__ = "vectors"
    __table_args__ = (
        UniqueConstraint("space_id", "position"),
        UniqueConstraint("space_id", "item_key", "ordinal"),
    )
    id: Mapped[int] = mapped_column(Identifier, primary_key=True, autoincrement=False)
    space_id: Mapped[int] = mapped_column(ForeignKey("vector_spaces.id"))
    position: Mapped[int]
    item_key: Mapped[str]
    ordinal: Mapped[int]
    image_id: Mapped[ImageId]
    source: Mapped[str]
    outcome_id: Mapped[int | None] = mapped_column(ForeignKey("outcomes.id"), index=True)
    attribution_id: Mapped[int | None] = mapped_column(ForeignKey("attributions.id"))
    score: Mapped[float]
    label: Mapped[int]
    run_id: Mapped[RunId]
