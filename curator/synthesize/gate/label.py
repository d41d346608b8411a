"""The check `label`: an independent judge takes the object for one of its class, not of another.

The judge is an embedder; a logistic regression over all classes learns on its vectors of the user's own
labelled objects and their mirror images. Whether the object is there, whole and alone, `whole` asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curator.synthesize.gate import linear
from curator.synthesize.gate.base import Evidence, Learnt, Plain, labelled

LEAST_OBJECTS = 8
"""Untouched objects of a class (mirror images count) without which nothing is learnt of it."""


class LabelCheck(Plain):
    """Refuses a label of which the judge thinks less than of untouched ones."""

    name = "label"
    of_labels = True
    at_home = True

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """See `Check`; the spoilt looks are not needed."""
        names, vectors = labelled(real)
        known = {name for name in set(names) if names.count(name) >= LEAST_OBJECTS}
        if len(known) < 2:
            return Learnt()
        own = [i for i, name in enumerate(names) if name in known]
        fitted = linear.fit(vectors[own], [names[i] for i in own], seed=seed)
        return Learnt({**fitted, "classes": np.array([str(c) for c in fitted["classes"]], "U")})

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Log-odds of its class, of the worst of the labels made."""
        worst = self._worst(evidence, learnt)
        return float("nan") if worst is None else worst[1]

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`; names the class that the judge sees instead."""
        worst = self._worst(evidence, learnt)
        name, _, seen = worst if worst else ("", 0.0, "")
        instead = "" if seen == name else f", but rather a {seen}"
        return f"the judge sees a {name}", f"the judge does not see a {name} as in untouched ones{instead}"

    def _worst(self, evidence: Evidence, learnt: Learnt) -> tuple[str, float, str] | None:
        """Class, log-odds and the class that the judge sees, of the worst label."""
        if not learnt.arrays:
            return None
        known = [str(name) for name in learnt.arrays["classes"]]
        weights, intercepts = learnt.arrays["weights"], learnt.arrays["intercepts"]
        found = []
        for (name, _), vector in zip(evidence.look.made, evidence.made, strict=True):
            if name in known:
                value = linear.log_odds(vector, known.index(name), weights, intercepts)
                found.append((name, value, known[int((weights @ vector + intercepts).argmax())]))
        return min(found, key=lambda one: one[1], default=None)
