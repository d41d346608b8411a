"""Synthetic images and the gate's verdicts."""

from __future__ import annotations

import math
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

    def __str__(self) -> str:
        """For people; a person's word has no measure."""
        figures = "" if math.isnan(self.value) else f" {self.value:g} against {self.bound:g}"
        return f"{self.check}{figures}: {self.reason}"


PERSON = "person"
"""The check whose verdict a person gives: it decides alone."""


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
        verdicts: () before the gate has judged; a person's own comes last.
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
        """As a person said; where none did, as the gate judged."""
        return self.passed if self.person is None else self.person.accepted

    @property
    def passed(self) -> bool:
        """True when the gate has judged and every check passed, whatever a person said since."""
        own = [verdict for verdict in self.verdicts if verdict.check != PERSON]
        return bool(own) and all(verdict.accepted for verdict in own)

    @property
    def person(self) -> Verdict | None:
        """What a person said; None where none did."""
        return next((verdict for verdict in self.verdicts if verdict.check == PERSON), None)
