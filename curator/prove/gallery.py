"""Which objects of the holdout show what an arm does: some that it fixes, breaks, and still misses.

In: the base and the trials of one arm. Out: `Shown` objects, those on which most training seeds agree,
classes by turns, so that one frequent class does not fill the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curator.prove.readings import Base, Matched

Kind = Literal["fixed", "broken", "still missed"]
KINDS: tuple[Kind, ...] = ("fixed", "broken", "still missed")


@dataclass(frozen=True, slots=True)
class Shown:
    """An object of the holdout.

    Attributes:
        index: its place among `base.objects`. seeds: trainings in which this became of it, of `trials`.
        before, after: score of the detection that finds it, -1 where none does; `after` is the median.
    """

    kind: Kind
    index: int
    seeds: int
    trials: int
    before: float
    after: float


def choose(base: Base, trials: Sequence[Matched], *, most: int) -> list[Shown]:
    """At most `most` objects of each kind, the clearest first; at the base's threshold."""
    if not trials:
        return []
    at_base = base.matched.found_at
    found = np.array([trial.found_at >= base.threshold for trial in trials])  # (S, G)
    mean = np.median([trial.found_at for trial in trials], 0)
    was, counted = at_base >= base.threshold, base.objects.counted
    share = {"fixed": found.mean(0), "broken": (~found).mean(0), "still missed": (~found).mean(0)}
    shown = []
    for kind in KINDS:
        members = np.flatnonzero(counted & (was if kind == "broken" else ~was) & (share[kind] > 0.5))
        change = np.abs(mean - at_base)[members] * (-1 if kind == "still missed" else 1)
        order = members[np.lexsort((members, -change, -share[kind][members]))]
        for index in _by_turns(order.tolist(), base.objects.classes)[:most]:
            seeds = round(float(share[kind][index]) * len(trials))
            shown.append(Shown(kind, index, seeds, len(trials), float(at_base[index]), float(mean[index])))
    return shown


def _by_turns(indices: Sequence[int], classes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    """The same, the first of every class before the second of any."""
    seen: dict[int, int] = {}
    turns = []
    for place, index in enumerate(indices):
        number = int(classes[index])
        seen[number] = seen.get(number, 0) + 1
        turns.append((seen[number], place, index))
    return [index for _, _, index in sorted(turns)]
