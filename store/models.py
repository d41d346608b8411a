"""SQLAlchemy models: the tables of a workspace, on SQLite and PostgreSQL alike.

Change a table here and write a migration for it; `curator db check` and a test compare the two. Every
result row carries the run that wrote it (`run_id`) and its content key (`key`, unique).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.keys import canonical_json

Identifier = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere: SQLite's rowid needs the plain type name."""


class CanonicalJson(TypeDecorator[Any]):
    """Plain JSON values as canonical text: equal values are equal bytes in both databases."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Moment(TypeDecorator[datetime]):
    """A datetime as ISO text: naive ones (a camera's clock) and aware ones come back as they went in."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else value.isoformat()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """Declarative base with a naming convention, so that migrations can name what they change."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: Identifier,
        float: Double(),
        str: String(),
        bytes: LargeBinary(),
    }


Id = Annotated[int, mapped_column(Identifier, primary_key=True)]
RunId = Annotated[int, mapped_column(ForeignKey("runs.id"), index=True)]
ImageId = Annotated[int, mapped_column(ForeignKey("images.id"), index=True)]
OutcomeId = Annotated[int, mapped_column(ForeignKey("outcomes.id"), index=True)]
Key = Annotated[str, mapped_column(unique=True)]
Json = Annotated[Any, mapped_column(CanonicalJson)]


class Boxed:
    """A box (x1, y1, x2, y2) in stored-image pixels."""

    x1: Mapped[float]
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]


# ---------------------------------------------------------------- runs


class Run(Base):
    """One execution of a stage.

    `config_key` is the digest of all that changes its results but the items; rows carry it, and readers see
    those of the stage's current run (`store.runs.current_run`). `scope` tells what the run is current for (a
    batch's name, a model's fingerprint), `aside` that it does not want to be. `facts` are what the run has
    resolved. `process` names the process that executes it.
    """

    __tablename__ = "runs"
    id: Mapped[Id]
    stage: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    config: Mapped[Json]
    seed: Mapped[int | None]
    code_version: Mapped[str]
    host: Mapped[str]
    models: Mapped[Json]
    parents: Mapped[Json]
    started_at: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    counts: Mapped[Json]
    config_key: Mapped[str]
    scope: Mapped[str]
    aside: Mapped[bool]
    facts: Mapped[Json]
    process: Mapped[str | None]


class Item(Base):
    """What became of one item of a stage: the unit of resuming. `config_key` is its run's."""

    __tablename__ = "items"
    __table_args__ = (Index(None, "stage", "config_key"),)
    stage: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    run_id: Mapped[RunId]
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"))
    message: Mapped[str | None]
    config_key: Mapped[str]


# ---------------------------------------------------------------- images


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


# ---------------------------------------------------------------- detections and outcomes


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


# ---------------------------------------------------------------- explanations


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


# ---------------------------------------------------------------- vectors


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


# ---------------------------------------------------------------- selections, samples, versions, trials


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
    vector_id: Mapped[int | None] = mapped_column(ForeignKey("vectors.id"))
    group_name: Mapped[str]
    score: Mapped[float]


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
