"""A random sample of the whole pool, another one for every training seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from curator.prove.arms.base import Added, ArmContext, Needs, Pool

STREAM = 1  # keeps the draws apart from those of other arms


class Random:
    """A random sample of the whole pool."""

    drawn = True

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(pool=True)

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        assert context.pool is not None
        rng = np.random.default_rng([context.seed, seed, STREAM])
        chosen = shuffled(context.pool, context.pool.images, rng)[:budget]
        return [context.pool.added(i, "random") for i in chosen]


def shuffled(pool: Pool, ids: Iterable[int], rng: np.random.Generator) -> list[int]:
    """Ids in random order that depends on the images alone, not on their database ids."""
    ordered = sorted(ids, key=lambda i: pool.images[i].sha256)
    return [ordered[k] for k in rng.permutation(len(ordered))]
