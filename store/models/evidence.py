"""Tables of explanations."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Boxed, Id, ImageId, Json, Key, OutcomeId, RunId


class SegmentationRow(Base):
    """Segments of one image as a 16-bit greyscale PNG."""

    __tablename__ = "segmentations"
    id: Mapped[Id]
    image_id: Mapped[ImageId]
    png: Mapped[bytes]
    key: Mapped[Key]
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), index=True)


class AttributionRow(Base):
    """phi (M,) as little-endian float32 (height NULL), or a grid (height, width) as little-endian float16
    with its affine. NaN is stored as NULL."""

    __tablename__ = "attributions"
    __table_args__ = (Index(None, "outcome_id", "method"),)
    id: Mapped[Id]
    outcome_id: Mapped[int] = mapped_column(ForeignKey("outcomes.id"))
    method: Mapped[str]
    segmentation_id: Mapped[int | None] = mapped_column(ForeignKey("segmentations.id"))
    map: Mapped[bytes]
    height: Mapped[int | None]
    width: Mapped[int | None]
    scale_x: Mapped[float | None]
    scale_y: Mapped[float | None]
    offset_x: Mapped[float | None]
    offset_y: Mapped[float | None]
    full: Mapped[float | None]
    empty: Mapped[float | None]
    gap: Mapped[float | None]
    passes: Mapped[int]
    evidence: Mapped[bool]
    extra: Mapped[Json]
    config_key: Mapped[str]
    key: Mapped[Key]
    run_id: Mapped[RunId]


class RegionRow(Boxed, Base):
    __tablename__ = "regions"
    id: Mapped[Id]
    attribution_id: Mapped[int] = mapped_column(ForeignKey("attributions.id"), index=True)
    outcome_id: Mapped[OutcomeId]
    image_id: Mapped[ImageId]
    kind: Mapped[str]
    segments: Mapped[Json]
    weight: Mapped[float]
    key: Mapped[Key]
    run_id: Mapped[RunId]
