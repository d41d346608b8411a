"""A detector that misses every object, as `python:tests.data.finds_nothing:build?name=CLASS` finds it."""

from __future__ import annotations

import torch
from torch import Tensor

from curator.detect.black_box import BlackBox, Found


def build(name: str) -> BlackBox:
    def find(images: list[Tensor]) -> list[Found]:
        return [(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)) for _ in images]

    return BlackBox(find, (name,), fingerprint=f"finds no {name}")
