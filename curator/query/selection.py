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
    vector_id: int | None
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
    chosen: dict[str, list[Answer]] = {name: [] for name in order}
    taken: set[int] = set()
    passed = 0

    def fill(name: str, quota: int) -> None:
        nonlocal passed
        queue = queues[name]
        while len(chosen[name]) < quota and queue and len(taken) < budget:
            place = _next(queue, chosen[name], max(2 * quota, 10), strength)
            if floors is not None and queue[place].score < floors[name]:
                place = 0  # diversity does not pay for what the group would not take otherwise
                if queue[0].score < floors[name]:
                    return
            answer = queue.pop(place)
            if answer.image_id in taken:
                continue
            if duplicates([answer.image_id], sorted(taken)):
                passed += 1
                continue
            taken.add(answer.image_id)
            chosen[name].append(answer)

    for name in order:
        fill(name, share[name])
    floors = None
    while len(taken) < budget:
        heads = [name for name in order if queues[name]]
        if not heads:
            break
        name = max(heads, key=lambda name: queues[name][0].score)
        if queues[name][0].image_id in taken:
            queues[name].pop(0)
        else:
            fill(name, len(chosen[name]) + 1)
    hits = [
        Hit(
            rank=0,
            image_id=a.image_id,
            outcome_id=a.outcome_id,
            vector_id=a.vector_id,
            group=name,
            box=a.box,
            score=a.score,
        )
        for place in range(max((len(c) for c in chosen.values()), default=0))
        for name in order
        for a in chosen[name][place : place + 1]
    ]
    warnings = []
    if len(hits) < budget:
        warnings.append(f"the pool answered with {len(hits)} images where {budget} were asked for")
    if leaking:
        reasons = Counter(str(reason) for reason in leaking.values())
        why = "; ".join(f"{count}: {reason}" for reason, count in sorted(reasons.items()))
        warnings.append(f"{len(leaking)} answers refused ({why})")
    if passed:
        warnings.append(f"{passed} near-duplicates of chosen images passed over")
    return [_ranked(hit, rank) for rank, hit in enumerate(hits, start=1)], warnings


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


def _ranked(hit: Hit, rank: int) -> Hit:
    return Hit(
        rank=rank,
        image_id=hit.image_id,
        outcome_id=hit.outcome_id,
        vector_id=hit.vector_id,
        group=hit.group,
        box=hit.box,
        score=hit.score,
    )
