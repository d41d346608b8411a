"""From ranked answers to a selection: a budget, shared over groups, spent on different images.

In: per group the pool images that answer its query, best first. Out: hits, one per image.

Every group gets a share of the budget, which it may spend on answers that reach its floor; what is left
over goes to the best answers of any group, so that a doubtful query does not spend what a sure one could.
Within a group images are taken greedily by maximal marginal relevance (Carbonell and Goldstein 1998):

    next = argmax_i  score_i / s  -  strength * max_{j chosen} cos(v_i, v_j)

where s is the spread of the scores that compete, so that near-copies of what is chosen already wait. Images
that leak from the mined or held-out images, near-duplicates of a chosen image and images that another group
took are passed over. Deterministic: ties go to the smaller image id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.records import BoxTuple, Hit

EXPONENT = 0.7

Leaks = Callable[[Sequence[int]], Mapping[int, object]]
"""Those of the image ids that must not be selected, each with the reason in words."""
Duplicates = Callable[[Sequence[int], Sequence[int]], Mapping[int, int]]
"""(image ids, among) -> for each that nearly equals one of `among`, that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A pool image as the answer to a group's query: its best box.

    Attributes:
        vector: (D,) what diversity is judged by.
        outcome_id: the failure most like it.
    """

    image_id: int
    score: float
    box: BoxTuple
    outcome_id: int | None
    vector: NDArray[np.float64]


def shares(weights: Mapping[str, float], budget: int) -> dict[str, int]:
    """Split a budget in proportion to weight^0.7, between equal shares and proportional ones; every group
    gets at least one while the budget lasts. Largest remainders are rounded up, ties by name."""
    names = sorted(weights, key=lambda name: (-weights[name], name))[:budget]
    roots = {name: max(weights[name], 0) ** EXPONENT for name in names}
    total = sum(roots.values())
    if not names:
        return {}
    exact = {
        name: (budget - len(names)) * (roots[name] / total if total else 1 / len(names)) for name in names
    }
    share = {name: 1 + int(exact[name]) for name in names}
    left = budget - sum(share.values())
    for name in sorted(names, key=lambda name: (int(exact[name]) - exact[name], name))[:left]:
        share[name] += 1
    return share


def select(
    answers: Mapping[str, Sequence[Answer]],
    weights: Mapping[str, float],
    budget: int,
    *,
    leaks: Leaks,
    duplicates: Duplicates,
    floors: Mapping[str, float] | None = None,
    strength: float = 0.3,
) -> tuple[list[Hit], list[str]]:
    """Choose hits.

    Args:
        answers: per group, best first.
        weights: per group, what its share of the budget grows with (the number of its failures).
        floors: per group, the score that an answer needs to be paid from the group's share; scores of all
            groups must be comparable where floors are given. None: every answer will do.
        strength: of diversity; 0 takes the ranking as it is.
    Returns:
        hits by falling score within rounds over the groups, and warnings for people.
    """
    every = sorted({answer.image_id for group in answers.values() for answer in group})
    leaking = leaks(every)
    queues = {name: [a for a in answers[name] if a.image_id not in leaking] for name in answers}
    share = shares({name: weights[name] for name in queues if queues[name]}, budget)
    order = sorted(share, key=lambda name: (-weights[name], name))
    spending = _Spending(queues, order, budget, duplicates, strength)
    for name in order:
        spending.fill(name, share[name], floor=None if floors is None else floors[name])
    spending.fill_up()
    hits = spending.hits()
    warnings = []
    if len(hits) < budget:
        warnings.append(f"the pool answered with {len(hits)} images where {budget} were asked for")
    if leaking:
        reasons = Counter(str(reason) for reason in leaking.values())
        why = "; ".join(f"{count}: {reason}" for reason, count in sorted(reasons.items()))
        warnings.append(f"{len(leaking)} answers refused ({why})")
    if spending.passed:
        warnings.append(f"{spending.passed} near-duplicates of chosen images passed over")
    return hits, warnings


class _Spending:
    """A budget as it is spent.

    Attributes:
        queues: per group, the answers that are left. chosen: per group, those taken.
        taken: image ids of all groups. passed: number of near-duplicates passed over.
    """

    def __init__(
        self,
        queues: dict[str, list[Answer]],
        order: Sequence[str],
        budget: int,
        duplicates: Duplicates,
        strength: float,
    ) -> None:
        self.queues = queues
        self.order = order
        self.budget = budget
        self.duplicates = duplicates
        self.strength = strength
        self.chosen: dict[str, list[Answer]] = {name: [] for name in order}
        self.taken: set[int] = set()
        self.passed = 0

    def fill(self, name: str, quota: int, *, floor: float | None = None) -> None:
        """Take answers for a group until it has `quota`, its queue is dry or no answer reaches the floor."""
        queue, chosen = self.queues[name], self.chosen[name]
        while len(chosen) < quota and queue and len(self.taken) < self.budget:
            place = _next(queue, chosen, max(2 * quota, 10), self.strength)
            if floor is not None and queue[place].score < floor:
                place = 0  # diversity does not pay for what the group would not take otherwise
                if queue[0].score < floor:
                    return
            answer = queue.pop(place)
            if answer.image_id in self.taken:
                continue
            if self.duplicates([answer.image_id], sorted(self.taken)):
                self.passed += 1
                continue
            self.taken.add(answer.image_id)
            chosen.append(answer)

    def fill_up(self) -> None:
        """Spend what is left over on the best answers of any group, whatever the floors."""
        while len(self.taken) < self.budget:
            heads = [name for name in self.order if self.queues[name]]
            if not heads:
                return
            name = max(heads, key=lambda name: self.queues[name][0].score)
            if self.queues[name][0].image_id in self.taken:
                self.queues[name].pop(0)
            else:
                self.fill(name, len(self.chosen[name]) + 1)

    def hits(self) -> list[Hit]:
        """What is taken, ranked in rounds over the groups."""
        rounds = max((len(chosen) for chosen in self.chosen.values()), default=0)
        ranked = [
            (name, answer)
            for place in range(rounds)
            for name in self.order
            for answer in self.chosen[name][place : place + 1]
        ]
        return [
            Hit(
                rank=rank,
                image_id=answer.image_id,
                outcome_id=answer.outcome_id,
                group=name,
                box=answer.box,
                score=answer.score,
            )
            for rank, (name, answer) in enumerate(ranked, start=1)
        ]


def _next(queue: Sequence[Answer], chosen: Sequence[Answer], window: int, strength: float) -> int:
    """Index in the queue of the answer to take."""
    if not chosen or strength <= 0:
        return 0
    head = queue[:window]
    score = np.array([a.score for a in head])
    spread = max(float(score.std()), 1e-12)
    taken = np.stack([a.vector for a in chosen])
    likeness = (np.stack([a.vector for a in head]) @ taken.T).max(1)
    return int(np.argmax(score / spread - strength * likeness))
