"""Tables of selections, feedback, samples, dataset versions and trials."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Boxed, Id, ImageId, Json, Key, RunId


class SelectionRow(Base):
    """A query's answer: its configuration, and the chosen images as hits."""

    __tablename__ = "selections"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)
    arm: Mapped[str]
    config: Mapped[Json]
    key: Mapped[str]
    run_id: Mapped[RunId]


class HitRow(Boxed, Base):
    __tablename__ = "hits"
    __table_args__ = (UniqueConstraint("selection_id", "image_id"),)
    selection_id: Mapped[int] = mapped_column(
        ForeignKey("selections.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int]
    image_id: Mapped[ImageId]
    outcome_id: Mapped[int | None] = mapped_column(ForeignKey("outcomes.id"))
    group_name: Mapped[str]
    score: Mapped[float]
    reason: Mapped[str] = mapped_column(Text)


class FeedbackRow(Boxed, Base):
    """What a person says of a hit; it outlives the selection, which a query replaces."""

    __tablename__ = "feedback"
    selection: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    accepted: Mapped[bool]
    group_name: Mapped[str]
    run_id: Mapped[RunId]


class SampleRow(Boxed, Base):
    """A synthetic image and its lineage; the box is what was painted, `number` the plan's."""

    __tablename__ = "samples"
    id: Mapped[Id]
    name: Mapped[str] = mapped_column(index=True)
    blob: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    recipe: Mapped[str]
    group_name: Mapped[str]
    scene_image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    exemplar_image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"))
    outcome_id: Mapped[int | None] = mapped_column(ForeignKey("outcomes.id"))
    annotations: Mapped[Json]
    seed: Mapped[int]
    number: Mapped[int]
    config_key: Mapped[str]
    key: Mapped[Key]
    run_id: Mapped[RunId]


class VerdictRow(Base):
    __tablename__ = "verdicts"
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    check: Mapped[str]
    accepted: Mapped[bool]
    value: Mapped[float | None]
    bound: Mapped[float | None]
    reason: Mapped[str] = mapped_column(Text)
    run_id: Mapped[RunId]


class VersionRow(Base):
    """A frozen list of what was exported or trained on."""

    __tablename__ = "dataset_versions"
    __table_args__ = (UniqueConstraint("name", "key"),)
    id: Mapped[Id]
    name: Mapped[str]
    image_ids: Mapped[Json]
    sample_ids: Mapped[Json]
    manifest: Mapped[Json]
    key: Mapped[str]
    run_id: Mapped[RunId]


class TrialRow(Base):
    __tablename__ = "trials"
    id: Mapped[Id]
    verification: Mapped[str] = mapped_column(index=True)
    arm: Mapped[str]
    seed: Mapped[int]
    metrics: Mapped[Json]
    key: Mapped[Key]
    run_id: Mapped[RunId]
