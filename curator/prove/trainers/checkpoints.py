"""Checkpoints of `fine_tune`: everything that the next steps depend on, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    losses: Sequence[float],
    mean: dict[str, Tensor],
) -> None:
    """Write weights, their mean, optimiser moments and losses (temporary file, then rename)."""
    tensors = {
        f"network.{name}": value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    for number, parameter in enumerate(parameters):
        for name, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{number}.{name}"] = value.detach().cpu().contiguous().clone()
    tensors |= {f"mean.{name}": value.cpu().contiguous() for name, value in mean.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary, metadata={"losses": json.dumps(list(losses))})
    temporary.replace(path)


def load_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    mean: dict[str, Tensor],
) -> list[float]:
    """Bring network, optimiser and mean to where a checkpoint stands; returns the losses up to there."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as opened:
        losses: list[float] = json.loads((opened.metadata() or {})["losses"])
    network.load_state_dict(
        {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
    )
    for name, value in mean.items():
        value.copy_(tensors[f"mean.{name}"])
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            parameter = parameters[int(number)]
            # The step counter stays on the CPU; moments live with (and are laid out as) their parameter.
            optimiser.state[parameter][key] = (
                value if key == "step" else torch.empty_like(parameter).copy_(value)
            )
    return losses
