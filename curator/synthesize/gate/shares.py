"""How the checks share the wish: which part of the untouched objects may be refused by which.

In: measures of untouched looks by checks that have not learnt on them. Out: each check's bound.

Each look has in each check a rank (the share of looks at least as bad) over the check's weight; its worst one
is what the gate judges by. The common level is the largest at which no more than the wanted share of the
*objects* has a worst one below it: places without an object are refused by fewer checks, and would hide how
many objects are.

Weights are not chosen by what the checks gain on faults made on purpose: tried on vehicles, split 0, for the
mean over looks, boxes and classes, for its logarithm and for the worst, out of fold, all did worse than equal
parts; how gross those faults are, and how often each occurs, is not what bad samples are like.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from curator.synthesize.gate.base import Array, Bound, Check

OF_A_CLASS = 50
"""Looks of a class from which on it has a bound of its own."""


def joint_bounds(
    checks: Sequence[Check],
    goodness: Array,
    scopes: Sequence[str],
    refused: float,
) -> dict[str, Bound]:
    """The bounds of the joint checks.

    Args:
        goodness: (checks, looks) measures of untouched looks, larger is better; NaN: nothing to say.
        scopes: the looks' classes; "" without an object.
        refused: share of the objects that may be refused, in (0, 1).
    """
    if not len(scopes):
        return {check.name: Bound(float("nan")) for check in checks}
    objects = np.array([bool(name) for name in scopes])
    own = {name for name in set(scopes) if name and scopes.count(name) >= OF_A_CLASS}
    scopes = [name if name in own else "" for name in scopes]
    within = {name: np.array([s == name for s in scopes]) for name in set(scopes)}
    ranks = np.full_like(goodness, np.inf)
    for row, columns in itertools.product(range(len(checks)), within.values()):
        ranks[row, columns] = _ranks(goodness[row, columns]) / checks[row].weight
    worst = np.sort(ranks.min(0)[objects] if objects.any() else ranks.min(0))
    level = float(worst[min(int(refused * len(worst)), len(worst) - 1)])
    bounds = {}
    for row, check in enumerate(checks):
        sign, reach = 1 if check.least else -1, min(level * check.weight, 1.0)
        limits = {name: sign * _limit(goodness[row, columns], reach) for name, columns in within.items()}
        everywhere = sign * _limit(goodness[row], reach)
        with np.errstate(invalid="ignore"):
            gone = np.array([goodness[row, i] < sign * limits[s] for i, s in enumerate(scopes)])
        bounds[check.name] = Bound(
            limits.get("", everywhere),
            {name: limit for name, limit in sorted(limits.items()) if name},
            int((~np.isnan(goodness[row])).sum()),
            float((gone[objects] if objects.any() else gone).mean()),
        )
    return bounds


def _ranks(values: Array) -> Array:
    """Share of values that are at most as good, in (0, 1]; infinite where there is none."""
    known = np.sort(values[~np.isnan(values)])
    found = np.full(len(values), np.inf)
    if len(known):
        has = ~np.isnan(values)
        found[has] = np.searchsorted(known, values[has], side="right") / len(known)
    return found


def _limit(values: Array, level: float) -> float:
    """The least value whose rank is at least `level`; NaN where there is none."""
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return float("nan")
    ranks = np.searchsorted(known, known, side="right") / len(known)
    return float(known[int(np.argmax(ranks >= level))])
