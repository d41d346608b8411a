"""What an arm is: it says which images a verification adds to the training set.

In: a plain context that `run_arms` has read from the Store; an arm never opens it. Out: `Added` images, at
most the budget, so that every arm adds the same number where there are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from store.records import Annotation, AnnotationSet, ImageRecord, NewAnnotation, Sample

ORDER = (  # of the built-in arms in tables; others stand before the oracle
    "nothing",
    "random",
    "uncertainty",
    "class-uncertainty",
    "diversity",
    "similarity",
    "image-similarity",
    "crop-similarity",
    "query",
    "copy-paste",
    "synthesis",
    "both",
    "query+synthesis",
)


def split_label(label: str) -> tuple[str, int | None]:
    """An arm's name in tables -> the arm and the budget, where several were asked for: "query@40"."""
    name, at, budget = label.rpartition("@")
    return (name, int(budget)) if at and budget.isdigit() else (label, None)


def place(label: str) -> tuple[int, str, int]:
    """Where an arm stands in tables: in `ORDER`, others by name, the oracle last, budgets upwards."""
    name, budget = split_label(label)
    order = ORDER.index(name) if name in ORDER else len(ORDER) + (name == "oracle")
    return order, name, budget or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """One added image: a labelled pool image, a sample (its PNG is a blob), or a picture made here (`data`).

    Attributes:
        group: why a drawn pool image was taken; shown in its stored selection.
    """

    sha256: str
    annotations: tuple[Annotation | NewAnnotation, ...]
    image: ImageRecord | None = None
    sample: Sample | None = None
    data: bytes = b""
    conditions: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool without leaks, and what the annotator would say. Read as "oracle".

    Attributes:
        conditions: image id -> conditions that it holds; none where the user names no tag.
    """

    images: Mapping[int, ImageRecord]
    labels: Mapping[int, AnnotationSet]
    conditions: Mapping[int, frozenset[str]]

    def added(self, image_id: int, group: str) -> Added:
        """A pool image with its labels."""
        image = self.images[image_id]
        return Added(
            sha256=image.sha256,
            annotations=self.labels[image_id].annotations,
            image=image,
            conditions=tuple(sorted(self.conditions[image_id])),
            group=group,
        )


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its labels."""

    image: ImageRecord
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class Cutouts:
    """What copy-paste cuts and where it pastes.

    Attributes:
        objects: missed ones of mined images, at least one.
        scenes: training images, at least one.
    """

    objects: Sequence[tuple[Labelled, Annotation]]
    scenes: Sequence[Labelled]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an arm must find in its context: hits of selections by name ("" is the verified one's), samples,
    the pool, what fails in the pool, objects to cut out."""

    hits: Mapping[str, int] = field(default_factory=dict)
    samples: int = 0
    pool: bool = False
    fails: bool = False
    cutouts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmContext:
    """What arms choose from; each part is there where an arm needs it. Nothing in it equals a holdout image.

    Attributes:
        seed: of the verification.
        hits: labelled images of the selections by name, "" for the verified one, best first.
        samples: accepted ones.
        fails: pool image id -> failing groups that it holds, those with most failures first.
    """

    seed: int
    hits: Mapping[str, Sequence[Added]] = field(default_factory=dict)
    samples: Sequence[Added] = ()
    pool: Pool | None = None
    fails: Mapping[int, Sequence[str]] | None = None
    cutouts: Cutouts | None = None


class Arm(Protocol):
    """Chooses the images that are added.

    Attributes:
        drawn: True where every training seed gets other pool images; they are stored as a selection.
    """

    drawn: bool

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images, the same for the same context and training seed."""
