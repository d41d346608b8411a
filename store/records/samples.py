"""Synthetic images and the gate's verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from store.records.annotations import NewAnnotation
from store.records.boxes import BoxTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One gate check of one sample: its measure, its bound and the reason in words."""

    check: str
    accepted: bool
    value: float
    bound: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A synthetic image with its lineage.

    Attributes:
        blob: sha256 of the PNG in the blob store.
        recipe: name of the recipe. group: the failures it answers.
        scene_image_id: the image that was painted on. exemplar_image_id: where the exemplar came from.
        outcome_id: the failure that asked for it.
        painted: the painted box, stored-image pixels of the sample.
        annotations: the objects of the sample.
        number: of its plan; plans are worked off in this order.
        verdicts: () before the gate has judged.
    """

    name: str
    blob: str
    width: int
    height: int
    recipe: str
    group: str
    scene_image_id: int
    exemplar_image_id: int | None
    outcome_id: int | None
    painted: BoxTuple
    annotations: tuple[NewAnnotation, ...]
    seed: int
    key: str
    number: int = 0
    verdicts: tuple[Verdict, ...] = ()
    id: int | None = None

    @property
    def accepted(self) -> bool:
        """True when the gate has judged and every check passed."""
        return bool(self.verdicts) and all(verdict.accepted for verdict in self.verdicts)
