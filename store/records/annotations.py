"""Categories and labelled objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from store.records.boxes import BoxTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A class of the data sets of a workspace; names are unique in it."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnnotation:
    """A labelled object as an importer or a recipe hands it over.

    Attributes:
        category: category name.
        box: (x1, y1, x2, y2), stored-image pixels.
        polygon: flat (x, y, x, y, ...) rings, or None.
        attributes: JSON object of further facts (the built-in example keeps its planted cause there).
    """

    category: str
    box: BoxTuple
    crowd: bool = False
    difficult: bool = False
    polygon: tuple[tuple[float, ...], ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A stored labelled object. `category_id` refers to `Category`."""

    id: int
    category_id: int
    category: str
    box: BoxTuple
    crowd: bool = False
    difficult: bool = False
    polygon: tuple[tuple[float, ...], ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationSet:
    """The newest annotation version of one image.

    Attributes:
        version: counts from 1 per image.
        key: content key of the version; equal contents give equal keys.
        status: "human", or "pre-annotation" (a detector's boxes that wait for correction).
        classes: names of the classes that its labels speak of: those that the data set which brought them
            lists, and those of its own objects. None where it lists none: all that are known.
    """

    image_id: int
    version: int
    key: str
    status: Literal["human", "pre-annotation"]
    annotations: tuple[Annotation, ...]
    classes: frozenset[str] | None = None
