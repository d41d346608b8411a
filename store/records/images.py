"""Images and the part that they play in data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from store.appearance import Appearance
from store.records.annotations import NewAnnotation

Role = Literal["train", "mine", "pool", "holdout"]
ROLES: tuple[Role, ...] = ("train", "mine", "pool", "holdout")
Reader = Literal[
    "detect",
    "diagnose",
    "explain",
    "index",
    "query",
    "synthesize",
    "export",
    "train",
    "report",
    "verify",
    "oracle",
]
"""The stage that asks for pixels or annotations: the Store decides by it what may be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image that the workspace knows; its pixels stay where `uri` says.

    Attributes:
        width, height: pixels after the EXIF orientation is applied.
        phash: 64-bit perceptual hash as 16 hex digits.
    """

    id: int
    uri: str
    sha256: str
    phash: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The part an image plays in a data set."""

    image_id: int
    dataset: str
    role: Role
    split: str | None = None
    group_key: str | None = None
    captured_at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image as an importer hands it over; `annotations` None means unlabelled, () means no objects.

    Attributes:
        listed: names of the classes that the labels speak of; None where the data set does not list them.
    """

    uri: str
    sha256: str
    phash: str
    width: int
    height: int
    dataset: str
    role: Role
    split: str | None = None
    group_key: str | None = None
    captured_at: datetime | None = None
    source: str | None = None
    annotations: tuple[NewAnnotation, ...] | None = None
    status: Literal["human", "pre-annotation"] = "human"
    tags: Mapping[str, str] = field(default_factory=dict)
    appearance: Appearance | None = None
    listed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedImage:
    """What became of one `NewImage`.

    Attributes:
        created: False when the workspace knew the bytes (sha256) already.
        same_as: (image id, role) of memberships with equal or nearly equal pixels, in any role; a pool image
            paired with a holdout image here is a leak.
        annotation_changed: a new annotation version was stored.
    """

    image_id: int
    created: bool
    same_as: tuple[tuple[int, Role], ...] = ()
    annotation_changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Why an image must not be added to a training set.

    Attributes:
        reason: "equal": it is a protected image itself. "group": it shares a group key, such as a video, with
            a holdout image. "nearly equal": it looks like a protected image (docs/decisions/0008).
        role: of the protected image: "holdout" or "mine". image_id: the protected image.
    """

    reason: Literal["equal", "group", "nearly equal"]
    role: Role
    image_id: int

    def __str__(self) -> str:
        """For people, such as "nearly equals a holdout image"."""
        image = "a holdout image" if self.role == "holdout" else "a mined image"
        verbs = {"equal": "equals", "group": "shares its group key with", "nearly equal": "nearly equals"}
        return f"{verbs[self.reason]} {image}"
