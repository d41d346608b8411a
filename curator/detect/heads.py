"""What heads of detectors and classifiers have in common: full precision, and names for their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def keep_fp32(head: nn.Module) -> None:
    """Make `head` compute in fp32 even under autocast: log-odds cannot be had back from bf16 numbers.

    Args:
        head: takes tensors by position; its parameters are fp32.
    """
    inner = head.forward

    def forward(*inputs: Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return inner(*(values.float() for values in inputs))

    head.forward = forward


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Class names of which none occurs twice: the second "crane" of ImageNet becomes "crane (2)"."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)
