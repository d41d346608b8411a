"""Half of query, half of synthesis; an odd image more of query."""

from __future__ import annotations

from collections.abc import Sequence

from curator.prove.arms.base import Added, ArmContext, Needs


class Both:
    """Half of query, half of synthesis; an odd image more of query."""

    drawn = False

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(hits={"": budget - budget // 2}, samples=budget // 2)

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        return (*context.hits[""][: budget - budget // 2], *context.samples[: budget // 2])
