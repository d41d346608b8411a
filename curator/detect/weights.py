"""Weights: read without unpickling code, fingerprint, and name what a file lacks.

In: a `.safetensors` file, or a `.pth` file that `torch.load(weights_only=True)` accepts. Out: a state dict.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curator.errors import InputError
from store.keys import canonical_json


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from `path`.

    Raises:
        InputError: missing or unreadable file, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"weights: expected a .safetensors or .pth file, found none at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"weights: {path} is no readable tensor file ({reason}); save a plain state dict"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]  # as torchvision's reference scripts save it, beside the optimiser
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"weights: expected a state dict of tensors in {path}, got {type(loaded).__name__}")
    return dict(loaded)


def read_metadata(path: Path) -> dict[str, str]:
    """Read a safetensors file's metadata.

    Raises:
        InputError: missing file, or no safetensors.
    """
    if not path.is_file():
        raise InputError(f"detector: expected a .safetensors file, found none at {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise InputError(f"detector: {path} is no safetensors file ({error})") from error


def write_state(path: Path, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Write the network's tensors with `description` as metadata (temporary file, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    temporary = path.with_name(f".{path.name}.part")
    save_file(state, temporary, metadata={"curator": canonical_json(description)})
    temporary.replace(path)


def read_description(path: Path) -> dict[str, Any]:
    """Read what `write_state` stored as `description`.

    Raises:
        InputError: the file was not written by curator.
    """
    text = read_metadata(path).get("curator")
    if text is None:
        raise InputError(
            f"detector: {path} has no curator metadata; name its architecture instead, as in "
            f"torchvision:ssd300_vgg16?weights={path}"
        )
    description: dict[str, Any] = json.loads(text)
    return description


def load_into(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` strictly.

    Raises:
        InputError: names the first missing, unexpected or misshapen entries.
    """
    own = network.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    misshapen = sorted(name for name in set(own) & set(state) if own[name].shape != state[name].shape)
    for what, names in (("lacks", missing), ("has unknown", unexpected), ("has other shapes for", misshapen)):
        if names:
            raise InputError(
                f"weights: {where} {what} {', '.join(names[:3])} ({len(names)} in all); choose "
                f"the architecture that it was trained with"
            )
    network.load_state_dict(dict(state))


def fingerprint(network: nn.Module, description: Mapping[str, Any]) -> str:
    """Hash of the description and of every parameter and buffer, 64 hex digits."""
    digest = hashlib.sha256(canonical_json(description).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Fingerprinted:
    """A detector whose weights may be trained: its fingerprint is computed once, or anew while they are.

    Attributes:
        network, description: what it is the hash of.
    """

    network: Any
    description: Mapping[str, Any]
    _fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, options and weights; of the present weights while they are trained."""
        if any(p.requires_grad for p in self.network.parameters()):
            return fingerprint(self.network, self.description)
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.network, self.description)
        return self._fingerprint
