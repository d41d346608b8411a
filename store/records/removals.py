"""What a removal takes away, and what it leaves behind that named it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleVersion:
    """A data set version that names what goes: its record stays, but it cannot be written again.

    Attributes:
        images, samples: of it that go.
    """

    number: int
    name: str
    images: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPlan:
    """What a removal takes away, before it is done.

    Attributes:
        counts: table -> rows that go. Objects of labels and tags are not counted: they would tell how many
            an image has whose labels are hidden.
        kept: images that stay, as they have another role or data set; of memberships that go.
        selections: name -> hits that it loses; the others stay.
        unlinked: hits and samples that stay, and no longer name the failure that they were made for.
        versions: data sets that cannot be written again.
        verifications: of a holdout that held some of the images: their trials stay as they were measured.
        spaces: vector spaces whose projections may have been fitted on some of the images.
    """

    counts: Mapping[str, int]
    kept: int = 0
    selections: Mapping[str, int] = field(default_factory=dict)
    unlinked: int = 0
    versions: tuple[StaleVersion, ...] = ()
    verifications: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipFilter:
    """Which memberships of some images are meant: of a role, of a data set, of both, or all."""

    role: str | None = None
    dataset: str | None = None

    @property
    def every(self) -> bool:
        """True where all are."""
        return self.role is None and self.dataset is None
