"""Tables of detectors, detections and outcomes."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Boxed, Id, ImageId, Json, Key, RunId


class Model(Base):
    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("fingerprint", "spec"),)
    id: Mapped[Id]
    spec: Mapped[str]
    fingerprint: Mapped[str]
    classes: Mapped[Json]


class DetectionRow(Base):
    """Detections of one image by one model: boxes (N, 4) and scores (N,) as little-endian float32, labels and
    candidates (N,) as little-endian int64."""

    __tablename__ = "detections"
    __table_args__ = (Index(None, "model_id", "image_id"),)
    id: Mapped[Id]
    image_id: Mapped[ImageId]
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    boxes: Mapped[bytes]
    scores: Mapped[bytes]
    labels: Mapped[bytes]
    candidates: Mapped[bytes]
    pin: Mapped[str] = mapped_column(Text)
    config_key: Mapped[str]
    key: Mapped[Key]
    run_id: Mapped[RunId]


class OutcomeRow(Boxed, Base):
    """A failure (FP, FN) or a success (TP), with its target."""

    __tablename__ = "outcomes"
    id: Mapped[Id]
    image_id: Mapped[ImageId]
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    kind: Mapped[str]
    cause: Mapped[str | None]
    category: Mapped[str]
    score: Mapped[float]
    iou: Mapped[float]
    target_candidate: Mapped[int]
    target_label: Mapped[int]
    target_rule: Mapped[str]
    target_score: Mapped[float]
    target_iou: Mapped[float]
    annotation_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    detection_index: Mapped[int | None]
    key: Mapped[Key]
    run_id: Mapped[RunId]


class OutcomeItem(Base):
    """Which item of "diagnose" made an outcome; two configurations may share one."""

    __tablename__ = "outcome_items"
    item_key: Mapped[str] = mapped_column(primary_key=True)
    outcome_id: Mapped[int] = mapped_column(ForeignKey("outcomes.id"), primary_key=True, index=True)
    run_id: Mapped[RunId]
