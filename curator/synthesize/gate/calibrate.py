"""Learning and bounds of the gate, on the user's own pictures.

In: untouched looks at labelled pictures. Out: `Gate`, whose bounds are quantiles of the same measures on
looks that were not learnt on (DESIGN.md, rule 10).

The joint checks share one wish: together they refuse at most `refused` of the untouched looks. Each look has
in each check a rank (the share of held looks at least as bad); its worst rank is what the gate judges by. The
common rank is the largest at which no more than `refused` of the held looks have a worst rank below it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from curator.synthesize.gate.base import (
    Array,
    Bound,
    Check,
    Evidence,
    Learnt,
    Look,
    checks_alone,
    checks_among,
    judged,
)
from curator.synthesize.gate.judge import Judge
from curator.synthesize.gate.looks import mirrored, mislabelled, spoilt
from curator.synthesize.gate.statistics import describe
from store.records import Verdict

_CHUNK = 32
FOLDS = 3
FAULTS = 2
"""Spoilt looks per untouched one."""
OF_A_CLASS = 50
"""Held looks of a class from which on it has a bound of its own."""


@dataclass(frozen=True)
class Gate:
    """What the gate has learnt, and its bounds, by check."""

    learnt: Mapping[str, Learnt]
    bounds: Mapping[str, Bound]

    def judge(self, evidence: Evidence) -> tuple[Verdict, ...]:
        """Verdicts of all checks of a sample by itself."""
        return tuple(
            judged(check, evidence, self.learnt[check.name], self.bounds[check.name])
            for check in checks_alone()
        )

    def facts(self) -> dict[str, Any]:
        """What is shown and stored with the run: per check its bound, from how many looks, and the share of
        them that it refuses."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else round(value, 4)

        return {
            name: {
                "bound": plain(bound.value),
                "classes": {c: plain(v) for c, v in bound.classes.items()},
                "real": bound.real,
                "refused": round(bound.refused, 4),
            }
            for name, bound in self.bounds.items()
        }

    def to_bytes(self) -> bytes:
        """An .npz file without pickles."""
        arrays: dict[str, Any] = {
            f"{name}/{key}": values for name, one in self.learnt.items() for key, values in one.arrays.items()
        }
        bounds = {
            n: {"value": b.value, "classes": dict(b.classes), "real": b.real, "refused": b.refused}
            for n, b in self.bounds.items()
        }
        buffer = io.BytesIO()
        arrays["bounds"] = np.frombuffer(json.dumps(bounds, sort_keys=True).encode(), np.uint8)
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Gate:
        """The gate that `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            bounds = json.loads(file["bounds"].tobytes())
            learnt: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in bounds}
            for key in file.files:
                name, slash, part = key.partition("/")
                if slash:
                    learnt[name][part] = file[key]
        return cls({n: Learnt(v) for n, v in learnt.items()}, {n: Bound(**b) for n, b in bounds.items()})


def evidence_of(looks: Sequence[Look], judge: Judge) -> list[Evidence]:
    """Measure looks; the judge sees all of their crops together."""
    places = [(look.image, look.part) for look in looks]
    counts = [len(look.made) for look in looks]
    places += [(look.image, box) for look in looks for _, box in look.made]
    starts = [i for i, look in enumerate(looks) if look.start is not None]
    places += [(look.start, look.part) for look in looks if look.start is not None]
    vectors = judge.vectors(places)
    parts, made = vectors[: len(looks)], vectors[len(looks) : len(looks) + sum(counts)]
    begun = dict(zip(starts, vectors[len(looks) + sum(counts) :], strict=True))
    split = np.split(made, np.cumsum(counts)[:-1]) if looks else []
    return [
        Evidence(
            look=look,
            figures=describe(look.image, look.mask),
            part=parts[i],
            made=split[i],
            start=begun.get(i),
        )
        for i, look in enumerate(looks)
    ]


@dataclass(frozen=True, slots=True)
class Lesson:
    """An untouched look, and what is learnt by it: faulty versions, wrong labels, and its mirror image."""

    real: Evidence
    faulty: tuple[Evidence, ...]
    wrong: tuple[Evidence, ...]
    mirrored: tuple[Evidence, ...]


def lessons(looks: Sequence[Look], judge: Judge, classes: Sequence[str], seed: int) -> list[Lesson]:
    """Make and measure the faults of looks; the faulty pictures themselves are not kept."""
    rng = np.random.default_rng([seed, 7])
    found: list[Lesson] = []
    for start in range(0, len(looks), _CHUNK):
        chunk = looks[start : start + _CHUNK]
        faulty = [[spoilt(look, looks, rng) for _ in range(FAULTS)] for look in chunk]
        wrong = [mislabelled(look, classes, rng) if look.made else [] for look in chunk]
        turned = [[mirrored(look)] if look.made else [] for look in chunk]
        parts = [
            _regrouped(measure([one for own in group for one in own], judge), group)
            for measure, group in ((evidence_of, faulty), (labels_of, wrong), (labels_of, turned))
        ]
        real = evidence_of(chunk, judge)
        found += [Lesson(*one) for one in zip(real, *parts, strict=True)]
    return found


def calibrate(
    training: Sequence[Look], mined: Sequence[Sequence[Look]], judge: Judge, *, refused: float, seed: int
) -> Gate:
    """Learn and read off the bounds.

    Args:
        training: looks that are learnt on alone. mined: per image, looks that bounds are read off too: out of
            fold, by a gate that has not learnt on their image (cross-conformal prediction: Vovk, Annals of
            Mathematics and Artificial Intelligence 2015).
        refused: share of untouched looks that the joint checks may refuse, in (0, 1).
    """
    flat = [look for looks in mined for look in looks]
    fold = np.array([i % FOLDS for i, looks in enumerate(mined) for _ in looks], int)
    classes = sorted({name for look in (*training, *flat) for name, _ in look.made})
    taught = lessons([*training, *flat], judge, classes, seed)
    always, own = taught[: len(training)], taught[len(training) :]
    held = [lesson.real for lesson in own]
    checks = checks_alone()
    learnt = {check.name: _learnt(check, taught, seed) for check in checks}
    joint = [check for check in checks if check.joint]
    goodness = np.full((len(joint), len(own)), np.nan)
    for number in range(FOLDS):
        inside = np.flatnonzero(fold == number)
        rest = [*always, *(lesson for lesson, k in zip(own, fold, strict=True) if k != number)]
        for row, check in enumerate(joint):
            known = _learnt(check, rest, seed)
            for i in inside:
                goodness[row, i] = (1 if check.least else -1) * check.value(held[i], known)
    bounds = {c.name: c.bound(held, learnt[c.name]) for c in checks if not c.joint}
    bounds |= joint_bounds(joint, goodness, [e.look.category for e in held], refused)
    for among in checks_among():
        bounds[among.name] = among.bound(held)
        learnt[among.name] = Learnt()
    return Gate(learnt, bounds)


def _learnt(check: Check, taught: Sequence[Lesson], seed: int) -> Learnt:
    """What a check learns by some lessons."""
    real = [lesson.real for lesson in taught]
    faulty = [one for lesson in taught for one in lesson.faulty]
    if check.of_labels:
        real += [one for lesson in taught for one in lesson.mirrored]
        faulty += [one for lesson in taught for one in lesson.wrong]
    return check.learn(real, faulty, seed=seed)


def _regrouped(flat: Sequence[Evidence], like: Sequence[Sequence[Any]]) -> list[tuple[Evidence, ...]]:
    """A flat list in the groups of another."""
    left = iter(flat)
    return [tuple(_bare(next(left)) for _ in group) for group in like]


def _bare(evidence: Evidence) -> Evidence:
    """Without its picture, which is not needed once it is measured."""
    nothing = torch.zeros(3, 1, 1)
    look = replace(evidence.look, image=nothing, mask=np.zeros((1, 1), bool), before=None, start=None)
    return replace(evidence, look=look)


def labels_of(looks: Sequence[Look], judge: Judge) -> list[Evidence]:
    """Looks whose labels alone are measured."""
    vectors = judge.vectors([(look.image, look.made[0][1]) for look in looks])
    nothing = np.zeros(0)
    return [
        Evidence(look=look, figures=nothing, part=vector, made=vector[None])
        for look, vector in zip(looks, vectors, strict=True)
    ]


def joint_bounds(
    checks: Sequence[Check], goodness: Array, scopes: Sequence[str], refused: float
) -> dict[str, Bound]:
    """The bounds of the joint checks.

    Args:
        goodness: (checks, looks) measures of untouched looks, larger is better; NaN: nothing to say.
        scopes: the looks' classes.
    """
    if not len(scopes):
        return {check.name: Bound(float("nan")) for check in checks}
    own = {name for name in set(scopes) if scopes.count(name) >= OF_A_CLASS}
    scopes = [name if name in own else "" for name in scopes]
    ranks = np.full_like(goodness, np.inf)
    for name in set(scopes):
        columns = np.array([s == name for s in scopes])
        for row in range(len(checks)):
            ranks[row, columns] = _ranks(goodness[row, columns]) / checks[row].weight
    worst = np.sort(ranks.min(0))
    level = min(float(worst[min(int(refused * len(worst)), len(worst) - 1)]), 1.0)
    bounds = {}
    for row, check in enumerate(checks):
        sign = 1 if check.least else -1
        limits = {
            name: sign * _limit(goodness[row, np.array([s == name for s in scopes])], level * check.weight)
            for name in set(scopes)
        }
        everywhere = sign * _limit(goodness[row], level * check.weight)
        with np.errstate(invalid="ignore"):
            gone = np.mean([goodness[row, i] < sign * limits[s] for i, s in enumerate(scopes)])
        bounds[check.name] = Bound(
            limits.get("", everywhere),
            {name: limit for name, limit in sorted(limits.items()) if name},
            int((~np.isnan(goodness[row])).sum()),
            float(gone),
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
