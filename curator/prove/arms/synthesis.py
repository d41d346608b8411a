"""The accepted samples of the named batch."""

from __future__ import annotations

from collections.abc import Sequence

from curator.prove.arms.base import Added, ArmContext, Needs


class Synthesis:
    """The accepted samples of the named batch."""

    drawn = False

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(samples=budget)

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        return context.samples[:budget]
