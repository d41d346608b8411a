"""Checks that ask the diagnosed detector.

detector   it finds the labelled objects as well as it finds untouched ones (which may be hardly at all: where
           the detector misses objects of a class, this check says little, and the judge of `label` decides)
extra      it finds nothing in the painted part that has no label
missed     it misses an object that was painted or changed, as it missed the exemplar: where it finds all of
           them, what made it fail is not in the picture, and the sample teaches it little
deceives   it does mistake a look-alike, so that a sample without a label there teaches it something
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from curator.boxes import area, intersection, iou
from curator.synthesize.gate.base import Bound, Evidence, Found, Learnt, Plain
from store.records import BoxTuple

OVERLAP = 0.5
CHANCE = 0.95
"""A look-alike must be mistaken more than this share of places taken at random."""
_WEIGHT = 0.1
"""Samples show what the detector misses, so that it is a poor judge of them."""
_FLOOR = 0.02  # scores below are not read


class DetectorCheck(Plain):
    """Refuses objects that the detector finds less than untouched ones.

    Its weight is small: samples show what the detector misses.
    """

    name = "detector"
    weight = _WEIGHT

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """The best score at the label, of the label with the lowest."""
        look = evidence.look
        if look.kind == "FP" or not look.made:
            return float("nan")
        return min(best_score(look.found, name, box, OVERLAP) for name, box in look.made)

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        name = evidence.look.category
        return (
            f"the detector finds the {name} as untouched ones",
            f"the detector finds no trace of the {name}",
        )


class ExtraCheck(Plain):
    """Refuses a painting in which the detector finds an object without a label."""

    name = "extra"
    least = False
    weight = _WEIGHT

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """The best score of what lies in the part and matches no label; 0 where there is nothing."""
        look = evidence.look
        if look.kind == "FP":
            return float("nan")
        return extra(look.found, look.part, [box for _, box in (*look.made, *look.kept)])

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        return "no object without a label", "the detector finds an object without a label in the painted part"


class MissedCheck(Plain):
    """Refuses a sample in which the failure is gone: the detector finds every object that was touched."""

    name = "missed"
    joint = False
    least = False

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """The best score at a label, of the label with the lowest, less the score from which on it counts."""
        look = evidence.look
        if look.kind == "FP" or not look.touched:
            return float("nan")
        return min(best_score(look.found, name, box, OVERLAP) for name, box in look.touched) - look.threshold

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """Just below the threshold: nothing to be read off."""
        return Bound(-1e-9, {}, 0, 0.0)

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        name = evidence.look.category
        return (
            f"the detector misses the {name} here too",
            f"the detector finds the {name}: the failure is gone",
        )


class DeceivesCheck(Plain):
    """Refuses a look-alike that deceives nobody."""

    name = "deceives"
    joint = False

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """The best score of the class at the part."""
        look = evidence.look
        return best_score(look.found, look.category, look.part, 0.3) if look.kind == "FP" else float("nan")

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """What a place taken at random reaches in 1 - `CHANCE` of cases."""
        places = [e.look for e in real if not e.look.made]
        scores: dict[str, list[float]] = defaultdict(list)
        names = sorted({name for look in places for name, _, _ in look.found})
        for look in places:
            for name in names:
                scores[name].append(best_score(look.found, name, look.part, 0.3))
        per_class = {name: max(float(np.quantile(own, CHANCE)), _FLOOR) for name, own in scores.items()}
        return Bound(_FLOOR, per_class, len(places), 0.0)

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        name = evidence.look.category
        return (
            f"the detector mistakes the painted thing for {name}",
            f"the detector is not deceived by the painted thing, as {name}",
        )


def best_score(found: Found, category: str, box: BoxTuple, overlap: float) -> float:
    """Of the detections of a class that overlap a box, the best score; 0 where there is none."""
    return max(
        (
            score
            for name, score, other in found
            if name == category and float(iou([other], [box])[0, 0]) >= overlap
        ),
        default=0.0,
    )


def extra(found: Found, part: BoxTuple, labels: Sequence[BoxTuple]) -> float:
    """Of the detections that lie in `part` for the most and overlap no label by 0.3, the best score."""
    best = 0.0
    for _, score, box in found:
        if score <= best or float(intersection([box], [part])[0, 0]) < 0.5 * float(area(box)):
            continue
        if not labels or float(iou([box], np.asarray(labels)).max()) < 0.3:
            best = score
    return best
