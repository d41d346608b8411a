"""Backbones of timm: `timm:NAME?weights=FILE|DEFAULT|random` (extra `embed`).

In: the name of a timm model and its weights. Out: an embedder over its feature maps (`features_only`).

Options:
    weights    FILE (.safetensors or .pth state dict in timm's layout, its head is not needed), DEFAULT
               (timm's pretrained weights, from its cache or the hub) or random
    levels     stride4, stride8, ..., of transformers block9, ...: the maps, comma-separated (the last two, of
               transformers the last)
    side       longer side in px of what it looks at (448; what it takes where it takes one size only)
    crops      side in px of crops for "object" (0: from the one look; see `backbone`)
    seed       of random weights (0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from curator.config import require
from curator.detect.base import Detector, FeatureMap
from curator.detect.weights import fingerprint, read_state
from curator.errors import ConfigError, InputError, RegistryError
from curator.registry import Spec
from curator.represent.embedders.backbone import BackboneEmbedder, Look, whole
from store.keys import content_key

_SIDE = 448


class TimmBackbone:
    """A timm network that gives feature maps."""

    def __init__(self, network: Any, name: str, config: Mapping[str, Any]) -> None:
        self._network = network.eval().requires_grad_(False)
        self.name = name
        reductions = [int(value) for value in network.feature_info.reduction()]
        blocks = len(set(reductions)) < len(reductions)  # those of a transformer have one stride
        self.known = tuple(
            f"block{number}" if blocks else f"stride{reduction}"
            for number, reduction in zip(network.feature_info.out_indices, reductions, strict=True)
        )
        self.levels = self.known[-1:] if blocks else self.known[-2:]
        self._last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        self.step, self.square = max(reductions), bool(config.get("fixed_input_size", False))
        self.native = int(config["input_size"][-1])
        mean, deviation = tuple(config["mean"]), tuple(config["std"])
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (mean, deviation))
        self._own = fingerprint(network, {"architecture": name, "mean": mean, "deviation": deviation})

    @property
    def fingerprint(self) -> str:
        """Hash of the network and of the levels that are read."""
        return content_key(self._own, self.levels)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._network.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def look(self, x: Tensor) -> Look:
        """See `Backbone.look`."""
        found = dict(zip(self.known, self._network((x - self._mean) / self._std), strict=True))
        if self._last:
            found = {level: values.permute(0, 3, 1, 2) for level, values in found.items()}
        return Look({level: _map(found[level], x) for level in self.levels})


def build(spec: Spec, detector: Detector) -> BackboneEmbedder:
    """`timm:NAME?weights=...`.

    Raises:
        RegistryError: an unknown model. InputError: weights that do not fit or cannot be had. ConfigError:
            wrong options.
    """
    spec.only(("weights", "levels", "side", "crops", "seed"))
    source = spec.options.get("weights")
    require(
        source is not None,
        f"embedder {spec.text!r}: name the weights, as in timm:{spec.name}?weights=FILE.safetensors, or "
        f"weights=DEFAULT for timm's own",
    )
    if not timm.is_model(spec.name.partition(".")[0]):
        raise RegistryError(f"timm: expected the name of a timm model (timm.list_models), got {spec.name!r}")
    network = _network(spec, str(source))
    config = timm.get_pretrained_cfg(spec.name)
    backbone = TimmBackbone(network, spec.name, asdict(config) if config else _PLAIN)
    asked = tuple(filter(None, spec.options.get("levels", "").split(",")))
    unknown = [level for level in asked if level not in backbone.known]
    if unknown:
        raise ConfigError(
            f"embedder {spec.text!r}: levels: expected some of {', '.join(backbone.known)}, got "
            f"{', '.join(unknown)}"
        )
    if asked:
        backbone.levels = tuple(level for level in backbone.known if level in asked)
    side = whole(spec, "side", backbone.native if backbone.square else _SIDE, least=backbone.step)
    return BackboneEmbedder(backbone, side=side, crops=whole(spec, "crops", 0, least=0))


_PLAIN: Mapping[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "input_size": (3, 224, 224),
}


def _network(spec: Spec, source: str) -> Any:
    """The network with its weights, cut down to its feature maps by timm."""
    overlay: dict[str, Any] = {}
    if source not in ("DEFAULT", "random"):
        overlay["state_dict"] = _fitting(spec.name, read_state(Path(source)), source)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(whole(spec, "seed", 0, least=0))
            return timm.create_model(
                spec.name,
                pretrained=source != "random",
                features_only=True,
                pretrained_cfg_overlay=overlay or None,
            )
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"timm: {spec.name} cannot be built with feature maps and weights={source} "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def _fitting(name: str, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state without its head; timm itself would take a file of another network in silence."""
    own = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    lacking = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if lacking:
        raise InputError(
            f"weights: {source} lacks {lacking[0]} {tuple(own[lacking[0]].shape)} ({len(lacking)} in all); "
            f"expected timm's layout of {name}"
        )
    return {key: state[key] for key in own}


def _map(values: Tensor, x: Tensor) -> FeatureMap:
    """Maps (B, C, h, w); cells lie evenly over the input."""
    step = (x.shape[-1] / values.shape[-1], x.shape[-2] / values.shape[-2])
    return FeatureMap(values, step, (step[0] / 2, step[1] / 2))
