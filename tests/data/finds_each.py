"""A detector that sees one object of every class in every picture, in a corner of its own, whatever it shows:
`python:tests.data.finds_each:build`."""

from __future__ import annotations

import torch
from torch import Tensor

from curator.detect.black_box import BlackBox, Found

CLASSES = ("car", "person", "dog")


def box_of(name: str) -> tuple[float, float, float, float]:
    """Where it sees the object of a class: x1, y1, x2, y2."""
    x = 20.0 * CLASSES.index(name)
    return (x, 5.0, x + 15.0, 20.0)


def build() -> BlackBox:
    def find(images: list[Tensor]) -> list[Found]:
        boxes = torch.tensor([box_of(name) for name in CLASSES])
        return [(boxes.clone(), torch.full((3,), 0.9), torch.arange(3)) for _ in images]

    return BlackBox(find, CLASSES, fingerprint="finds each")
