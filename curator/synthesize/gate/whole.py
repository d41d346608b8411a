"""The check `whole`: the label's box holds an object, the whole of it, and no second one.

A logistic regression learns on the judge's vectors to tell untouched labelled objects, and their mirror
images, from boxes beside them or of another size, objects of which a part is missing, two objects in one box,
objects spoilt beyond recognition, and background. All classes are learnt together: of a rare class there are
too few, and what is missing looks alike. The vectors tell where in the box something lies (`judge`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curator.synthesize.gate import linear
from curator.synthesize.gate.base import Evidence, Learnt, Plain, labelled

LEAST_OBJECTS = 16
"""Untouched objects (mirror images count) without which nothing is learnt."""


class WholeCheck(Plain):
    """Refuses a label's box that does not hold one whole object."""

    name = "whole"
    of_labels = True
    at_home = True

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """See `Check`. Of the spoilt looks those count that still have a label: it does not hold."""
        _, good = labelled(real)
        _, bad = labelled(spoilt)
        bare = [e.part for e in real if not e.look.made]
        if len(good) < LEAST_OBJECTS or len(bad) + len(bare) < LEAST_OBJECTS:
            return Learnt()
        vectors = np.concatenate([good, *([bad] if len(bad) else []), *([np.stack(bare)] if bare else [])])
        fitted = linear.fit(vectors, np.arange(len(vectors)) < len(good), seed=seed)
        return Learnt({"weights": fitted["weights"], "intercepts": fitted["intercepts"]})

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Log-odds of one whole object, of the worst of the labels made."""
        if not learnt.arrays:
            return float("nan")
        weights, intercepts = learnt.arrays["weights"], learnt.arrays["intercepts"]
        found = [linear.log_odds(vector, 1, weights, intercepts) for vector in evidence.made]
        return min(found, default=float("nan"))

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        name = evidence.look.category
        return (
            f"the judge sees one whole {name}",
            f"the judge does not see one whole {name} in the label's box",
        )
