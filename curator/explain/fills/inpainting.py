"""Holes painted by a generative inpainter: what makes a method its G-variant (Agarwal & Nguyen, ACCV 2020).

In: x (3, h, w), holes (n, h, w). Out: (n, 3, h, w), bit-identical outside the holes. The inpainter comes from
the registry by the specs of `curator synthesize`, without an exemplar or a prompt of its own: it paints what
it takes for background. It works at its own size on a crop around each hole, and in batches of holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from curator.errors import ConfigError
from curator.inpaint.base import Inpainter
from curator.registry import INPAINTERS, Spec


def load_inpainter(settings: Mapping[str, str], device: torch.device) -> Inpainter:
    """Load the inpainter `settings["spec"]`; the other settings are options of its own.

    Raises:
        ConfigError: no spec.
        RegistryError: unknown scheme or option. InputError: nothing loadable where the spec points.
    """
    text = settings.get("spec")
    if not text:
        raise ConfigError(
            "--fill inpaint: expected inpaint?spec=SPEC with an inpainter of `curator synthesize`, such as "
            "inpaint?spec=builtin: or inpaint?spec=auto:ID"
        )
    options = {name: value for name, value in settings.items() if name != "spec"}
    spec = Spec.parse(text)
    spec = replace(spec, options={**spec.options, **options})
    built: Inpainter = INPAINTERS.load(spec.scheme)(spec, device=str(device))
    return built


class InpaintingHole:
    """Holes painted by an inpainter.

    Args:
        inpainter: see `curator.synthesize.base.Inpainter`.
    """

    continuous: Literal[False] = False

    def __init__(self, inpainter: Inpainter) -> None:
        self.inpainter = inpainter

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`; the seed is the painting's."""
        return self.fill_many(image, hole[None], [seed])[0]

    @torch.no_grad()
    def fill_many(self, image: Tensor, holes: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `BatchedHoleFill`."""
        images = image.expand(len(holes), *image.shape)
        return torch.where(holes[:, None], self.inpainter.inpaint(images, holes, seeds=seeds), images)
