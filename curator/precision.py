"""In which precision a network runs: float32, or bfloat16 autocast.

Detectors keep their heads in fp32 either way, so that scores and log-odds stay exact.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def resolve_precision(
    wanted: Literal["auto", "fp32", "bf16"], device: torch.device, *, cpuinfo: Path = Path("/proc/cpuinfo")
) -> Precision:
    """What `wanted` stands for on a device: "auto" is bf16 where the hardware is fast in it.

    Never by a stopwatch: the answer enters content keys, and two runs must not share a key by chance.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if fast_bf16(device, cpuinfo) else "fp32"


def fast_bf16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where bf16 matrix products run in hardware at more than fp32's rate: on CUDA from compute
    capability 8.0, on CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not cpuinfo.is_file():
        return False
    return "amx_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass of that precision runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
