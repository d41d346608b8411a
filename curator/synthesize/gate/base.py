"""The seam of the gate, which decides which samples may enter the training set.

In: a plan, the painted image, what the detector finds in it, and what was accepted before. Out: `Verdict`s,
each with its measure, bound and reason, which are stored with the sample; it is accepted when every check
passed. The gate is a list of checks, found by name in `curator.registry.CHECKS`; one a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from curator.registry import CHECKS
from curator.synthesize.base import SamplePlan
from store.records import BoxTuple, Verdict

ALONE = ("changed", "seam", "detector")
"""Checks of a sample by itself, in this order; the workers' part of the gate."""
AMONG = ("near-duplicate",)
"""Checks of a sample among those accepted before it, in the order of plans; the driver's part."""

Found = list[tuple[str, float, BoxTuple]]
"""Detections of one image as (class name, score, box), low scores included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The gate's bounds.

    Attributes:
        changed: least mean absolute change over the hole, in [0, 1].
        seam: most that the step across the border may exceed the texture around it, in [0, 1].
        floor: score that a labelled object must reach, unless most of it was left as it was.
        visible: share of the object covered up to which it needs no score. contrast: spread of luminance that
            an object keeps under a global change to need none. likeness: mean absolute difference between
            painting and exemplar up to which a painted object needs none.
        mistaken: score that a look-alike needs.
        distance: perceptual-hash bits (of 64) up to which two painted crops are the same.
    """

    changed: float = 0.03
    seam: float = 0.12
    floor: float = 0.03
    visible: float = 0.45
    contrast: float = 0.04
    likeness: float = 0.1
    mistaken: float = 0.15
    distance: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a check may look at beside the plan and the sample.

    Attributes:
        found: what the detector finds in the sample.
        kind: "FN" or "FP", of the failure that is answered. category: its class.
    """

    found: Found
    kind: str
    category: str


class Check(Protocol):
    """Judges a sample by itself."""

    name: str

    def judge(self, plan: SamplePlan, sample: Tensor, evidence: Evidence, bounds: Bounds) -> Verdict:
        """Judge a sample (3, H, W)."""


class CheckAmong(Protocol):
    """Judges a sample by what was accepted before."""

    name: str

    def signature(self, sample: Tensor, painted: BoxTuple) -> Any:
        """What is kept of a sample (3, H, W), painted in this box, so that others can be compared with it."""

    def judge(self, signature: Any, accepted: Sequence[Any], bounds: Bounds) -> Verdict:
        """Judge a sample by its signature and those of the accepted ones."""


def checks_alone() -> tuple[Check, ...]:
    """The checks of `ALONE`."""
    return tuple(CHECKS.load(name)() for name in ALONE)


def checks_among() -> tuple[CheckAmong, ...]:
    """The checks of `AMONG`."""
    return tuple(CHECKS.load(name)() for name in AMONG)


def verdict(check: str, accepted: bool, value: float, bound: float, good: str, bad: str) -> Verdict:
    """A verdict with the reason that fits it."""
    return Verdict(
        check=check, accepted=accepted, value=round(value, 4), bound=bound, reason=good if accepted else bad
    )
