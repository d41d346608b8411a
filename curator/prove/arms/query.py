"""The named selection's best images."""

from __future__ import annotations

from collections.abc import Sequence

from curator.prove.arms.base import Added, ArmContext, Needs


class Query:
    """The named selection's best images."""

    drawn = False

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(hits={"": budget})

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        return context.hits[""][:budget]
