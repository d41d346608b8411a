"""torchvision's own detectors: SSD, SSDLite, RetinaNet, FCOS, Faster R-CNN.

In: `torchvision:NAME?weights=PATH&classes=a,b`. Out: the family's adapter. Nothing is ever downloaded.

Options:
    weights     PATH of a .safetensors or .pth state dict, or `random`
    classes     comma-separated names without background; COCO's names where the weights have 91 classes
    head        new: load everything but the class-dependent layers from `weights`, for classes of your own
    backbone    PATH of the backbone's classification weights in torchvision's layout, with weights=random
                (VGG-16, ResNet-50 or MobileNetV3-Large; not for ssdlite320, whose backbone is reduced)
    min_size, max_size    sides in px to which images are resized (not for SSD and SSDLite)
    norm_eps    of the backbone's batch normalisation; torchvision's own COCO_V1 files of
                fasterrcnn_resnet50_fpn and retinanet_resnet50_fpn were trained with 0, others with 1e-5.
                By default 0 for those two where the weights have 91 classes
    seed        of fresh weights (0)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection

from curator.config import require
from curator.detect.base import Detector
from curator.detect.faster_rcnn import FasterRcnnDetector
from curator.detect.fcos import FcosDetector
from curator.detect.retinanet import RetinaNetDetector
from curator.detect.ssd import SsdDetector
from curator.detect.weights import load_into, read_state
from curator.errors import ConfigError, InputError, RegistryError
from curator.registry import Spec

_COCO: tuple[str, ...] = tuple(detection.SSD300_VGG16_Weights.COCO_V1.meta["categories"][1:])


@dataclass(frozen=True, slots=True)
class _Model:
    """How one torchvision model is built and read.

    Attributes:
        counted: the classification bias whose length, over `per_cell`, is the number of classes with
            background. head: prefixes of the layers that depend on the classes.
        exact_norm: torchvision's COCO weights of it were trained with a batch normalisation of eps 0.
    """

    build: Callable[..., nn.Module]
    adapter: Callable[..., Detector]
    counted: str
    per_cell: int
    head: str
    exact_norm: bool = False


_SSD = "head.classification_head.module_list.0"
_DENSE = "head.classification_head.cls_logits."
_BOX = "roi_heads.box_predictor."
_MODELS: dict[str, _Model] = {
    "ssd300_vgg16": _Model(detection.ssd300_vgg16, SsdDetector, _SSD, 4, "head."),
    "ssdlite320_mobilenet_v3_large": _Model(
        detection.ssdlite320_mobilenet_v3_large, SsdDetector, _SSD, 6, "head."
    ),
    "retinanet_resnet50_fpn": _Model(
        detection.retinanet_resnet50_fpn, RetinaNetDetector, _DENSE, 9, _DENSE, exact_norm=True
    ),
    "retinanet_resnet50_fpn_v2": _Model(
        detection.retinanet_resnet50_fpn_v2, RetinaNetDetector, _DENSE, 9, _DENSE
    ),
    "fcos_resnet50_fpn": _Model(detection.fcos_resnet50_fpn, FcosDetector, _DENSE, 1, _DENSE),
    "fasterrcnn_resnet50_fpn": _Model(
        detection.fasterrcnn_resnet50_fpn, FasterRcnnDetector, f"{_BOX}cls_score", 1, _BOX, exact_norm=True
    ),
    "fasterrcnn_resnet50_fpn_v2": _Model(
        detection.fasterrcnn_resnet50_fpn_v2, FasterRcnnDetector, f"{_BOX}cls_score", 1, _BOX
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": _Model(
        detection.fasterrcnn_mobilenet_v3_large_fpn, FasterRcnnDetector, f"{_BOX}cls_score", 1, _BOX
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _Model(
        detection.fasterrcnn_mobilenet_v3_large_320_fpn, FasterRcnnDetector, f"{_BOX}cls_score", 1, _BOX
    ),
}


def build(spec: Spec) -> Detector:
    """Build the detector that `spec` names.

    Raises:
        RegistryError: another model's name. InputError: weights or classes that do not fit.
        ConfigError: options that are missing or of the wrong kind.
    """
    spec.only(("weights", "classes", "head", "backbone", "seed", "min_size", "max_size", "norm_eps"))
    if spec.name not in _MODELS:
        raise RegistryError(f"torchvision: expected one of {', '.join(_MODELS)}, got {spec.name!r}")
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
    state = None if source in (None, "random") else _read(Path(str(source)), spec.name)
    if state is None or new_head:
        require(bool(names), f"torchvision: name the classes, as in torchvision:{spec.name}?classes=car,bus")
    else:
        names = _class_names(names, _count_classes(state, spec.name, str(source)), str(source))
    description = {"architecture": spec.name, "classes": list(names), **_settings(spec, state)}
    network = _fresh(description, int(seed))
    if state is not None:
        _load(network, state, str(source), without=_MODELS[spec.name].head if new_head else None)
    if "backbone" in options:
        require(
            state is None and spec.name != "ssdlite320_mobilenet_v3_large",
            "backbone: only with weights=random (and not for ssdlite320, which has a reduced backbone that "
            "ImageNet weights do not fit)",
        )
        load = _load_vgg if spec.name == "ssd300_vgg16" else _load_body
        load(network, Path(options["backbone"]))
    return _MODELS[spec.name].adapter(network, names, description=description, spec=spec.text)


def from_description(description: Mapping[str, Any], path: Path, *, spec: str) -> Detector:
    """Build what an adapter's `save` wrote into `path`.

    Raises:
        InputError: an architecture that this version does not know.
    """
    name = description.get("architecture")
    if name not in _MODELS:
        raise InputError(
            f"detector: {path} holds the architecture {name!r}; expected curator-ssd, {' or '.join(_MODELS)}"
        )
    network = _fresh(description, 0)
    load_into(network, read_state(path), str(path))
    return _MODELS[str(name)].adapter(network, description["classes"], description=description, spec=spec)


def _settings(spec: Spec, state: Mapping[str, Tensor] | None) -> dict[str, float]:
    """The options that change the architecture, those alone that differ from torchvision's."""
    found: dict[str, float] = {}
    for name in ("min_size", "max_size"):
        text = spec.options.get(name)
        if text is not None:
            require(
                _MODELS[spec.name].adapter is not SsdDetector,
                f"{name}: {spec.name} stretches every image to one size; leave it out",
            )
            require(text.isdecimal() and int(text) >= 32, f"{name}: expected at least 32 px, got {text!r}")
            found[name] = int(text)
    if "norm_eps" in spec.options:
        try:
            found["norm_eps"] = float(spec.options["norm_eps"])
        except ValueError as error:
            raise ConfigError(f"norm_eps: expected a number, got {spec.options['norm_eps']!r}") from error
    elif state is not None and _MODELS[spec.name].exact_norm:
        own = _count_classes(state, spec.name, spec.options["weights"]) == len(_COCO) + 1
        found |= {"norm_eps": 0.0} if own else {}
    return found


