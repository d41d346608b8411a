"""What torchvision's detection networks share behind the `Detector` protocol: weights, device, normalisation.

In: a network with torchvision's `transform`. Out: its fingerprint, a file of its weights, copies to train,
and inputs RGB [0, 1] normalised as it wants them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from curator.detect.weights import Fingerprinted, write_state


class TorchvisionNetwork(Fingerprinted):
    """A frozen network in eval mode.

    Args:
        network: torchvision's detector; its parameters are frozen and it is put into eval mode.
        classes: names without background, in label order.
        description: plain JSON that `save` stores and from which `curator:PATH` builds it again.
        spec: the registry spec that it came from.
    """

    network: Any

    def __init__(
        self, network: Any, classes: Sequence[str], *, description: Mapping[str, Any], spec: str
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # 5 times faster on a CPU for the small SSD
        self.classes = tuple(classes)
        self.description = dict(description)
        self.spec = spec
        mean = network.transform.image_mean
        self.mean_color = (float(mean[0]), float(mean[1]), float(mean[2]))
        self.device = torch.device("cpu")
        self._mean = torch.tensor(mean).view(3, 1, 1)
        self._std = torch.tensor(network.transform.image_std).view(3, 1, 1)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    def modules(self) -> nn.Module:
        """The torchvision network."""
        network: nn.Module = self.network
        return network

    def save(self, path: Path) -> None:
        """Write weights, architecture and classes; `curator:PATH` reads them."""
        write_state(path, self.network, self.description)

    def clone(self) -> Self:
        """An independent copy with equal weights and trainable parameters."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network).requires_grad_(True)
        twin._fingerprint = None
        return twin

    def _normalised(self, u: Tensor) -> Tensor:
        """u (B, 3, h, w) RGB [0, 1] -> what the backbone takes."""
        return ((u - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
