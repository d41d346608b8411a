"""Detectors of a user, as `python:answering:...` finds them; answers depend on the image's width."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from curator.detect.black_box import BlackBox

BROKEN = ([[10.0, 10.0, 50.0, 60.0], [60.0, 80.0, 20.0, 30.0]], [0.9, 0.8], [0, 0])
SLIVERS = (
    [[100.0, 90.0, 100.0, 90.0], [66.0, 40.79, 66.03, 40.79], [10.0, 10.0, 50.0, 60.0]],
    [0.9] * 3,
    [0] * 3,
)


def broken_at(width: str) -> BlackBox:
    """Answers with a reversed box on images of this width, and by slivers and one box on the others."""

    def find(images: list[Tensor]) -> list[Any]:
        return [BROKEN if image.shape[-1] == int(width) else SLIVERS for image in images]

    return BlackBox(find, ("a", "b"), fingerprint=f"broken at {width}")


def broken_when_masked(width: str) -> BlackBox:
    """Finds one box; answers with a reversed one where a part of an image of this width is hidden by grey."""

    def find(images: list[Tensor]) -> list[Any]:
        hidden = [image.shape[-1] == int(width) and bool((image == 0.5).any()) for image in images]
        return [BROKEN if one else ([[15.0, 15.0, 50.0, 60.0]], [0.9], [1]) for one in hidden]

    return BlackBox(find, ("a", "b"), fingerprint=f"broken when masked at {width}")


def lists() -> BlackBox:
    """Finds nothing, in empty lists."""
    return BlackBox(lambda images: [([], [], [])] * len(images), ("a", "b"), fingerprint="lists")


def fractions() -> BlackBox:
    """Answers in fractions of the image."""
    box = (np.array([[0.1, 0.2, 0.5, 0.6]]), np.array([0.9]), np.array([0]))
    return BlackBox(lambda images: [box] * len(images), ("a", "b"), fingerprint="fractions")
