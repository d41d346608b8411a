"""Suspect labels as people read them: where, what kind of error, how likely, why; what people say of them.

In: a judged image with its outcomes; verdicts. Out: `Suspect`s; the failures that a query leaves out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from curator.diagnose.suspect_evidence import MATCH, Looked
from curator.diagnose.suspects import MISSING, OF_LABELS, JudgedImage
from store.records import BoxTuple, Outcome

LINKED: Mapping[str, tuple[str, ...]] = {  # causes of false positives that a wrong label brings about
    "wrong class": ("classification", "both"),
    "shifted box": ("localisation", "both"),
}
SAME_BOX = 0.99  # IoU of a label with itself, however its numbers were stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A label that more likely is wrong than the detector, or a place where one is missing.

    Attributes:
        id: of the outcome at the place: the label's own (found or missed), or the false positive.
        kind: one of `MISTAKES`. category: the label's class; of a missing label the detection's.
        instead: the class that the detector sees there, "" where that is not the point.
        probability: in [0, 1]. why: one sentence.
        failures: ids of the outcomes that would be no failures, were the label mended.
    """

    id: int
    image_id: int
    box: BoxTuple
    kind: str
    category: str
    instead: str
    probability: float
    why: str
    failures: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a person says of a suspect; kept by image and box.

    Attributes:
        wrong: the label is wrong (its failures are never mined), or right (they are).
        failures: kind, class and box of the failures that it brought about when that was said; another
            detector's at these places are concerned too.
        probability: as judged when that was said, unscaled; None where an older version kept none.
        basis: what that probability rested on; it says nothing where probabilities rest on something else.
    """

    image_id: int
    box: BoxTuple
    kind: str
    category: str
    wrong: bool
    failures: tuple[tuple[str, str, BoxTuple], ...] = ()
    probability: float | None = None
    basis: str = ""

    def about(self, other: Suspect | Verdict) -> bool:
        """True where both are of the same label, or of the same place without one."""
        missing = self.kind == MISSING
        if (self.image_id, self.category, missing) != (other.image_id, other.category, other.kind == MISSING):
            return False
        return _overlap(self.box, other.box) >= (MATCH if missing else SAME_BOX)

    def concerns(self, outcome: Outcome) -> bool:
        """True for a failure that it decides about."""
        if outcome.kind == "TP" or outcome.image_id != self.image_id:
            return False
        own = [] if self.kind == MISSING else [("FN", self.category, self.box)]
        return any(
            (kind, category) == (outcome.kind, outcome.category)
            and _overlap(box, outcome.box) >= (SAME_BOX if kind == "FN" else MATCH)
            for kind, category, box in [*self.failures, *own]
        )


def suspects_of(
    image: Looked,
    judged: JudgedImage,
    outcomes: Sequence[Outcome],
    places: Sequence[int],
    classes: Sequence[str],
    *,
    minimum: float,
    sure: float = 0.0,
) -> list[Suspect]:
    """Suspects of one image.

    Args:
        outcomes: of this image. classes: of the data set (K,).
        places: of each detection in `image` its place in the stored detections.
        sure: probability from which a wrong label explains the false positives on it, so that they show no
            missing one.
    """
    truth, own = image.result.truth, judged.evidence
    at_label = {o.annotation_id: o for o in outcomes if o.kind != "FP" and o.annotation_id is not None}
    found: list[Suspect] = []
    told: set[int] = set()
    for row, g in enumerate(own.label_index.tolist()):
        outcome = at_label.get(int(truth.ids[g]))
        probability = min(float(judged.labels[row].sum()), 1.0)  # rounding
        if outcome is None or outcome.id is None or probability < minimum:
            continue
        kind = OF_LABELS[int(judged.labels[row].argmax())]
        seen = own.instead[row]
        instead = classes[seen] if kind == "wrong class" and seen >= 0 else ""
        failures = _failures(outcome, kind, instead, outcomes)
        told.update(failures if probability >= sure else ())
        found.append(
            Suspect(
                id=outcome.id,
                image_id=outcome.image_id,
                box=_box(truth.boxes[g]),
                kind=kind,
                category=outcome.category,
                instead=instead,
                probability=probability,
                why=_why_label(image, judged, row, kind, classes),
                failures=failures,
            )
        )
    row_of = {places[i]: row for row, i in enumerate(own.place_index.tolist())}
    for outcome in outcomes:
        place = row_of.get(-1 if outcome.detection_index is None else outcome.detection_index)
        if outcome.kind != "FP" or outcome.id is None or outcome.id in told or place is None:
            continue
        if judged.places[place] >= minimum:
            found.append(
                Suspect(
                    id=outcome.id,
                    image_id=outcome.image_id,
                    box=outcome.box,
                    kind=MISSING,
                    category=outcome.category,
                    instead="",
                    probability=float(judged.places[place]),
                    why=_why_place(judged, place, outcome),
                    failures=(outcome.id,),
                )
            )
    return found


def _failures(own: Outcome, kind: str, instead: str, outcomes: Sequence[Outcome]) -> tuple[int, ...]:
    """Ids of the failures that a wrong label brings about: its own miss, and false positives on it."""
    ids = [own.id] if own.kind == "FN" else []
    ids += [
        o.id
        for o in outcomes
        if o.kind == "FP"
        and o.annotation_id == own.annotation_id
        and o.cause in LINKED.get(kind, ())
        and (kind != "wrong class" or not instead or o.category == instead)
        and (kind != "shifted box" or o.category == own.category)
    ]
    return tuple(i for i in ids if i is not None)


def left_out(
    outcomes: Sequence[Outcome], listed: Collection[int], verdicts: Sequence[Verdict]
) -> tuple[set[int], set[int]]:
    """The failures that are not mined.

    Args:
        listed: ids of failures of suspects that count. verdicts: newest first: the first word on a failure
            counts.
    Returns:
        ids that a person confirmed, and ids that are listed and that no person cleared.
    """
    judged = {verdict.image_id for verdict in verdicts}
    failures = [o for o in outcomes if o.kind != "TP" and o.id is not None]
    said: dict[bool, set[int]] = {True: set(), False: set()}
    for outcome in failures:
        for verdict in verdicts if outcome.image_id in judged else ():
            if verdict.concerns(outcome):
                said[verdict.wrong].add(outcome.id or 0)
                break
    suspected = {o.id or 0 for o in failures} & set(listed)
    return said[True], suspected - said[False] - said[True]


def standing(
    verdicts: Sequence[Verdict], labels: Mapping[int, Sequence[tuple[str, BoxTuple]]]
) -> list[Verdict]:
    """Those that the labels have not overtaken: a wrong label that was mended since is no longer wrong.

    Args:
        labels: image id -> class and box of every label, as they are now.
    """
    return [verdict for verdict in verdicts if not verdict.wrong or not _mended(verdict, labels)]


def _mended(verdict: Verdict, labels: Mapping[int, Sequence[tuple[str, BoxTuple]]]) -> bool:
    own = [box for name, box in labels.get(verdict.image_id, ()) if name == verdict.category]
    there = max((_overlap(verdict.box, box) for box in own), default=0.0)
    return there >= MATCH if verdict.kind == MISSING else there < SAME_BOX


def _why_label(image: Looked, judged: JudgedImage, row: int, kind: str, classes: Sequence[str]) -> str:
    r, own = image.result, judged.evidence
    g = int(own.label_index[row])
    name, box = classes[int(r.truth.classes[g])], r.truth.boxes[g][None]
    overlaps = iou(r.boxes, box)[:, 0]
    near = int(own.nearest[row])
    if kind == "wrong class" and own.instead[row] >= 0:
        seen = np.flatnonzero((r.classes == own.instead[row]) & (overlaps >= MATCH))
        at = int(seen[np.argmax(r.scores[seen])])
        other = classes[int(r.classes[at])]
        return f"labelled {name}, seen as {other} {r.scores[at]:.2f} (IoU {overlaps[at]:.2f})"
    if kind == "shifted box" and near >= 0:
        return f"{name} {r.scores[near]:.2f} is seen beside the label, their IoU is {overlaps[near]:.2f} only"
    if kind == "duplicate box":
        others = iou(r.truth.boxes, box)[:, 0]
        others[g] = 0
        at = int(np.argmax(others))
        return f"another label, {classes[int(r.truth.classes[at])]}, overlaps this {name} by {others[at]:.2f}"
    on = np.flatnonzero((r.classes == r.truth.classes[g]) & (overlaps >= MATCH))
    best = float(r.scores[on].max(initial=0.0))
    seen_as = f"the best {name} there scores {best:.2f}" if len(on) else f"no {name} is seen there at all"
    return f"labelled {name}, but {seen_as}, unlike other {name} labels"


def _why_place(judged: JudgedImage, place: int, outcome: Outcome) -> str:
    share = 1 / (1 + np.exp(-judged.evidence.places[place, 1]))
    return (
        f"{outcome.category} {outcome.score:.2f} is seen where no such label is; {share:.0%} of its class's "
        f"successes score no higher"
    )


def _overlap(a: BoxTuple, b: BoxTuple) -> float:
    return float(iou(np.array([a]), np.array([b]))[0, 0])


def _box(box: NDArray[np.floating]) -> BoxTuple:
    x1, y1, x2, y2 = (float(v) for v in box)
    return (x1, y1, x2, y2)
