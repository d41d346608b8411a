"""`selection:NAME`: the images of any stored selection; and arms that ask a query method of their own."""

from __future__ import annotations

from collections.abc import Sequence

from curator.prove.arms.base import Added, ArmContext, Needs


class SelectionArm:
    """The best images of a selection.

    Args:
        name: of the selection.
    """

    drawn = False

    def __init__(self, name: str) -> None:
        self.name = name

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs(hits={self.name: budget})

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        return context.hits[self.name][:budget]
