"""What people said of suspects sets the scale of the probabilities.

How many labels are wrong cannot be seen from the data: the rates that `suspects` takes are bounds, mostly too
high. Verdicts can tell. The odds of a mistake are rate times ratio of evidence, so were the rates s times as
high as taken, all odds would be s times theirs. In: probabilities of suspects and what people said of them.
Out: s, and probabilities scaled by it. Which suspects were looked at does not matter (the top of the list,
say), as long as the verdicts depend on nothing but the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

SPREAD = math.log(10)
"""Standard deviation of log s before anything was said: off by ten times, up or down, surprises nobody."""
FEWEST = 5
"""Verdicts from which on they set the scale."""
_LEAST = 1e-9
_REACH = 12.0  # of log s


def scale_of(said: Sequence[tuple[float, bool]]) -> float:
    """By how much all odds are to be multiplied: the likeliest s given the verdicts; 1 where there
    are fewer than `FEWEST`.

    Args:
        said: per verdict the probability as judged, unscaled, in [0, 1], and whether the label was wrong.
    """
    if len(said) < FEWEST:
        return 1.0
    calm = np.clip([p for p, _ in said], _LEAST, 1 - _LEAST)
    logits, wrong = np.log(calm / (1 - calm)), np.array([y for _, y in said], np.float64)

    def loss(shift: float) -> float:
        z = logits + shift
        return float(np.sum(np.logaddexp(0, z) - wrong * z) + shift**2 / (2 * SPREAD**2))

    return math.exp(float(minimize_scalar(loss, bounds=(-_REACH, _REACH), method="bounded").x))


def scaled(probability: float, factor: float) -> float:
    """A probability in [0, 1] with its odds multiplied by `factor`."""
    return factor * probability / (1 + (factor - 1) * probability)
