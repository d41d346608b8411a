"""Gradient-boosted trees as arrays, so that they are stored without pickles.

In: figures of two kinds. Out: the nodes of scikit-learn's histogram-based trees (Friedman, Annals of
Statistics 2001), and log-odds of other figures by these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

SETTINGS: dict[str, Any] = {
    "max_iter": 150,
    "learning_rate": 0.05,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 40,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
Array = NDArray[np.float64]


def fit(x: Array, y: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Fit trees that tell rows (N, F) of y = 1 from those of 0; their arrays (`_arrays_of`). NaN: missing."""
    filled = np.where(np.isnan(x), np.inf, x)
    least, most = filled.min(0), np.where(np.isnan(x), -np.inf, x).max(0)
    columns = np.flatnonzero(least < most)  # scikit-learn takes no figure of one value, or of none
    model = HistGradientBoostingClassifier(**SETTINGS)
    arrays = _arrays_of(model.fit(x[:, columns], y))
    return {**arrays, "feature": columns[arrays["feature"]].astype(np.int32)}


def _arrays_of(model: HistGradientBoostingClassifier) -> dict[str, NDArray[Any]]:
    """The trees as arrays: "feature", "threshold", "left", "right" (-1 at a leaf), "missing" (1: NaN goes
    left), "value", one behind another; "roots" (T,); "base" (1,)."""
    trees = [stage[0].nodes for stage in model._predictors]
    roots = np.cumsum([0, *(len(tree) for tree in trees[:-1])])
    leaf = [tree["is_leaf"].astype(bool) for tree in trees]
    return {
        "feature": np.concatenate([t["feature_idx"] for t in trees]).astype(np.int32),
        "threshold": np.concatenate([t["num_threshold"] for t in trees]).astype(np.float64),
        "missing": np.concatenate([t["missing_go_to_left"] for t in trees]).astype(np.uint8),
        "value": np.concatenate([t["value"] for t in trees]).astype(np.float64),
        "left": np.concatenate(
            [np.where(n, -1, t["left"] + r) for t, n, r in zip(trees, leaf, roots, strict=True)]
        ).astype(np.int32),
        "right": np.concatenate(
            [np.where(n, -1, t["right"] + r) for t, n, r in zip(trees, leaf, roots, strict=True)]
        ).astype(np.int32),
        "roots": roots.astype(np.int32),
        "base": np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1),
    }


def log_odds(x: Array, trees: Mapping[str, NDArray[Any]]) -> Array:
    """(N,) log-odds of rows (N, F) by the trees' arrays."""
    node = np.tile(trees["roots"], (len(x), 1))  # (N, T)
    rows = np.arange(len(x))[:, None]
    while True:
        inner = trees["left"][node] >= 0
        if not inner.any():
            return np.asarray(trees["value"][node].sum(1) + trees["base"][0])
        value = x[rows, trees["feature"][node]]
        goes_left = np.where(np.isnan(value), trees["missing"][node] > 0, value <= trees["threshold"][node])
        node = np.where(inner, np.where(goes_left, trees["left"][node], trees["right"][node]), node)
