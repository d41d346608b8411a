"""Painting: which inpainter is meant, and what it makes of plans.

In: a `SynthesizeConfig`, `SamplePlan`s. Out: an inpainter, samples (3, H, W).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch

from curator.detect.small_ssd import BUILTIN
from curator.detect.weights import read_description
from curator.errors import InputError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.base import Inpainter
from curator.registry import Spec
from curator.synthesize.base import SamplePlan
from curator.synthesize.settings import SynthesizeConfig
from curator.tensors import image_pixels, image_tensor, resolve_device


def choose_inpainter(config: SynthesizeConfig, classes: Sequence[str]) -> tuple[str, float]:
    """The inpainter and the strength that are meant; where none is named, composition alone.

    Args:
        classes: of the diagnosed detector; it is of the example when all of them are.
    Raises:
        InputError: `builtin:`, which knows the built-in example's flowers alone and paints smears on anything
            else, for a detector of other classes.
    """
    flowers = read_description(BUILTIN)["options"]["classes"]
    others = [name for name in classes if name not in flowers]
    spec = config.inpainter or "compose:"
    scheme = Spec.parse(spec).scheme
    if scheme == "builtin" and others:
        raise InputError(
            "--inpainter builtin: paints the built-in example's flowers alone, and this detector finds "
            f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}; leave --inpainter away (real "
            "pixels are composed and blended), or choose curator:DIR (curator train-inpainter makes one from "
            "your images), auto:FOLDER_OR_ID or diffusers:ClassName:ID"
        )
    if scheme == "compose":
        if config.strength:
            raise InputError(
                f"--strength {config.strength:g}: compose: has no model that could paint; expected 0, or an "
                "--inpainter such as curator:DIR or auto:FOLDER_OR_ID"
            )
        return spec, 0.0
    usual = 1.0 if scheme == "builtin" else 0.6
    return spec, usual if config.strength is None else config.strength


def load_inpainter(spec: str, steps: int, device: str = "auto") -> Inpainter:
    """Build the inpainter that `spec` names, once per process and state of its files."""
    return _load_inpainter(spec, steps, str(resolve_device(device)), Spec.parse(spec).files())


@lru_cache(maxsize=2)
def _load_inpainter(spec: str, steps: int, device: str, state: tuple[Any, ...]) -> Inpainter:
    return build_inpainter(spec, steps=steps, device=device)


def paint(
    inpainter: Inpainter, plans: dict[int, SamplePlan], strength: float
) -> dict[int, torch.Tensor | Exception]:
    """Sample (3, H, W), in 8-bit steps, for every plan, or why there is none; plans of one image size are
    painted together, and one by one where that fails."""
    samples: dict[int, torch.Tensor | Exception] = {
        i: plan.rendered for i, plan in plans.items() if plan.rendered is not None
    }
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, plan in plans.items():
        if plan.rendered is None:
            by_size[tuple(plan.scene.image.shape)].append(i)
    for members in by_size.values():
        try:
            painted = _painted(inpainter, [plans[i] for i in members], strength)
            samples.update(zip(members, painted, strict=True))
        except Exception:
            for i in members:
                try:
                    samples[i] = _painted(inpainter, [plans[i]], strength)[0]
                except Exception as error:
                    samples[i] = error
    return {
        i: sample if isinstance(sample, Exception) else image_tensor(image_pixels(sample))
        for i, sample in samples.items()
    }


def _painted(inpainter: Inpainter, plans: Sequence[SamplePlan], strength: float) -> torch.Tensor:
    """Samples (B, 3, H, W) of plans of one image size."""
    composed = [plan.composed for plan in plans]
    initial = None if any(c is None for c in composed) else torch.stack(cast(list[torch.Tensor], composed))
    return inpainter.inpaint(
        torch.stack([plan.scene.image for plan in plans]),
        torch.stack([plan.mask for plan in plans]),
        initial=initial,
        strength=strength if initial is not None else 1.0,
        prompts=[plan.prompt or "" for plan in plans],
        negative_prompts=[plan.negative_prompt or "" for plan in plans],
        exemplars=[plan.exemplar for plan in plans],
        seeds=[plan.seed for plan in plans],
    )
