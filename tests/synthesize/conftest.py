"""A small labelled scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from curator.synthesize.base import Exemplar, Scene
from store.records import NewAnnotation


def _textured(seed: int, size: int = 96) -> torch.Tensor:
    """A grey-green ground (3, size, size) with soft texture."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, 0.04, (1, 3, 12, 12)).astype(np.float32))
    ground = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0]
    return (ground + torch.tensor([0.7, 0.75, 0.6])[:, None, None]).clamp(0, 1)


@pytest.fixture
def scene() -> Scene:
    """Two red objects of class "cup" and one "plate"."""
    image = _textured(3)
    boxes = {"cup": [(10.0, 10.0, 30.0, 34.0), (60.0, 50.0, 84.0, 80.0)], "plate": [(8.0, 60.0, 40.0, 84.0)]}
    annotations = []
    for category, places in boxes.items():
        for x1, y1, x2, y2 in places:
            image[:, int(y1) : int(y2), int(x1) : int(x2)] = torch.tensor(
                [0.8, 0.1, 0.1] if category == "cup" else [0.2, 0.2, 0.8]
            )[:, None, None]
            annotations.append(NewAnnotation(category=category, box=(x1, y1, x2, y2)))
    return Scene(image_id=7, image=image, annotations=tuple(annotations))


def _failing(kind: str = "FN", *, blamed: bool = True) -> Exemplar:
    """A cup (40, 40, 64, 70) behind a dark post (50..56 wide), or the post alone mistaken for a cup."""
    image = _textured(11)
    if kind == "FN":
        image[:, 40:70, 40:64] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    image[:, 25:85, 50:56] = 0.1
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[40:62, 50:56] = True
    box = (40.0, 40.0, 64.0, 70.0) if kind == "FN" else (48.0, 24.0, 58.0, 86.0)
    return Exemplar(
        image_id=2,
        outcome_id=5,
        group=f"{kind}:test:cup",
        kind=kind,
        category="cup",
        image=image,
        box=box,
        blamed=mask if blamed else None,
    )


@pytest.fixture
def textured() -> Callable[..., torch.Tensor]:
    """Makes a grey-green ground from a seed."""
    return _textured


@pytest.fixture
def failing() -> Callable[..., Exemplar]:
    """Makes a failure: kind "FN" or "FP", with or without a blamed part."""
    return _failing
