"""torchvision's own SSDs: ssd300_vgg16 and ssdlite320_mobilenet_v3_large.

In: `torchvision:NAME?weights=PATH&classes=a,b`. Out: an `SsdDetector`. Nothing is ever downloaded.

Options:
    weights     PATH of a .safetensors or .pth state dict, or `random`
    classes     comma-separated names without background; COCO's names where the weights have 91 classes
    head        new: load everything but the heads from `weights`, for classes of your own
    backbone    PATH of VGG-16 classification weights in torchvision's layout (ssd300_vgg16 only)
    seed        of fresh weights (0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.ssd import SSD

from curator.config import require
from curator.detect.ssd import SsdDetector
from curator.detect.weights import load_into, read_state
from curator.errors import InputError, RegistryError
from curator.registry import Spec

_BUILDERS: dict[str, Callable[..., SSD]] = {
    "ssd300_vgg16": detection.ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": detection.ssdlite320_mobilenet_v3_large,
}
_COCO: tuple[str, ...] = tuple(detection.SSD300_VGG16_Weights.COCO_V1.meta["categories"][1:])


def build(spec: Spec) -> SsdDetector:
    """Build the SSD that `spec` names.

    Raises:
        RegistryError: another model's name. InputError: weights or classes that do not fit.
    """
    spec.only(("weights", "classes", "head", "backbone", "seed"))
    if spec.name not in _BUILDERS:
        raise RegistryError(f"torchvision: expected one of {', '.join(_BUILDERS)}, got {spec.name!r}")
    options = spec.options
    source = options.get("weights")
    require(
        source is not None,
        f"torchvision: name the weights, as in torchvision:{spec.name}?weights=PATH, "
        "or ask for weights=random to train from scratch",
    )
    names = tuple(name.strip() for name in options.get("classes", "").split(",") if name.strip())
    new_head = options.get("head") == "new"
    require(options.get("head") in (None, "new"), f"head: expected new, got {options.get('head')!r}")
    seed = options.get("seed", "0")
    require(seed.isdecimal(), f"seed: expected a whole number, got {seed!r}")
    if source == "random" or source is None or new_head:
        require(bool(names), f"torchvision: name the classes, as in torchvision:{spec.name}?classes=car,bus")
        network = _fresh(spec.name, len(names) + 1, int(seed))
        if new_head and source not in (None, "random"):
            _load_all_but_head(network, Path(source))
    else:
        state = read_state(Path(source))
        count = _count_classes(state, spec.name, source)
        names = _class_names(names, count, source)
        network = _fresh(spec.name, count, int(seed))
        load_into(network, state, source)
    if "backbone" in options:
        require(
            spec.name == "ssd300_vgg16" and (source == "random" or source is None),
            "backbone: only for ssd300_vgg16 with weights=random (ssdlite320 has a reduced backbone that "
            "ImageNet weights do not fit)",
        )
        _load_vgg(network, Path(options["backbone"]))
    description = {"architecture": spec.name, "classes": list(names)}
    return SsdDetector(network, names, description=description, spec=spec.text)


def from_description(description: Mapping[str, Any], path: Path, *, spec: str) -> SsdDetector:
    """Build what `SsdDetector.save` wrote into `path`.

    Raises:
        InputError: an architecture that this version does not know.
    """
    name = description.get("architecture")
    if name not in _BUILDERS:
        raise InputError(
            f"detector: {path} holds the architecture {name!r}; expected curator-ssd, "
            f"{' or '.join(_BUILDERS)}"
        )
    network = _fresh(str(name), len(description["classes"]) + 1, 0)
    load_into(network, read_state(path), str(path))
    return SsdDetector(network, description["classes"], description=description, spec=spec)


def _fresh(name: str, count: int, seed: int) -> SSD:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _BUILDERS[name](weights=None, weights_backbone=None, num_classes=count)


def _count_classes(state: Mapping[str, Tensor], name: str, source: str) -> int:
    """Classes with background: the first classification layer's outputs over its boxes per cell."""
    prefix = "head.classification_head.module_list.0"
    outputs = [
        value
        for key, value in state.items()
        if key.startswith(prefix) and key.endswith("bias") and value.ndim == 1
    ]
    if not outputs:
        raise InputError(f"weights: {source} lacks {prefix}; expected a state dict of torchvision's {name}")
    per_cell = 4 if name == "ssd300_vgg16" else 6
    return len(outputs[-1]) // per_cell


def _class_names(names: tuple[str, ...], count: int, source: str) -> tuple[str, ...]:
    if not names and count == len(_COCO) + 1:
        return _COCO
    if len(names) != count - 1:
        raise InputError(
            f"classes: {source} was trained with {count - 1} classes, got {len(names)} names; "
            f"give classes=a,b,... in label order, or head=new for classes of your own"
        )
    return names


def _load_all_but_head(network: SSD, path: Path) -> None:
    state = {key: value for key, value in read_state(path).items() if not key.startswith("head.")}
    own = network.state_dict()
    head = {key: value for key, value in own.items() if key.startswith("head.")}
    load_into(network, {**state, **head}, str(path))


def _load_vgg(network: SSD, path: Path) -> None:
    """Copy VGG-16's 13 convolutions, in order; torchvision's SSD splits them over two modules."""
    state = read_state(path)
    names = sorted(
        (key for key in state if key.startswith("features.") and key.endswith(".weight")),
        key=lambda key: int(key.split(".")[1]),
    )
    layers = [module for module in network.backbone.modules() if isinstance(module, nn.Conv2d)][: len(names)]
    if len(names) != 13 or any(
        layer.weight.shape != state[name].shape for name, layer in zip(names, layers, strict=True)
    ):
        raise InputError(f"backbone: {path} does not hold VGG-16's 13 convolutions features.N.weight")
    with torch.no_grad():
        for name, layer in zip(names, layers, strict=True):
            layer.weight.copy_(state[name])
            if layer.bias is not None:
                layer.bias.copy_(state[name.replace(".weight", ".bias")])
