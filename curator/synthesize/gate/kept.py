"""The check `kept`: what a generator made of a composition is still like it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from curator.synthesize.gate.base import Bound, Evidence, Learnt, Plain, Vectors

SHARE = 0.9
_PAIRS = 400


class KeptCheck(Plain):
    """Refuses a painting that lost its exemplar."""

    name = "kept"
    joint = False

    def value(self, evidence: Evidence, learnt: Learnt) -> float:
        """Cosine of the judge's vectors of the painted part and of the composition that it was made from."""
        if evidence.start is None:
            return float("nan")
        return cosine(evidence.part, evidence.start)

    def bound(self, real: Sequence[Evidence], learnt: Learnt) -> Bound:
        """What two untouched objects of one class reach in 1 - `SHARE` of pairs: a painting must be more like
        its exemplar than another object of the class mostly is."""
        by_class: dict[str, list[Vectors]] = defaultdict(list)
        for e in real:
            for (name, _), vector in zip(e.look.made, e.made, strict=True):
                by_class[name].append(vector)
        rng = np.random.default_rng(0)
        bounds, count = {}, 0
        for name, vectors in by_class.items():
            if len(vectors) < 8:
                continue
            pairs = rng.integers(len(vectors), size=(_PAIRS, 2))
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            bounds[name] = float(np.quantile([cosine(vectors[a], vectors[b]) for a, b in pairs], SHARE))
            count += len(vectors)
        return Bound(float(np.median(list(bounds.values()))) if bounds else float("nan"), bounds, count)

    def words(self, evidence: Evidence, learnt: Learnt) -> tuple[str, str]:
        """See `Check`."""
        return "the painting is like its exemplar", "the painting is no longer like its exemplar"


def cosine(a: Vectors, b: Vectors) -> float:
    """Cosine of two vectors; 0 where one is zero."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
