"""Small RetinaNet, FCOS and Faster R-CNN over any torchvision backbone, beside the small SSD.

In: `curator:retinanet?classes=a,b&size=192&...`, `curator:fcos?...`, `curator:faster_rcnn?...` (fresh
weights), or what their `save` wrote. Out: the family's adapter.

Options:
    classes            comma-separated names, required
    size               side of the square input, px, rounded up to a multiple of 32 (192)
    backbone           tiny, or a torchvision classifier such as squeezenet1_1, resnet18
    channels           tiny only: of the strides 2, 4, 8, 16, 32 (24,48,96,128,128)
    width              channels of every pyramid level and of the heads, a multiple of 32 (64)
    anchors            RetinaNet, Faster R-CNN: sides in px of each level's smallest anchor and, last, of the
                       next one (16,38,80,136); a level has two sides, the second halfway to the next level's
    ratios             RetinaNet, Faster R-CNN: height over width of the anchors (0.5,1,2)
    convolutions       FCOS: layers of each head's tower (2); RetinaNet has torchvision's four
    proposals          Faster R-CNN: proposals per image (100)
    top_down           1 adds coarser maps to finer ones (1)
    nms_iou, detections    NMS threshold (0.5) and per-image limit (100)
    seed               of the fresh weights (0)
    backbone_weights   tiny: a small SSD's file, whose backbone is taken over; others: a classifier's
                       .safetensors or .pth in torchvision's layout
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import MultiScaleRoIAlign

from curator.config import require
from curator.detect.backbones import TinyBackbone, TorchvisionBackbone
from curator.detect.dense import DenseDetector
from curator.detect.faster_rcnn import FasterRcnnDetector
from curator.detect.fcos import FcosDetector
from curator.detect.retinanet import RetinaNetDetector
from curator.detect.weights import load_into, read_state
from curator.errors import ConfigError, InputError
from curator.registry import Spec


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """Architecture of a small pyramid detector; stored in the weights' metadata. See the module."""

    classes: tuple[str, ...]
    size: int = 192
    backbone: str = "tiny"
    channels: tuple[int, ...] = (24, 48, 96, 128, 128)
    width: int = 64
    anchors: tuple[float, ...] = (16.0, 38.0, 80.0, 136.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    convolutions: int = 2
    proposals: int = 100
    top_down: bool = True
    nms_iou: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        require(len(self.classes) > 0, "classes: expected at least one, as in classes=car,bus")
        require(
            len(set(self.classes)) == len(self.classes),
            f"classes: expected distinct names, got {self.classes}",
        )
        require(32 <= self.size <= 4096, f"size: expected 32 to 4096 px, got {self.size}")
        require(
            self.width >= 32 and self.width % 32 == 0,
            f"width: expected a multiple of 32 (the heads normalise in 32 groups), got {self.width}",
        )
        require(
            len(self.anchors) >= 2 and list(self.anchors) == sorted(self.anchors) and self.anchors[0] > 0,
            f"anchors: expected at least two rising sides in px, got {self.anchors}",
        )
        require(
            self.backbone != "tiny" or len(self.anchors) == 4,
            f"anchors: the tiny backbone has three levels and needs four sides, got {self.anchors}",
        )
        for name in ("convolutions", "proposals", "detections"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")

    @classmethod
    def from_text(cls, options: Mapping[str, str]) -> Self:
        """Read a spec's options.

        Raises:
            ConfigError: a value of the wrong kind, or no classes.
        """
        values: dict[str, Any] = {}
        for name, text in options.items():
            try:
                values[name] = _CONVERTERS[name](text)
            except ValueError as error:
                raise ConfigError(f"{name}: expected numbers, comma-separated, got {text!r}") from error
        require("classes" in values, "curator: name the classes, as in curator:retinanet?classes=car,bus")
        return cls(**values)

    @classmethod
    def from_description(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `save` stored."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**values)


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "classes": lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
    "channels": lambda text: tuple(int(value) for value in text.split(",")),
    "anchors": lambda text: tuple(float(value) for value in text.split(",")),
    "ratios": lambda text: tuple(float(value) for value in text.split(",")),
    "top_down": lambda text: bool(int(text)),
    "backbone": str,
    "nms_iou": float,
    **dict.fromkeys(("size", "width", "convolutions", "proposals", "detections"), int),
}


class EqualWidth(nn.Module):
    """A backbone whose levels are all brought to `width` channels by a 1 x 1 convolution."""

    def __init__(self, inner: TinyBackbone | TorchvisionBackbone, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inner.out_channels)
        self.out_channels = width

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.inner(x).values()
        return OrderedDict(
            (str(i), lateral(values))
            for i, (lateral, values) in enumerate(zip(self.lateral, maps, strict=True))
        )


def _retinanet(backbone: nn.Module, options: PyramidOptions, **common: Any) -> RetinaNet:
    anchors = _anchors(options)
    head = RetinaNetHead(
        options.width,
        anchors.num_anchors_per_location()[0],
        len(options.classes) + 1,
        norm_layer=partial(nn.GroupNorm, 32),
    )
    return RetinaNet(
        backbone,
        len(options.classes) + 1,
        anchor_generator=anchors,
        head=head,
        nms_thresh=options.nms_iou,
        detections_per_img=options.detections,
        **common,
    )


def _fcos(backbone: nn.Module, options: PyramidOptions, **common: Any) -> FCOS:
    strides = tuple((8 * 2**level,) for level in range(len(options.anchors) - 1))
    head = FCOSHead(options.width, 1, len(options.classes) + 1, options.convolutions)
    # Distances are rectified and in strides: from 0, half of a fresh head's would have no gradient.
    nn.init.ones_(head.regression_head.bbox_reg.bias)
    return FCOS(
        backbone,
        len(options.classes) + 1,
        anchor_generator=AnchorGenerator(strides, ((1.0,),) * len(strides)),
        head=head,
        nms_thresh=options.nms_iou,
        detections_per_img=options.detections,
        **common,
    )


def _faster_rcnn(backbone: nn.Module, options: PyramidOptions, **common: Any) -> FasterRCNN:
    names = [str(level) for level in range(len(options.anchors) - 1)]
    resolution, representation = 5, 4 * options.width
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=_anchors(options),
        rpn_pre_nms_top_n_train=4 * options.proposals,
        rpn_pre_nms_top_n_test=4 * options.proposals,
        rpn_post_nms_top_n_train=2 * options.proposals,
        rpn_post_nms_top_n_test=options.proposals,
        rpn_batch_size_per_image=64,
        rpn_fg_iou_thresh=0.6,
        box_roi_pool=MultiScaleRoIAlign(names, resolution, 2, canonical_scale=_CANONICAL),
        box_head=TwoMLPHead(options.width * resolution**2, representation),
        box_predictor=FastRCNNPredictor(representation, len(options.classes) + 1),
        box_batch_size_per_image=64,
        box_nms_thresh=options.nms_iou,
        box_detections_per_img=options.detections,
        **common,
    )


_CANONICAL = 96  # px: smaller boxes are pooled at stride 8, up to twice as large ones at 16, the rest at 32
_BUILDERS: dict[str, tuple[Callable[..., nn.Module], type[DenseDetector | FasterRcnnDetector]]] = {
    "retinanet": (_retinanet, RetinaNetDetector),
    "fcos": (_fcos, FcosDetector),
    "faster_rcnn": (_faster_rcnn, FasterRcnnDetector),
}
FAMILIES = tuple(_BUILDERS)
_ARCHITECTURES = {f"curator-{family}": family for family in FAMILIES}


def make_network(family: str, options: PyramidOptions) -> nn.Module:
    """Build the network; weights come from torch's global generator (see `make_detector`)."""
    levels = len(options.anchors) - 1
    size = 32 * math.ceil(options.size / 32)
    inner = (
        TinyBackbone(options.channels, top_down=options.top_down)
        if options.backbone == "tiny"
        else TorchvisionBackbone(options.backbone, size=size, levels=levels, top_down=options.top_down)
    )
    builder, _ = _BUILDERS[family]
    return builder(EqualWidth(inner, options.width), options, fixed_size=(size, size))


def make_detector(
    family: str,
    options: PyramidOptions,
    *,
    seed: int = 0,
    backbone_weights: Path | None = None,
    spec: str = "",
) -> DenseDetector | FasterRcnnDetector:
    """Build a detector with fresh weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = make_network(family, options)
    if backbone_weights is not None:
        _load_backbone(network, options, backbone_weights)
    description = {"architecture": f"curator-{family}", "options": asdict(options)}
    return _BUILDERS[family][1](network, options.classes, description=description, spec=spec)


def is_saved(description: Mapping[str, Any]) -> bool:
    """Whether one of this module's detectors stored `description`."""
    return description.get("architecture") in _ARCHITECTURES


def load_saved(
    description: Mapping[str, Any], path: Path, *, spec: str
) -> DenseDetector | FasterRcnnDetector:
    """Load what `save` wrote into `path`.

    Raises:
        InputError: weights that do not fit their description.
    """
    family = _ARCHITECTURES[str(description["architecture"])]
    options = PyramidOptions.from_description(description["options"])
    with torch.random.fork_rng(devices=[]):  # the drawn weights are replaced at once
        network = make_network(family, options)
    load_into(network, read_state(path), str(path))
    return _BUILDERS[family][1](network, options.classes, description=description, spec=spec)


def build(spec: Spec) -> DenseDetector | FasterRcnnDetector:
    """`curator:retinanet?...`, `curator:fcos?...` or `curator:faster_rcnn?...`."""
    own = [field.name for field in fields(PyramidOptions)]
    spec.only([*own, "seed", "backbone_weights"])
    options = PyramidOptions.from_text({key: value for key, value in spec.options.items() if key in own})
    seed = spec.options.get("seed", "0")
    require(seed.isdecimal(), f"seed: expected a whole number, got {seed!r}")
    weights = spec.options.get("backbone_weights")
    return make_detector(
        spec.name,
        options,
        seed=int(seed),
        backbone_weights=Path(weights) if weights else None,
        spec=spec.text,
    )


def _anchors(options: PyramidOptions) -> AnchorGenerator:
    sides = tuple((a, math.sqrt(a * b)) for a, b in pairwise(options.anchors))
    return AnchorGenerator(sides, (options.ratios,) * len(sides))


def _load_backbone(network: nn.Module, options: PyramidOptions, path: Path) -> None:
    """Take over a small SSD's backbone, or a classifier's body; what is not needed is ignored."""
    state = read_state(path)
    tiny = options.backbone == "tiny"
    target = network.get_submodule("backbone.inner" if tiny else "backbone.inner.body")
    prefixes: Sequence[str] = ("backbone.",) if tiny else ("features.", "")
    own, found = target.state_dict(), {}
    for name, value in own.items():
        stored = next((state[p + name] for p in prefixes if p + name in state), None)
        if stored is None or stored.shape != value.shape:
            raise InputError(
                f"backbone_weights: {path} lacks {name} {tuple(value.shape)} of {options.backbone}; expected "
                + ("a small SSD with the same channels" if tiny else "torchvision's layout")
            )
        found[name] = stored.to(value.dtype)
    target.load_state_dict(found)
