"""Tables of images, data sets and annotations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, SmallInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Boxed, Id, Json, Moment, RunId


class Image(Base):
    __tablename__ = "images"
    id: Mapped[Id]
    uri: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    phash: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    run_id: Mapped[RunId]


class AppearanceRow(Base):
    """What an image looks like (`store.appearance`); absent where its file was gone when it was needed."""

    __tablename__ = "appearances"
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    hashes: Mapped[bytes]
    thumbnail: Mapped[bytes]
    run_id: Mapped[RunId]


class ComparisonRow(Base):
    """How unlike two pictures were found (`store.likeness`): a cache, so that they are compared once."""

    __tablename__ = "comparisons"
    __table_args__ = ({"sqlite_with_rowid": False},)
    image_a: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    image_b: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    mirrored: Mapped[bool] = mapped_column(primary_key=True)
    measure: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    unlikeness: Mapped[float]


class Dataset(Base):
    __tablename__ = "datasets"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)


class Member(Base):
    """The part an image plays in a data set."""

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("image_id", "dataset_id", "role"), Index(None, "role", "image_id"))
    id: Mapped[Id]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    role: Mapped[str]
    split: Mapped[str | None]
    group_key: Mapped[str | None]
    captured_at: Mapped[datetime | None] = mapped_column(Moment)
    source: Mapped[str | None]
    run_id: Mapped[RunId]


class Category(Base):
    __tablename__ = "categories"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)


class ClassList(Base):
    """Classes that a data set lists: its labels speak of these."""

    __tablename__ = "class_lists"
    id: Mapped[Id]
    key: Mapped[str] = mapped_column(unique=True)
    names: Mapped[Json]
    run_id: Mapped[RunId]


class ListedImage(Base):
    """What an image's labels speak of; absent where nothing says so."""

    __tablename__ = "listed_images"
    __table_args__ = ({"sqlite_with_rowid": False},)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    class_list_id: Mapped[int] = mapped_column(ForeignKey("class_lists.id"), index=True)
    run_id: Mapped[RunId]


class AnnotationVersion(Base):
    __tablename__ = "annotation_versions"
    __table_args__ = (UniqueConstraint("image_id", "version"),)
    id: Mapped[Id]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    version: Mapped[int]
    key: Mapped[str]
    status: Mapped[str]
    run_id: Mapped[RunId]


class AnnotationRow(Boxed, Base):
    __tablename__ = "annotations"
    id: Mapped[Id]
    version_id: Mapped[int] = mapped_column(
        ForeignKey("annotation_versions.id", ondelete="CASCADE"), index=True
    )
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"))
    crowd: Mapped[bool]
    difficult: Mapped[bool]
    polygon: Mapped[Json | None]
    attributes: Mapped[Json]


class Tag(Base):
    __tablename__ = "tags"
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    run_id: Mapped[RunId]
