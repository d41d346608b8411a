"""The seam of the gate, which decides which samples may enter the training set.

In: looks at painted pictures, and at untouched ones of the user. Out: `Verdict`s, each with its measure,
bound and reason, which are stored with the sample; it is accepted when every check passed. A check measures
one thing and knows no bound: the bound is read off what the same measure gives on the user's own untouched
pictures (`calibrate`). The gate is a list of checks, found by name in `curator.registry.CHECKS`; one a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from curator.inpaint.masks import Mask, bounds
from curator.registry import CHECKS
from store.records import BoxTuple, Verdict

ALONE = ("changed", "realism", "label", "whole", "detector", "extra", "missed", "deceives", "kept")
"""Checks of a sample by itself, in this order; the workers' part of the gate."""
AMONG = ("near-duplicate",)
"""Checks of a sample among those accepted before it, in the order of plans; the driver's part."""

Array = NDArray[np.float64]
Vectors = NDArray[np.floating[Any]]
"""A judge's; float32, since thousands are learnt on."""
Found = list[tuple[str, float, BoxTuple]]
"""Detections of one image as (class name, score, box), low scores included."""
Label = tuple[str, BoxTuple]
"""An object as (class name, box)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A picture with a part that is judged: painted, or untouched.

    Attributes:
        image: (3, H, W) RGB in [0, 1].
        mask: (H, W) bool, the part; at least one pixel.
        made: objects that the part shows.
        kept: the other labelled objects of the picture.
        found: what the detector finds in the picture.
        kind: "FN" where the part shows an object or hides one, "FP" where it shows a look-alike.
        category: class that the failure concerns; "" for untouched background.
        before: (3, H, W), the picture before it was painted; None for an untouched one.
        start: (3, H, W), the composition that a generator started from; None where none repainted one.
        touched: labels of all objects that were painted or changed, those in part too.
        threshold: score from which on the detector's answer counts; NaN for an untouched look.
        home: the untouched picture that what was pasted comes from, as a look at it there; None where
            nothing was pasted.
    """

    image: Tensor
    mask: Mask
    made: tuple[Label, ...] = ()
    kept: tuple[Label, ...] = ()
    found: Found = field(default_factory=list)
    kind: str = "FN"
    category: str = ""
    before: Tensor | None = None
    start: Tensor | None = None
    home: Look | None = None
    touched: tuple[Label, ...] = ()
    threshold: float = float("nan")

    @property
    def part(self) -> BoxTuple:
        """Bounding box of the mask."""
        x1, y1, x2, y2 = bounds(self.mask)
        return float(x1), float(y1), float(x2), float(y2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A look and what was measured of it once, for all checks.

    Attributes:
        figures: of `statistics.describe`.
        part: (D,) the judge's vector of the part.
        made: (M, D) of the objects that it shows.
        start: (D,) of the composition's part, where there is one.
        home: of the look at home, where there is one.
    """

    look: Look
    figures: Array
    part: Vectors
    made: Vectors
    start: Vectors | None = None
    home: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a check has learnt on the user's pictures; arrays and nothing else, so that it can be stored."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bound:
    """A check's bound.

    Attributes:
        value: for all classes; NaN where the check cannot judge (too few untouched pictures).
        classes: for those with enough untouched objects of their own.
        real: number of untouched looks that it was read off.
        refused: share of them that it refuses.
        slack: by how much the measure of an untouched look gets worse at most, in nine of ten cases, when it
            is mirrored and scaled. What was pasted may be worse than at home by so much; NaN where the check
            does not ask how it was there.
    """

    value: float
    classes: Mapping[str, float] = field(default_factory=dict)
    real: int = 0
    refused: float = 0.0
    slack: float = float("nan")

    def of(self, category: str) -> float:
        """The bound for a class."""
        return self.classes.get(category, self.value)


class Check(Protocol):
    """Judges a sample by itself.

    Attributes:
        least: True where values below the bound are refused, False where those above are.
        joint: True where the bound is a quantile of untouched looks, shared out among the joint checks so
            that all of them together refuse no more than the wanted share; False where `bound` gives it.
        weight: its part of that share relative to others', above 0.
        of_labels: True where mirror images and wrong labels of the looks are learnt on too.
        at_home: True where what was pasted need be no better than where it comes from (`judged`).
    """

    name: str
    least: bool
    joint: bool
    weight: float
    of_labels: bool
    at_home: bool

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """Learn from untouched looks and from the same ones with faults made on purpose."""

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """The measure; NaN where the check has nothing to say of such a look."""

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """The bound of a check that is not joint, from untouched looks that it did not learn from."""

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """The reason to accept, and the reason to refuse."""


class CheckAmong(Protocol):
    """Judges a sample by what was accepted before."""

    name: str

    def signature(self, sample: Tensor, painted: BoxTuple) -> Any:
        """What is kept of a sample (3, H, W), painted in this box, so that others can be compared with it."""

    def bound(self, real: Sequence[Evidence]) -> Bound:
        """The bound, from untouched looks."""

    def judge(self, signature: Any, accepted: Sequence[Any], bound: Bound) -> Verdict:
        """Judge a sample by its signature and those of the accepted ones."""


class Plain:
    """What most checks share: nothing to learn, a bound among the joint ones."""

    least = True
    joint = True
    weight = 1.0
    of_labels = False
    at_home = False

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """See `Check`."""
        return Learnt()

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """See `Check`."""
        raise NotImplementedError


def checks_alone() -> tuple[Check, ...]:
    """The checks of `ALONE`, then those of plug-ins that judge a sample by itself, by name."""
    return tuple(CHECKS.load(name)() for name in (*ALONE, *(n for n in added_checks() if not _among(n))))


def checks_among() -> tuple[CheckAmong, ...]:
    """The checks of `AMONG`, then those of plug-ins that judge a sample among others, by name."""
    return tuple(CHECKS.load(name)() for name in (*AMONG, *filter(_among, added_checks())))


def added_checks() -> dict[str, int]:
    """Checks of plug-ins by name, each with its `version` (1, where it says none)."""
    names = [name for name in CHECKS.names() if name not in (*ALONE, *AMONG)]
    return {name: int(getattr(CHECKS.load(name), "version", 1)) for name in names}


def _among(name: str) -> bool:
    return hasattr(CHECKS.load(name), "judge")


def judged(check: Check, evidence: Evidence, learnt: Learnt, bound: Bound) -> Verdict:
    """A check's verdict; accepted where it has nothing to say or no bound.

    The bound refuses a share of the user's own untouched objects, the hardest ones: those that are dark,
    hidden or unlike others. These are what the detector misses and what is pasted, so that a bound alone
    would refuse just the samples that are needed. Of a thing that a camera took and a person labelled, a
    check can only ask that it be no worse than where it was: of what the bound would refuse at home, the
    bound is the measure there, less the slack.
    """
    value, limit = check.value(evidence, learnt), bound.of(evidence.look.category)
    if evidence.home is not None and not math.isnan(bound.slack):
        there = check.value(evidence.home, learnt)
        if not math.isnan(there) and (there < limit if check.least else there > limit):
            limit = there - bound.slack if check.least else there + bound.slack
    if math.isnan(value) or math.isnan(limit):
        why = "nothing to judge here" if math.isnan(value) else "too few untouched pictures for a bound"
        return verdict(check.name, True, 0.0, 0.0, why, "")
    good, bad = check.words(evidence, learnt)
    accepted = value >= limit if check.least else value <= limit
    return verdict(check.name, accepted, value, limit, good, bad)


def verdict(check: str, accepted: bool, value: float, bound: float, good: str, bad: str) -> Verdict:
    """A verdict with the reason that fits it."""
    return Verdict(
        check=check,
        accepted=accepted,
        value=round(value, 4),
        bound=round(bound, 4),
        reason=good if accepted else bad,
    )


def labelled(looks: Sequence[Evidence]) -> tuple[list[str], Vectors]:
    """Class names and vectors (N, D) of all objects made."""
    names = [name for e in looks for name, _ in e.look.made]
    width = next((e.part.shape[0] for e in looks), 0)
    vectors = [e.made for e in looks if len(e.made)]
    return names, np.concatenate(vectors) if vectors else np.zeros((0, width))
