"""Runs of stages and the states of their items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RunStatus = Literal["running", "done", "partial", "failed", "interrupted"]
"""How a run stands: "partial" where some items failed, "interrupted" where it was stopped or killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One execution of a stage.

    Attributes:
        config_key: digest of all that changes its results but the items; "" where nothing reads by it.
        scope: what it is current for: a batch's name, a model's fingerprint, or "".
        aside: it only looks: no reader takes its results for the stage's.
        facts: what it has resolved, plain JSON.
    """

    id: int
    stage: str
    status: RunStatus
    config: Mapping[str, Any]
    seed: int | None
    code_version: str
    models: tuple[str, ...]
    parents: tuple[int, ...]
    started_at: datetime
    finished_at: datetime | None
    counts: Mapping[str, int]
    config_key: str = ""
    scope: str = ""
    aside: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemStatus:
    """What became of one item of a stage: the unit of resuming."""

    key: str
    status: Literal["done", "failed"]
    image_id: int | None = None
    message: str | None = None
