"""What becomes of the objects of one class, condition or cause: the arms compared over them alone.

In: the fates of trials. Out: per group `Comparison`s of the shares fixed and broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.prove.comparisons import REFERENCES, Comparison, Fates, differences_from
from curator.prove.readings import FEWEST, Base
from curator.prove.statistics import Values, arm_estimate, measure

KINDS = ("class", "condition", "cause")
OF_OBJECTS = ("fn_fixed", "broken")  # figures that are read of a group of objects


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the holdout's objects.

    Attributes:
        kind: class, condition or cause (why the base misses them). missed: by the base.
    """

    kind: str
    name: str
    missed: int
    compared: Comparison

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        arms = {
            arm: {figure: e.plain() for figure, e in of_arm.items()}
            for arm, of_arm in self.compared.arms.items()
        }
        differences = [d.plain() for d in self.compared.differences]
        return {
            "kind": self.kind,
            "name": self.name,
            "missed": self.missed,
            "arms": arms,
            "differences": differences,
        }


def compare_groups(fates: Fates, *, floor: float, fewest: int = FEWEST) -> list[Group]:
    """Every class, condition and cause of which the base misses enough.

    Args:
        floor: lowest score. fewest: missed objects that a group needs; with fewer a share says little.
    """
    base = fates.holdout.base
    missed = base.objects.counted & (base.matched.found_at < base.threshold)
    found = []
    for kind in KINDS:
        count = Counter(_names(base, kind)[missed].tolist())
        named = {name: n for name, n in count.items() if name and n >= fewest}
        if len({name for name in count if name}) < 2:
            continue  # one group is all
        found += [
            Group(kind, name, named[name], compare_group(fates, kind, name, floor=floor))
            for name in sorted(named)
        ]
    return found


def compare_group(
    fates: Fates, kind: str, name: str, *, floor: float, references: Sequence[str] = REFERENCES
) -> Comparison:
    """As `compare_arms`, of the objects of one group: fixed and broken alone.

    Thresholds are those of all classes together: what a detector finds is read at one of them.

    Args:
        kind: "class", "condition" or "cause".
    """
    values: dict[str, dict[str, dict[str, Values]]] = {}
    for arm, matched in fates.matched.items():
        bases = [_of_group(base, kind, name) for base in fates.bases[arm]]
        values[arm] = measure(bases, matched, fates.cluster, floor=floor, figures=OF_OBJECTS)
    arms = {
        arm: {figure: arm_estimate(figure, readings) for figure, readings in of_arm.items()}
        for arm, of_arm in values.items()
    }
    found = [d for reference in references for d in differences_from(reference, values, fates.seeds)]
    return Comparison(arms, tuple(found))


def _of_group(base: Base, kind: str, name: str) -> Base:
    """The base with no other objects counted."""
    own = _names(base, kind) == name
    return replace(base, objects=replace(base.objects, counted=base.objects.counted & own))


def _names(base: Base, kind: str) -> NDArray[np.str_]:
    """(G,) of every object the name of its group."""
    objects = base.objects
    if kind == "class":
        return np.array(base.categories, dtype=np.str_)[objects.classes]
    return {"condition": objects.condition, "cause": objects.cause}[kind]