def _fresh(description: Mapping[str, Any], seed: int) -> nn.Module:
    model = _MODELS[str(description["architecture"])]
    sizes = {name: description[name] for name in ("min_size", "max_size") if name in description}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = model.build(
            weights=None, weights_backbone=None, num_classes=len(description["classes"]) + 1, **sizes
        )
    if "norm_eps" in description:
        for module in network.get_submodule("backbone").modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = float(description["norm_eps"])
    return network


def _read(path: Path, name: str) -> dict[str, Tensor]:
    """A state dict with the layer names of today's torchvision: its older files nest head layers less."""
    state = read_state(path)
    if name.startswith("retinanet"):
        pattern = re.compile(r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$")
        return {
            pattern.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", key): value
            for key, value in state.items()
        }
    if name.startswith("fasterrcnn"):
        pattern = re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$")
        return {pattern.sub(r"\1.0.0.\2", key): value for key, value in state.items()}
    return state


def _count_classes(state: Mapping[str, Tensor], name: str, source: str) -> int:
    """Classes with background: a classification layer's outputs over its boxes per cell."""
    model = _MODELS[name]
    outputs = [
        value
        for key, value in state.items()
        if key.startswith(model.counted) and key.endswith("bias") and value.ndim == 1
    ]
    if not outputs:
        raise InputError(
            f"weights: {source} lacks {model.counted}; expected a state dict of torchvision's {name}"
        )
    return len(outputs[-1]) // model.per_cell


def _class_names(names: tuple[str, ...], count: int, source: str) -> tuple[str, ...]:
    if not names and count == len(_COCO) + 1:
        return _COCO
    if len(names) != count - 1:
        raise InputError(
            f"classes: {source} was trained with {count - 1} classes, got {len(names)} names; "
            f"give classes=a,b,... in label order, or head=new for classes of your own"
        )
    return names


def _load(network: nn.Module, state: Mapping[str, Tensor], source: str, *, without: str | None) -> None:
    """Load `state`, except for the layers `without`; frozen batch normalisation counts no batches."""
    own = network.state_dict()
    kept = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    if without is not None:
        kept |= {key: value for key, value in own.items() if key.startswith(without)}
        state = {key: value for key, value in state.items() if not key.startswith(without)}
    load_into(network, {**kept, **state}, source)


def _load_vgg(network: nn.Module, path: Path) -> None:
    """Copy VGG-16's 13 convolutions, in order; torchvision's SSD splits them over two modules."""
    state = read_state(path)
    names = sorted(
        (key for key in state if key.startswith("features.") and key.endswith(".weight")),
        key=lambda key: int(key.split(".")[1]),
    )
    body = network.get_submodule("backbone")
    layers = [module for module in body.modules() if isinstance(module, nn.Conv2d)][: len(names)]
    if len(names) != 13 or any(
        layer.weight.shape != state[name].shape for name, layer in zip(names, layers, strict=True)
    ):
        raise InputError(f"backbone: {path} does not hold VGG-16's 13 convolutions features.N.weight")
    with torch.no_grad():
        for name, layer in zip(names, layers, strict=True):
            layer.weight.copy_(state[name])
            if layer.bias is not None:
                layer.bias.copy_(state[name.replace(".weight", ".bias")])


def _load_body(network: nn.Module, path: Path) -> None:
    """Load a classifier's weights into the body under the feature pyramid."""
    state = read_state(path)
    body = network.get_submodule("backbone.body")
    own = body.state_dict()
    found = {name: state.get(name, state.get(f"features.{name}")) for name in own}
    lacking = [name for name, value in found.items() if value is None or value.shape != own[name].shape]
    if lacking:
        raise InputError(
            f"backbone: {path} lacks {lacking[0]} {tuple(own[lacking[0]].shape)} ({len(lacking)} in all); "
            f"expected the classification weights of the same network in torchvision's layout"
        )
    body.load_state_dict({name: value for name, value in found.items() if value is not None})
