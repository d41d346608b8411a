"""The check `label`: an independent judge agrees that the labelled object is there, whole and alone.

The judge is an embedder. On the user's own labelled objects a linear classifier per class learns to tell an
object of the class in its box from: objects of other classes, boxes beside the object or of another size,
objects of which half is missing, two objects in one box, background, and objects spoilt beyond recognition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from curator.synthesize.gate.base import Array, Evidence, Learnt, Plain

LEAST_OBJECTS = 8
"""Untouched objects of a class without which nothing is learnt of it."""
DIMENSIONS = 128
_PENALTY = 0.05  # inverse strength (scikit-learn's C), on whitened vectors


class LabelCheck(Plain):
    """Refuses a label that the judge does not see."""

    name = "label"
    of_labels = True

    def learn(self, real: Sequence[Evidence], spoilt: Sequence[Evidence], *, seed: int) -> Learnt:
        """See `Check`. Of the spoilt looks those count whose fault concerns the label: their `made` is what
        they are wrongly labelled as."""
        names, vectors = labelled(real)
        wrong_names, wrong = labelled(spoilt)
        bare = np.stack([e.part for e in real if not e.look.made] or [np.zeros(0)])
        known = [n for n in sorted(set(names)) if names.count(n) >= LEAST_OBJECTS]
        if not known:
            return Learnt()
        mean = vectors.mean(0)
        _, spread, axes = np.linalg.svd(vectors - mean, full_matrices=False)
        kept = min(DIMENSIONS, int((spread > 1e-6 * spread[0]).sum()))
        axes = axes[:kept] / (spread[:kept, None] / np.sqrt(len(vectors)) + 1e-6)

        def whitened(values: Array) -> Array:
            return np.asarray((values - mean) @ axes.T)

        weights = []
        for name in known:
            own = np.array([n == name for n in names])
            against = [vectors[~own], wrong[np.array([n == name for n in wrong_names], bool)]]
            if bare.shape[1]:
                against.append(bare)
            x = whitened(np.concatenate([vectors[own], *against]))
            y = np.r_[np.ones(int(own.sum())), np.zeros(len(x) - int(own.sum()))]
            if y.all():
                weights.append(np.zeros(kept + 1))
                continue
            model = LogisticRegression(C=_PENALTY, max_iter=3000, class_weight="balanced").fit(x, y)
            weights.append(np.r_[model.coef_[0], model.intercept_])
        return Learnt(
            {"mean": mean, "axes": axes, "weights": np.stack(weights), "classes": np.array(known, "U")}
        )

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Log-odds that the box holds its class, of the worst of the labels made."""
        worst = self._worst(evidence, learnt)
        return float("nan") if worst is None else worst[1]

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        worst = self._worst(evidence, learnt)
        name = worst[0] if worst else ""
        return f"the judge sees a whole {name}", f"the judge does not see one whole {name} in the label's box"

    def _worst(self, evidence: Evidence, learnt: Learnt) -> tuple[str, float] | None:
        if not learnt.arrays:
            return None
        known = [str(name) for name in learnt.arrays["classes"]]
        found = []
        for (name, _), vector in zip(evidence.look.made, evidence.made, strict=True):
            if name in known:
                weights = learnt.arrays["weights"][known.index(name)]
                z = (vector - learnt.arrays["mean"]) @ learnt.arrays["axes"].T
                found.append((name, float(z @ weights[:-1] + weights[-1])))
        return min(found, key=lambda pair: pair[1], default=None)


def labelled(looks: Sequence[Evidence]) -> tuple[list[str], Array]:
    """Class names and vectors (N, D) of all objects made."""
    names = [name for e in looks for name, _ in e.look.made]
    width = next((e.part.shape[0] for e in looks), 0)
    vectors = [e.made for e in looks if len(e.made)]
    return names, np.concatenate(vectors) if vectors else np.zeros((0, width))
