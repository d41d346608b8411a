"""Backbones of torchvision: `torchvision:NAME?weights=FILE|DEFAULT`, and plain files of weights.

In: a classification network's name and its weights, or `safetensors:FILE?layout=mobilenet_v1|squeezenet`.
Out: an embedder over the maps of its main stages.

Options of `torchvision:`
    weights    FILE (.safetensors or .pth state dict in torchvision's layout, its head is not needed), DEFAULT
               (torchvision's own ImageNet weights, downloaded once by torchvision) or random
    levels     stages by name, comma-separated (the last two)
    side       longer side in px of what it looks at (448)
    crops      side in px of crops of the boxes, looked at one by one (0: one look for all; see `backbone`)
    pixels     what the network saw: imagenet, unit or caffe (see `curator.detect.classifier`)
    seed       of random weights (0)
Options of `safetensors:`
    layout     mobilenet_v1 (TensorFlow's names) or squeezenet (torchvision's names, pixels as in Caffe)
    levels, side, crops    as above
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model_weights

from curator.config import require
from curator.detect.base import Detector
from curator.detect.classifier import ClassifierDetector, make_network
from curator.detect.small_ssd import PIXELS
from curator.detect.weights import fingerprint, load_into, read_state
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from curator.represent.embedders.backbone import Backbone, BackboneEmbedder, Look, whole
from curator.represent.embedders.mobilenet import LEVELS, MobileNetV1
from store.keys import content_key
from store.records import Pin

SIDE = 448
_STEP = 32
_LAYOUTS = ("mobilenet_v1", "squeezenet")


class StagesBackbone:
    """The main stages of a classification network, through its adapter as a detector."""

    step, square = _STEP, False

    def __init__(self, network: ClassifierDetector, levels: Sequence[str], name: str) -> None:
        self._network, self._levels, self.name = network, tuple(levels), name
        self.fingerprint = content_key(network.fingerprint, self._levels)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._network.to(device)

    def look(self, x: Tensor) -> Look:
        """See `Backbone.look`."""
        size = (int(x.shape[-2]), int(x.shape[-1]))
        pin = Pin(image_size=size, input_size=size, scale=(1.0, 1.0))
        nothing = torch.zeros(0, dtype=torch.int64, device=x.device)
        return Look(self._network.candidates(x, pin, index=nothing, levels=self._levels).features)


class MobileNetBackbone:
    """MobileNet V1 of TensorFlow's weights."""

    name, step, square = "mobilenet", _STEP, False

    def __init__(self, network: MobileNetV1, levels: Sequence[str]) -> None:
        self._network, self._levels = network.to(memory_format=torch.channels_last), tuple(levels)
        self.fingerprint = content_key(fingerprint(network, {"architecture": "mobilenet_v1"}), self._levels)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._network.to(device)

    def look(self, x: Tensor) -> Look:
        """See `Backbone.look`."""
        maps = self._network(x.contiguous(memory_format=torch.channels_last))
        return Look({level: maps[level] for level in self._levels})


def build(spec: Spec, detector: Detector) -> BackboneEmbedder:
    """`torchvision:NAME?weights=...`.

    Raises:
        RegistryError: another network's name. InputError: weights that do not fit or cannot be had.
        ConfigError: wrong options, or a network without maps.
    """
    spec.only(("weights", "levels", "side", "crops", "pixels", "seed"))
    source, pixels = spec.options.get("weights"), spec.options.get("pixels", "imagenet")
    require(
        source is not None,
        f"embedder {spec.text!r}: name the weights, as in torchvision:{spec.name}?weights=FILE.safetensors, "
        f"or weights=DEFAULT for torchvision's own",
    )
    require(
        pixels in (*PIXELS, "unit"),
        f"embedder {spec.text!r}: pixels: expected {', '.join(PIXELS)} or unit, got {pixels!r}",
    )
    network = make_network(spec.name, 1, whole(spec, "seed", 0, least=0))
    if source == "DEFAULT":
        return _stages(spec, network, _default(spec.name), pixels, spec.name)
    state = None if source == "random" else read_state(Path(str(source)))
    return _stages(spec, network, state, pixels, spec.name)


def build_file(spec: Spec, detector: Detector) -> BackboneEmbedder:
    """`safetensors:FILE?layout=...`.

    Raises:
        InputError: no such file, or tensors of another layout. ConfigError: wrong options.
    """
    spec.only(("layout", "levels", "side", "crops"))
    layout = spec.options.get("layout")
    require(
        layout in _LAYOUTS,
        f"embedder {spec.text!r}: expected layout={' or layout='.join(_LAYOUTS)}, got {layout!r}; for other "
        f"networks use torchvision:NAME?weights=FILE",
    )
    state = read_state(Path(spec.name))
    if layout == "squeezenet":
        return _stages(spec, make_network("squeezenet1_1", 1, 0), state, "caffe", "squeezenet")
    levels = _levels(spec, LEVELS, LEVELS[-2:])
    backbone = MobileNetBackbone(MobileNetV1(state, spec.name), levels)
    return _embedder(spec, backbone)


def _stages(
    spec: Spec, network: nn.Module, state: Mapping[str, Tensor] | None, pixels: str, name: str
) -> BackboneEmbedder:
    """Put weights into the network without its head."""
    head = [child for child, _ in network.named_children()][-1]
    setattr(network, head, nn.Identity())
    if state is not None:
        kept: dict[str, Any] = {
            key: value for key, value in state.items() if not key.startswith((f"{head}.", "aux", "AuxLogits"))
        }
        if pixels == "caffe":  # its first convolution takes BGR
            first = next(n for n, v in network.state_dict().items() if v.ndim == 4 and v.shape[1] == 3)
            if first not in kept:
                raise InputError(f"weights: {spec.name} lacks {first}; expected torchvision's layout")
            kept[first] = kept[first].flip(1)
        load_into(network, kept, spec.text)
    looked = ClassifierDetector(network, ("",), size=_STEP * 7, pixels=pixels, spec=spec.text)
    if not looked.levels or isinstance(network, VisionTransformer):
        raise ConfigError(
            f"embedder {spec.text!r}: expected a network with feature maps, {spec.name} has none; use "
            f"transformers:FOLDER for vision transformers"
        )
    levels = _levels(spec, looked.levels, looked.levels[-2:])
    return _embedder(spec, StagesBackbone(looked, levels, name))


def _embedder(spec: Spec, backbone: Backbone) -> BackboneEmbedder:
    side, crops = whole(spec, "side", SIDE, least=_STEP), whole(spec, "crops", 0, least=0)
    return BackboneEmbedder(backbone, side=side, crops=crops)


def _levels(spec: Spec, known: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    asked = tuple(filter(None, spec.options.get("levels", "").split(","))) or tuple(usual)
    unknown = [level for level in asked if level not in known]
    if unknown:
        raise ConfigError(
            f"embedder {spec.text!r}: levels: expected some of {', '.join(known)}, got {', '.join(unknown)}"
        )
    return tuple(level for level in known if level in asked)


def _default(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = get_model_weights(name)["DEFAULT"].get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"weights: torchvision could not get its weights of {name} ({reason}); download them where "
            f"there is a network and give weights=FILE"
        ) from error
    return state
