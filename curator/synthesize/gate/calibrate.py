"""Learning and bounds of the gate, on the user's own pictures.

In: untouched looks at labelled pictures. Out: `Gate`, whose bounds are quantiles of the same measures on
looks that were not learnt on (DESIGN.md, rule 10).

The joint checks share one wish: together they refuse at most `refused` of the untouched objects (`shares`).
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
from curator.synthesize.gate.looks import mirrored, mislabelled, scaled, spoilt
from curator.synthesize.gate.shares import joint_bounds
from curator.synthesize.gate.statistics import describe
from store.records import Verdict

_CHUNK = 32
FOLDS = 5
FAULTS = 2
"""Spoilt looks per untouched one."""
MISLABELLED = 2
"""Times that each wrong box of an object is drawn."""
SCALES = (0.7, 1.4)
"""Of a look that is scaled: the range in which recipes scale what they paste."""
SLACK = 0.9
"""Share of the untouched looks whose measure falls by no more than the slack when they are scaled."""


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
        """What is shown and stored with the run: per check its bound, from how many looks, the share of them
        that it refuses, and by how much what was pasted may be worse than at home."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else round(value, 4)

        return {
            name: {
                "bound": plain(bound.value),
                "classes": {c: plain(v) for c, v in bound.classes.items()},
                "real": bound.real,
                "refused": round(bound.refused, 4),
                "slack": plain(bound.slack),
            }
            for name, bound in self.bounds.items()
        }

    def to_bytes(self) -> bytes:
        """An .npz file without pickles."""
        arrays: dict[str, Any] = {
            f"{name}/{key}": values for name, one in self.learnt.items() for key, values in one.arrays.items()
        }
        bounds = {
            n: {
                "value": b.value,
                "classes": dict(b.classes),
                "real": b.real,
                "refused": b.refused,
                "slack": b.slack,
            }
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
    numbers = [i for i, look in enumerate(looks) if look.home is not None]
    known = evidence_of([look.home for look in looks if look.home is not None], judge) if numbers else []
    homes = dict(zip(numbers, known, strict=True))
    split = np.split(made, np.cumsum(counts)[:-1]) if looks else []
    return [
        Evidence(
            look=look,
            figures=describe(look.image, look.mask),
            part=parts[i],
            made=split[i],
            start=begun.get(i),
            home=homes.get(i),
        )
        for i, look in enumerate(looks)
    ]


@dataclass(frozen=True, slots=True)
class Lesson:
    """An untouched look, and what is learnt by it: faulty versions, wrong boxes, its mirror image, and the
    mirror image at another size."""

    real: Evidence
    faulty: tuple[Evidence, ...]
    wrong: tuple[Evidence, ...]
    mirrored: tuple[Evidence, ...]
    scaled: tuple[Evidence, ...] = ()


def lessons(looks: Sequence[Look], judge: Judge, seed: int) -> list[Lesson]:
    """Make and measure the faults of looks; the faulty pictures themselves are not kept."""
    rng = np.random.default_rng([seed, 7])
    found: list[Lesson] = []
    for start in range(0, len(looks), _CHUNK):
        chunk = looks[start : start + _CHUNK]
        faulty = [[spoilt(look, looks, rng) for _ in range(FAULTS)] for look in chunk]
        wrong = [
            [one for _ in range(MISLABELLED) for one in mislabelled(look, rng)] if look.made else []
            for look in chunk
        ]
        turned = [[mirrored(look)] if look.made else [] for look in chunk]
        zoomed = [[scaled(mirrored(look), float(rng.uniform(*SCALES)))] for look in chunk]
        parts = [
            _regrouped(measure([one for own in group for one in own], judge), group)
            for measure, group in (
                (evidence_of, faulty),
                (labels_of, wrong),
                (labels_of, turned),
                (evidence_of, zoomed),
            )
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
        refused: share of untouched objects that the joint checks may refuse, in (0, 1).
    """
    flat = [look for looks in mined for look in looks]
    fold = np.array([i % FOLDS for i, looks in enumerate(mined) for _ in looks], int)
    taught = lessons([*training, *flat], judge, seed)
    return settled(taught[: len(training)], taught[len(training) :], fold, refused=refused, seed=seed)


def settled(
    always: Sequence[Lesson], own: Sequence[Lesson], fold: Array, *, refused: float, seed: int
) -> Gate:
    """A gate from lessons.

    Args:
        always: that are learnt on alone. own: that bounds are read off too. fold: the fold of each of these.
    """
    held = [lesson.real for lesson in own]
    checks = checks_alone()
    learnt = {check.name: _learnt(check, [*always, *own], seed) for check in checks}
    joint = [check for check in checks if check.joint]
    goodness = np.full((len(joint), len(own)), np.nan)
    moved = np.full((len(joint), len(own)), np.nan)
    for number in range(FOLDS):
        inside = np.flatnonzero(fold == number)
        rest = [*always, *(lesson for lesson, k in zip(own, fold, strict=True) if k != number)]
        for row, check in enumerate(joint):
            sign, known = (1 if check.least else -1), _learnt(check, rest, seed)
            for i in inside:
                goodness[row, i] = sign * check.value(held[i], known)
                for other in own[int(i)].scaled if check.at_home else ():
                    moved[row, i] = sign * check.value(other, known)
    bounds = {c.name: c.bound(held, learnt[c.name]) for c in checks if not c.joint}
    bounds |= joint_bounds(joint, goodness, [e.look.category for e in held], refused)
    for row, check in enumerate(joint):
        worse = (goodness - moved)[row]
        if not np.isnan(worse).all():
            slack = max(float(np.nanquantile(worse, SLACK)), 0.0)
            bounds[check.name] = replace(bounds[check.name], slack=slack)
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
