"""What a benchmark ran on: the machine and the versions that its JSON names."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """System, processor, cores that may be used, torch's threads."""
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def versions(*names: str) -> dict[str, str]:
    """Versions of Python, of what every benchmark rests on, and of `names`."""
    found = {"python": platform.python_version()}
    for name in ("curator", "torch", "torchvision", "numpy", *names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
