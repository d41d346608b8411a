"""Logistic regression on a judge's vectors, which are longer than there are objects.

In: vectors (N, D) and what each is. Out: weights on the vectors themselves, so that a head is a few rows.

The vectors are looked at along the principal axes of some of them, and not whitened: axes along which the
user's objects hardly differ would else count as much as those along which they do, and such axes are noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from curator.synthesize.gate.base import Vectors

DIMENSIONS = 600
"""Axes at most, and vectors that they are read off."""
_PENALTY = 1.0  # inverse strength (scikit-learn's C), where the vectors' spread along the first axis is 1


def fit(vectors: Vectors, names: Sequence[Any] | NDArray[Any], *, seed: int) -> dict[str, NDArray[Any]]:
    """Fit.

    Args:
        vectors: (N, D). names: what each is, N of at least two values.
    Returns:
        "classes" (K,) in order; "weights" (K, D) and "intercepts" (K,) of the log-odds, up to what all share.
    """
    x = np.asarray(vectors, np.float32)
    rng = np.random.default_rng([seed, 13])
    some = x[np.sort(rng.permutation(len(x))[:DIMENSIONS])]
    mean = some.mean(0)
    some = some - mean
    spread, turned = np.linalg.eigh((some @ some.T).astype(np.float64))  # of the Gram matrix, ascending
    good = np.flatnonzero(spread > 1e-7 * spread[-1])[::-1]
    if not len(good):  # all vectors are equal
        good = np.array([len(spread) - 1])
    roots = np.sqrt(np.maximum(spread[good], 1e-12))
    axes = (some.T @ (turned[:, good] / roots).astype(np.float32)) / max(roots[0] / np.sqrt(len(some)), 1e-6)
    y = np.asarray(names)
    model = LogisticRegression(C=_PENALTY, max_iter=1000, class_weight="balanced").fit((x - mean) @ axes, y)
    turns, offsets = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(turns) == 1:  # two classes: softmax of -z/2 and z/2 is the logistic of z
        turns, offsets = np.concatenate([-turns, turns]) / 2, np.concatenate([-offsets, offsets]) / 2
    weights = turns @ axes.T.astype(np.float64)
    return {"classes": model.classes_, "weights": weights, "intercepts": offsets - weights @ mean}


def log_odds(vector: Vectors, which: int, weights: Vectors, intercepts: Vectors) -> float:
    """Log of the probability of class `which` over that of all the others, for a vector (D,)."""
    scores = weights @ vector + intercepts
    return float(scores[which] - np.logaddexp.reduce(np.delete(scores, which)))
