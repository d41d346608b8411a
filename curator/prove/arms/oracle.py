"""Pool images that hold what fails: what an annotator with perfect foresight would pick."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from curator.prove.arms.base import Added, ArmContext, Needs, Pool
from curator.prove.arms.random import shuffled

STREAM = 5  # keeps the draws apart from those of other arms


class Oracle:
    """Pool images that hold the conditions which fail."""

    drawn = True

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(pool=True, fails=True)

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        assert context.pool is not None
        assert context.fails is not None
        rng = np.random.default_rng([context.seed, seed, STREAM])
        chosen = _balanced(context.pool, context.fails, budget, rng)
        return [context.pool.added(i, group) for i, group in chosen]


def _balanced(
    pool: Pool, fails: Mapping[int, Sequence[str]], budget: int, rng: np.random.Generator
) -> list[tuple[int, str]]:
    """Turn by turn one image of every failing group; what is wanting is filled at random."""
    queues: dict[str, list[int]] = defaultdict(list)
    for i in shuffled(pool, fails, rng):
        for group in fails[i]:
            queues[group].append(i)
    chosen: dict[int, str] = {}
    while len(chosen) < budget and queues:
        for group in sorted(queues):
            while queues[group] and queues[group][0] in chosen:
                queues[group].pop(0)
            if not queues[group]:
                del queues[group]
            elif len(chosen) < budget:
                chosen[queues[group].pop(0)] = group
    for i in shuffled(pool, set(pool.images) - set(chosen), rng)[: budget - len(chosen)]:
        chosen[i] = "random"
    return list(chosen.items())
