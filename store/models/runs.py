"""Tables of runs and items."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Id, Json, Moment, RunId


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
