"""In which precision masked images are run: float32, or bfloat16 autocast where it pays.

`auto` means bf16 only where the hardware multiplies bf16 matrices fast (CUDA from compute capability 8.0, a
CPU with AMX) and a comparison on this very detector, made once per process, finds it faster and as faithful.
Detectors keep their heads in fp32 either way, so that scores and log-odds stay exact.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from curator.detect.base import Detector

Precision = Literal["fp32", "bf16"]

FAITHFUL = 0.99
"""Least Pearson correlation between bf16's and fp32's phi for `auto` to take bf16."""
FASTER = 1.1
"""Least speed-up for `auto` to take bf16."""

_choices: dict[tuple[str, str], Precision] = {}


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass of that precision runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def fast_bf16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where bf16 matrix products run in hardware at more than fp32's rate."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not cpuinfo.is_file():
        return False
    return "amx_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def choose(
    wanted: Literal["auto", "fp32", "bf16"],
    detector: Detector,
    device: torch.device,
    attempt: Callable[[Precision], NDArray[np.float64]],
) -> Precision:
    """Resolve `wanted` to a precision.

    Args:
        attempt: computes phi (any shape) of a small case in a precision; called for `auto` alone, on
            hardware that has fast bf16, once per detector, device and process.
    """
    if wanted != "auto":
        return wanted
    if not fast_bf16(device):
        return "fp32"
    key = (detector.fingerprint, str(device))
    if key not in _choices:
        _choices[key] = compare(attempt)
    return _choices[key]


def compare(attempt: Callable[[Precision], NDArray[np.float64]]) -> Precision:
    """Run both precisions twice (the first run warms up) and take the one that wins."""
    values: dict[Precision, NDArray[np.float64]] = {}
    seconds: dict[Precision, float] = {}
    for precision in ("fp32", "bf16"):
        attempt(precision)
        start = time.perf_counter()
        values[precision] = attempt(precision)
        seconds[precision] = time.perf_counter() - start
    a, b = values["fp32"].ravel(), values["bf16"].ravel()
    if not (np.isfinite(b).all() and a.std() > 0 and b.std() > 0):
        return "fp32"
    faithful = np.corrcoef(a, b)[0, 1] >= FAITHFUL
    return "bf16" if faithful and seconds["fp32"] >= FASTER * seconds["bf16"] else "fp32"
