"""What a query found and chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.records.boxes import BoxTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A pool image that a query found.

    Attributes:
        outcome_id: the failure that asked for it.
        box: the box of the pool image that answered.
        score: the query's score, higher is better; comparable within one group.
        reason: why it was chosen, in one sentence for people.
    """

    rank: int
    image_id: int
    outcome_id: int | None
    group: str
    box: BoxTuple
    score: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a person says of a hit: that the image shows what was asked for, or not.

    Attributes:
        selection: its name. group: that the image was taken for. box: the box that answered.
    """

    selection: str
    image_id: int
    accepted: bool
    group: str
    box: BoxTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A named, budgeted choice of pool images; `hits` best first, one per image."""

    name: str
    arm: str
    hits: tuple[Hit, ...]
    config: Mapping[str, Any]
    key: str
    id: int | None = None

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The chosen images, best first."""
        return tuple(hit.image_id for hit in self.hits)
