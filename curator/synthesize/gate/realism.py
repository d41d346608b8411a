"""The check `realism`: the painted part looks like a part of a photograph.

A critic learns on the fly, on the user's own pictures, to tell untouched parts from the same parts with
faults made on purpose (`spoil`): smears, blur, strange colours, hard borders, noise and the like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curator.synthesize.gate import additive
from curator.synthesize.gate.base import Evidence, Learnt, Plain
from curator.synthesize.gate.statistics import NAMES

LEAST_LOOKS = 20
"""Untouched looks without which nothing is learnt."""


class RealismCheck(Plain):
    """Refuses a painting that a critic tells from a photograph."""

    name = "realism"
    least = False
    at_home = True

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """See `Check`."""
        if len(real) < LEAST_LOOKS or len(spoilt) < LEAST_LOOKS:
            return Learnt()
        return Learnt(
            additive.fit(np.stack([e.figures for e in real]), np.stack([e.figures for e in spoilt]))
        )

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Log-odds of being spoilt."""
        if not learnt.arrays or not evidence.figures.size or bool(evidence.look.mask.all()):
            return float("nan")  # a critic of parts says nothing of whole pictures
        return float(additive.score(evidence.figures[None], learnt.arrays)[0])

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`; names the two figures that speak most against the painting."""
        shares = additive.shares(evidence.figures[None], learnt.arrays)[0]
        worst = ", ".join(NAMES[i] for i in np.argsort(-shares)[:2] if shares[i] > 0)
        return "looks like a photographed part", f"does not look like a photographed part ({worst})"
