"""The recipe seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from store.records import BoxTuple, NewAnnotation

if TYPE_CHECKING:
    from curator.synthesize.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A labelled image to paint on, or to take an exemplar from; modal: its boxes end where objects are
    hidden."""

    image_id: int
    image: Tensor  # (3, H, W) RGB [0, 1]
    annotations: tuple[NewAnnotation, ...]
    modal: bool = False
    outcome_id: int | None = None
    region: BoxTuple | None = None  # the culprit or look-alike in this image, where known
    context: Context | None = None  # which places look like places for a class; None: nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where what was pasted comes from.

    Attributes:
        image: (3, h, w) the failing image. mask: (h, w) bool, the pixels that were taken. object: the failed
            object is among them, with its label.
    """

    image: Tensor
    mask: Tensor
    object: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """What a recipe wants painted: where, from which exemplar, and what the result's labels are.

    Attributes:
        exemplar: (3, h, w) RGB [0, 1], what to paint, for a generator.
        mask: (H, W) bool, the hole.
        composed: (3, H, W) the scene with the exemplar's own pixels in the hole: what a generator starts from
            at a strength below 1, and the sample itself at strength 0.
        painted: bounding box of what was painted.
        annotations: labels of the result.
        made: numbers of those annotations that were painted or changed.
        prompt: what is painted.
        negative_prompt: what must not be.
        rendered: (3, H, W) the sample itself, from a recipe that needs no inpainter.
        home: where what was pasted comes from; None where nothing was.
        details: for people; "fit", where the recipe compares places: how well its place suits, so that of
            several scenes the one is painted on where it is largest.
    """

    recipe: str
    group: str
    scene: Scene
    exemplar: Tensor
    exemplar_image_id: int | None
    outcome_id: int | None
    mask: Tensor
    painted: BoxTuple
    annotations: tuple[NewAnnotation, ...]
    seed: int
    prompt: str | None = None
    negative_prompt: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    composed: Tensor | None = None
    made: tuple[int, ...] = ()
    rendered: Tensor | None = None
    home: Home | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """A failure that a recipe answers, with its image and what is to blame in it.

    Attributes:
        image: (3, H, W) RGB [0, 1].
        kind: "FN" or "FP".
        category: as `Outcome.category`.
        box: the failed object's or the false detection's box, stored-image pixels.
        blamed: (H, W) bool, the culprit's segments; None where nothing was explained.
        polygon: rings of the failed object's outline, stored-image pixels; None where the data set has none.
        neighbours: the other labelled objects of the image.
    """

    image_id: int
    outcome_id: int | None
    group: str
    kind: str
    category: str
    image: Tensor
    box: BoxTuple
    blamed: Tensor | None = None
    polygon: tuple[tuple[float, ...], ...] | None = None
    neighbours: tuple[NewAnnotation, ...] = ()


class Recipe(Protocol):
    """Turns a failure and a labelled scene into a plan."""

    name: str
    kinds: tuple[str, ...]  # of failures that it answers
    causes: tuple[str, ...]  # of those; () means all
    # explained: bool = False, where it is missing: it answers only failures for which something is blamed.

    def suits(self, category: str, annotations: Sequence[NewAnnotation]) -> bool:
        """True when a scene with these objects can serve a failure of `category`; looks at no pixels."""

    def plan(self, exemplar: Exemplar, scene: Scene, *, seed: int) -> SamplePlan:
        """Plan one sample; equal arguments give an equal plan.

        Raises:
            StageError: the scene has no fitting place, or the recipe does not apply (says why).
        """
