"""An additive classifier: a sum of one bent line per figure, fitted by penalised logistic regression.

In: figures of untouched and of spoilt looks. Out: arrays, which score other looks and say which figure speaks
against one. (Generalised additive models: Hastie & Tibshirani, Statistical Science 1986; the lines are linear
between knots, which lie at quantiles of the untouched looks.) Trees told no more on photographs; these are
arrays, stored without pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from curator.synthesize.gate.base import Array

KNOTS = 9
_PENALTY = 0.3  # inverse strength (scikit-learn's C)


def fit(real: Array, spoilt: Array) -> dict[str, NDArray[Any]]:
    """Fit.

    Args:
        real: (N, F) figures of untouched looks. spoilt: (M, F) of spoilt ones. NaN: cannot be had.
    Returns:
        "knots" (F, KNOTS), "weights" (F, KNOTS), "usual" (F,) the mean share of each figure in the score of
        an untouched look, "intercept" (1,).
    """
    middle = np.nanquantile(real, np.linspace(0.02, 0.98, KNOTS - 2), axis=0).T
    reach = np.maximum(2 * np.nanstd(real, axis=0), 1e-3)[:, None]
    knots = np.concatenate([middle[:, :1] - reach, middle, middle[:, -1:] + reach], axis=1)
    knots = np.maximum.accumulate(np.nan_to_num(knots), axis=1)
    both = np.concatenate([real, spoilt])
    x = _hats(both, knots).reshape(len(both), -1)
    y = np.r_[np.zeros(len(real)), np.ones(len(spoilt))]
    model = LogisticRegression(C=_PENALTY, max_iter=3000, class_weight="balanced").fit(x, y)
    weights = model.coef_.reshape(knots.shape)
    usual = (_hats(real, knots) * weights).sum(-1).mean(0)
    return {"knots": knots, "weights": weights, "usual": usual, "intercept": model.intercept_}


def shares(figures: Array, fitted: Mapping[str, NDArray[Any]]) -> Array:
    """(N, F) what each figure adds to the log-odds of being spoilt, above what it adds in untouched looks; 0
    where it cannot be had."""
    added = (_hats(figures, fitted["knots"]) * fitted["weights"]).sum(-1) - fitted["usual"]
    return np.asarray(np.where(np.isnan(figures), 0.0, added))


def score(figures: Array, fitted: Mapping[str, NDArray[Any]]) -> Array:
    """(N,) log-odds of being spoilt, for figures (N, F)."""
    usual = float(fitted["usual"].sum() + fitted["intercept"][0])
    return np.asarray(shares(figures, fitted).sum(-1) + usual)


def _hats(figures: Array, knots: Array) -> Array:
    """(N, F, KNOTS) weights of the knots around each value; all 0 for NaN."""
    x = np.clip(figures, knots[:, 0], knots[:, -1])
    index = np.stack(
        [
            np.clip(np.searchsorted(k, v, side="right") - 1, 0, KNOTS - 2)
            for k, v in zip(knots, x.T, strict=True)
        ],
        axis=1,
    )
    columns = np.arange(knots.shape[0])
    low, high = knots[columns, index], knots[columns, index + 1]
    share = np.where(high > low, (x - low) / np.where(high > low, high - low, 1.0), 0.0)
    out = np.zeros((*x.shape, KNOTS))
    rows = np.arange(len(x))[:, None]
    out[rows, columns, index] = 1 - share
    out[rows, columns, index + 1] = share
    out[np.isnan(figures)] = 0.0
    return out
