"""No image: what the same training does by itself."""

from __future__ import annotations

from collections.abc import Sequence

from curator.prove.arms.base import Added, ArmContext, Needs


class Nothing:
    """No image: what the same training does by itself."""

    drawn = False

    def needs(self, budget: int) -> Needs:
        """What `images` will use of the context."""
        return Needs()

    def images(self, context: ArmContext, *, budget: int, seed: int) -> Sequence[Added]:
        """At most `budget` images."""
        return ()
