"""The project's small SSD: a few hundred thousand to a few million parameters, any torchvision backbone.

In: `curator:ssd?classes=a,b&size=192&...` (fresh weights), `curator:PATH.safetensors` (architecture and
classes are in its metadata), `builtin:` (the built-in example's detector). Out: an `SsdDetector`, or what the
file holds (`small_pyramid` has the other families).

Options of `curator:ssd`:
    classes            comma-separated names, required
    size               side of the square input, px (192)
    backbone           tiny, or a torchvision classifier such as squeezenet1_1, resnet18
    channels           tiny only: of the strides 2, 4, 8, 16, 32 (24,48,96,128,128)
    anchors            sides in px of each level's smallest default box and, last, of the next
                       one (16,38,80,136)
    ratios             aspect ratios r, each giving boxes r:1 and 1:r (2)
    top_down           1 adds coarser maps to finer ones (1)
    match_iou, nms_iou, top_k, detections    anchor matching, NMS threshold, per-class and per-image limits
    seed               of the fresh weights (0)
    backbone_weights   PATH of a classifier's .safetensors or .pth in torchvision's layout
    backbone_pixels    what that classifier saw: imagenet (RGB, mean and deviation) or caffe (BGR 0-255 minus
                       (104, 117, 123); its first convolution is turned to RGB once, here)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from curator.config import require
from curator.detect.backbones import TinyBackbone, TorchvisionBackbone
from curator.detect.base import Detector
from curator.detect.ssd import SsdDetector
from curator.detect.weights import load_into, read_description, read_state
from curator.errors import ConfigError, InputError
from curator.registry import DETECTORS, Spec

BUILTIN = Path(__file__).resolve().parent.parent / "example" / "weights" / "detector.safetensors"
PIXELS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "caffe": ([123 / 255, 117 / 255, 104 / 255], [1 / 255] * 3),
}


@dataclass(frozen=True, kw_only=True)
class SsdOptions:
    """Architecture of a small SSD; stored in the weights' metadata. See the module for the meanings."""

    classes: tuple[str, ...]
    size: int = 192
    backbone: str = "tiny"
    channels: tuple[int, ...] = (24, 48, 96, 128, 128)
    anchors: tuple[float, ...] = (16.0, 38.0, 80.0, 136.0)
    ratios: tuple[float, ...] = (2.0,)
    top_down: bool = True
    match_iou: float = 0.5
    nms_iou: float = 0.45
    top_k: int = 400
    detections: int = 200
    backbone_pixels: Literal["imagenet", "caffe"] = "imagenet"

    def __post_init__(self) -> None:
        require(len(self.classes) > 0, "classes: expected at least one, as in curator:ssd?classes=car,bus")
        require(
            len(set(self.classes)) == len(self.classes),
            f"classes: expected distinct names, got {self.classes}",
        )
        require(32 <= self.size <= 4096, f"size: expected 32 to 4096 px, got {self.size}")
        require(
            len(self.anchors) >= 2 and list(self.anchors) == sorted(self.anchors) and self.anchors[0] > 0,
            f"anchors: expected at least two rising sides in px, got {self.anchors}",
        )
        require(
            self.backbone != "tiny" or len(self.anchors) == 4,
            f"anchors: the tiny backbone has three levels and needs four sides, got {self.anchors}",
        )
        require(
            self.backbone_pixels in PIXELS,
            f"backbone_pixels: expected imagenet or caffe, got {self.backbone_pixels!r}",
        )

    @classmethod
    def from_text(cls, options: Mapping[str, str]) -> Self:
        """Read a spec's options.

        Raises:
            ConfigError: a value of the wrong kind.
        """
        converters: dict[str, Any] = {
            "classes": _names,
            "channels": lambda text: tuple(int(value) for value in text.split(",")),
            "anchors": _floats,
            "ratios": _floats,
            "top_down": lambda text: bool(int(text)),
            "size": int,
            "top_k": int,
            "detections": int,
            "match_iou": float,
            "nms_iou": float,
        }
        values: dict[str, Any] = {}
        for name, text in options.items():
            try:
                values[name] = converters.get(name, str)(text)
            except ValueError as error:
                raise ConfigError(f"{name}: expected numbers, comma-separated, got {text!r}") from error
        require("classes" in values, "curator:ssd needs classes, as in curator:ssd?classes=car,bus")
        return cls(**values)

    @classmethod
    def from_description(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `SsdDetector.save` stored."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**values)


def make_network(options: SsdOptions) -> SSD:
    """Build the network; weights come from torch's global generator (see `make_detector`)."""
    backbone: nn.Module
    if options.backbone == "tiny":
        backbone = TinyBackbone(options.channels, top_down=options.top_down)
    else:
        backbone = TorchvisionBackbone(
            options.backbone, size=options.size, levels=len(options.anchors) - 1, top_down=options.top_down
        )
    levels = len(options.anchors) - 1
    anchors = DefaultBoxGenerator(
        [list(options.ratios) for _ in range(levels)],
        scales=[side / options.size for side in options.anchors],
    )
    mean, deviation = PIXELS[options.backbone_pixels]
    return SSD(
        backbone,
        anchors,
        (options.size, options.size),
        len(options.classes) + 1,
        image_mean=mean,
        image_std=deviation,
        iou_thresh=options.match_iou,
        nms_thresh=options.nms_iou,
        topk_candidates=options.top_k,
        detections_per_img=options.detections,
    )


def make_detector(
    options: SsdOptions, *, seed: int = 0, backbone_weights: Path | None = None, spec: str = ""
) -> SsdDetector:
    """Build a detector with fresh weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = make_network(options)
    if backbone_weights is not None:
        _load_backbone(network, options, backbone_weights)
    return SsdDetector(network, options.classes, description=_describe(options), spec=spec)


def load_detector(path: Path, *, spec: str = "") -> Detector:
    """Load what a detector's `save` wrote, whatever its architecture.

    Raises:
        InputError: no such file, or not written by curator.
    """
    description = read_description(path)
    if description.get("architecture") == "ultralytics":
        return cast(Detector, DETECTORS.load("ultralytics")(Spec("ultralytics", str(path), {}, spec)))
    if description.get("architecture") != "curator-ssd":
        from curator.detect import small_pyramid, torchvision

        if small_pyramid.is_saved(description):
            return small_pyramid.load_saved(description, path, spec=spec)
        return torchvision.from_description(description, path, spec=spec)
    options = SsdOptions.from_description(description["options"])
    with torch.random.fork_rng(devices=[]):  # the drawn weights are replaced at once
        network = make_network(options)
    load_into(network, read_state(path), str(path))
    return SsdDetector(network, options.classes, description=description, spec=spec)


def build(spec: Spec) -> Detector:
    """`curator:ssd?...`, one of `small_pyramid`'s families, or `curator:PATH.safetensors`."""
    from curator.detect import small_pyramid

    if spec.name in small_pyramid.FAMILIES:
        return small_pyramid.build(spec)
    if spec.name != "ssd":
        spec.only(())
        return load_detector(Path(spec.name), spec=spec.text)
    own = [field.name for field in fields(SsdOptions)]
    spec.only([*own, "seed", "backbone_weights"])
    options = SsdOptions.from_text({key: value for key, value in spec.options.items() if key in own})
    seed = spec.options.get("seed", "0")
    require(seed.isdecimal(), f"seed: expected a whole number, got {seed!r}")
    weights = spec.options.get("backbone_weights")
    return make_detector(
        options, seed=int(seed), backbone_weights=Path(weights) if weights else None, spec=spec.text
    )


def build_builtin(spec: Spec) -> Detector:
    """`builtin:` or `builtin:?weights=PATH`.

    Raises:
        InputError: the shipped weights are absent.
    """
    spec.only(("weights",))
    path = Path(spec.options["weights"]) if "weights" in spec.options else BUILTIN
    if not path.is_file():
        raise InputError(
            f"builtin: expected the example's detector at {path}, found none; train it with "
            f"`curator example train-detector`"
        )
    return load_detector(path, spec=spec.text)


def _describe(options: SsdOptions) -> dict[str, Any]:
    return {"architecture": "curator-ssd", "options": asdict(options)}


def _load_backbone(network: SSD, options: SsdOptions, path: Path) -> None:
    """Load a classifier's weights into the backbone's body; what the body does not have is ignored."""
    if options.backbone == "tiny":
        raise ConfigError("backbone_weights: the tiny backbone has none; name a torchvision backbone")
    state = read_state(path)
    own = cast(TorchvisionBackbone, network.backbone).body.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in own.items():
        stored = state.get(f"features.{name}", state.get(name))
        if stored is None or stored.shape != value.shape:
            raise InputError(
                f"backbone_weights: {path} lacks {name} {tuple(value.shape)} of "
                f"{options.backbone}; expected torchvision's layout"
            )
        found[name] = stored.to(value.dtype)
    if options.backbone_pixels == "caffe":
        first = next(name for name, value in found.items() if value.ndim == 4 and value.shape[1] == 3)
        found[first] = found[first].flip(1)
    network.backbone.body.load_state_dict(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split(","))
