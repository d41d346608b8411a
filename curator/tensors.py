"""Between stored pixels and tensors, and which device computes."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curator.errors import ConfigError


def image_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Stored pixels (H, W, 3) uint8 -> (3, H, W) float32 RGB in [0, 1]."""
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")).float().div_(255)


def image_pixels(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float RGB in [0, 1] -> (H, W, 3) uint8; exact inverse of `image_tensor`."""
    array = image.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`: auto (cuda, then mps, then cpu), cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: unknown name, or a device that this machine has not.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: this machine has no CUDA device; use --device auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: this machine has no MPS device; use --device auto or cpu")
    return device


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator keyed by `parts` (run seed, image sha256, ...): equal parts give equal numbers
    everywhere; the global random state is never touched (DESIGN.md, rule 8)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
