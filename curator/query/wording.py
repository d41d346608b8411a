"""Words for what was measured: where a box lies, how large it is, what failed, why an image was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from store.records import BoxTuple

WAYS = {"FN": "missed", "FP": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What of a chosen image says why it was chosen: the box that counts most for its group.

    Attributes:
        kind, category: of the failures expected there.
        box: stored-image pixels. size: (height, width) of the image.
        seen: the detector's classes on the box, in the data set's words, with their scores, best first; ()
            for a window, on which the detector offers nothing.
        outcome_id: the failure most like it, None where nothing was compared.
        likeness: cosine to that failure, None where it does not matter.
        lead: what ranked the image, where its method does not say how many failures to expect.
        score: the method's own, None where that is the expectation.
    """

    kind: Literal["FN", "FP"]
    category: str
    box: BoxTuple
    size: tuple[int, int]
    seen: tuple[tuple[str, float], ...] = ()
    outcome_id: int | None = None
    likeness: float | None = None
    lead: str = ""
    score: float | None = None


def reason(expected: float, shown: Shown) -> str:
    """Why an image was chosen, one sentence: "2.1 missed Car expected: Truck .44 (Car .12) at the upper left,
    like failure 12"; "missed Car by similarity .81: ..." where a method gives scores alone."""
    at = place(shown.box, shown.size)
    scores = dict(reversed(shown.seen))  # of two detector classes with one name the better
    if not shown.seen:
        what = f"a window {at} where the detector offers nothing"
    else:
        name, score = shown.seen[0]
        own = scores.get(shown.category)
        beside = f" ({shown.category} {decimal(own)})" if own is not None and name != shown.category else ""
        what = f"{name} {decimal(score)}{beside} {at}"
    like = "" if shown.outcome_id is None else f", like failure {shown.outcome_id}"
    if like and shown.likeness is not None:
        like += f" (cosine {decimal(shown.likeness)})"
    lead = shown.lead or f"{expected:.1f} {failed(shown.kind, shown.category)} expected"
    return f"{lead}: {what}{like}"


def failed(kind: str, category: str) -> str:
    """ "missed Car", "false Truck", "missed objects of 3 classes" (`Asked.category` of several)."""
    way, (number, _, rest) = WAYS.get(kind, "found"), category.partition(" ")
    if number.isdigit() and rest == "classes":
        return f"{way} {'detections' if kind == 'FP' else 'objects'} of {category}"
    return f"{way} {category}"


def decimal(value: float) -> str:
    """A share as people write it: .31, 1.00, -.20."""
    return f"{value:.2f}".replace("0.", ".", 1)


def place(box: BoxTuple, size: tuple[int, int]) -> str:
    """Where a box lies in an image (height, width), by thirds: "at the upper left", "in the middle"."""
    height, width = size
    column = min(max(int(3 * (box[0] + box[2]) / 2 / max(width, 1)), 0), 2)
    row = min(max(int(3 * (box[1] + box[3]) / 2 / max(height, 1)), 0), 2)
    if (row, column) == (1, 1):
        return "in the middle"
    upright, across = ("upper", "", "lower")[row], ("left", "", "right")[column]
    if not upright:
        return f"at the {across}"
    return f"at the {upright} {across}" if across else f"at the {'top' if row == 0 else 'bottom'}"
