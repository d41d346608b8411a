"""The samples that an interpretation is fitted on, and the fit (VEBI, Oramas et al., ICLR 2019, 3.1).

In: an image's labelled boxes. Out: X (N, m), one descriptor per box; with labels L (N, C) an `Interpretation`
and, per class, the features that contribute most. The paper's sample is an image with its class; a detector's
is an object in its box, unless the interpretation pools over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import InputError
from curator.explain.features.base import Interpretation, Pooling, Source, descriptors, input_boxes, responses
from curator.explain.features.mu_lasso import mu_lasso
from store.records import Pin


def measure(
    detector: Detector,
    image: Tensor,
    pin: Pin,
    boxes: NDArray[Any],
    *,
    layers: Sequence[str],
    source: Source = "conv",
    pooling: Pooling = "box",
) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """X of one image's boxes and the layers' numbers of filters.

    Args:
        image: prepared x (3, h, w). boxes: (n, 4) stored-image pixels. layers: of `base.inner_layers`.
    Returns:
        (n, m) and the channels of each layer.
    Raises:
        ConfigError: layers that the detector does not have.
    """
    with torch.no_grad():
        values = responses(detector, image[None], pin, source=source, layers=layers)
    x = descriptors(values, input_boxes(boxes, pin, pooling), pin.input_size)
    return x, tuple(int(value.shape[1]) for value in values.values())


def fit(
    x: NDArray[np.float32],
    labels: NDArray[np.bool_],
    mu: float,
    *,
    layers: Sequence[str],
    channels: Sequence[int],
    classes: Sequence[str],
    fingerprint: str,
    source: Source,
    pooling: Pooling,
    key: str,
) -> Interpretation:
    """Fit eq. (1).

    Args:
        x: (N, m). labels: (N, C), in the detector's label order.
    Raises:
        InputError: no sample, or mu <= 0.
    """
    if not len(x):
        raise InputError("interpret: expected labelled objects of the detector's classes, found none")
    return Interpretation(
        weights=mu_lasso(x, labels.astype(np.float64), mu).astype(np.float32),
        layers=tuple(layers),
        channels=tuple(channels),
        classes=tuple(classes),
        samples=tuple(int(n) for n in labels.sum(0)),
        mu=mu,
        source=source,
        pooling=pooling,
        fingerprint=fingerprint,
        key=key,
    )


def accuracy(fitted: Interpretation, x: NDArray[np.float32], labels: NDArray[np.bool_]) -> float:
    """Share of samples whose largest x W is one of their classes: how much W knows of the labels."""
    best = (x @ fitted.weights).argmax(1)
    return float(labels[np.arange(len(x)), best].mean())


def characteristic(
    fitted: Interpretation, x: NDArray[np.float32], labels: NDArray[np.bool_], count: int
) -> list[list[tuple[int, float]]]:
    """Per class its `count` features of largest mean contribution w_j o x over the class's own samples.

    Returns:
        per class (feature, mean contribution > 0), strongest first; none for a class without samples.
    """
    chosen: list[list[tuple[int, float]]] = []
    for label in range(labels.shape[1]):
        own = x[labels[:, label]]
        chosen.append(fitted.relevant(label, own.mean(0), count) if len(own) else [])
    return chosen
