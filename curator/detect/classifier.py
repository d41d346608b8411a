"""Image classifiers as detectors: `classifier:NAME?weights=PATH&classes=...`.

In: a torchvision classification model's name (or `timm/NAME`, where timm is installed) and its weights. Out:
a `Detector` with one candidate, whose box is the whole image and whose score for class c is softmax(z)[c], so
that methods and tables of papers that explain classifiers can be run. Images are stretched to one square.

Options:
    weights     PATH of a .safetensors or .pth state dict, or `random`
    classes     comma-separated names, or PATH of a text file with a name per line; ImageNet's by default
    size        side of the square input, px (224)
    pixels      what the network saw: imagenet (RGB, mean and deviation), unit (RGB [0, 1]) or caffe (BGR
                0-255 minus (104, 117, 123); its first convolution is turned to RGB once, here)
    seed        of random weights (0)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, get_model, list_models

from curator.config import require
from curator.detect.base import Candidates, FeatureMap
from curator.detect.checking import check_asked
from curator.detect.geometry import Affine, cell_affines
from curator.detect.heads import distinct, keep_fp32
from curator.detect.postprocess import softmax_log_odds
from curator.detect.pyramid import columns
from curator.detect.small_ssd import PIXELS
from curator.detect.weights import fingerprint, load_into, read_state
from curator.errors import InputError, RegistryError
from curator.registry import Spec
from store.records import Detections, Pin

_UNIT = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
_FINEST = 4  # stride of the finest map that is offered as a level


class ClassifierDetector:
    """A classification network behind the `Detector` protocol.

    Its levels are the last map of each resolution among its main stages, fine to coarse, by the stage's name.
    """

    plain_pin = True

    def __init__(
        self, network: nn.Module, classes: Sequence[str], *, size: int, pixels: str, spec: str
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        keep_fp32(list(network.children())[-1])
        self.classes = tuple(classes)
        self.size, self.spec = size, spec
        mean, deviation = {**PIXELS, "unit": _UNIT}[pixels]
        self.mean_color = (mean[0], mean[1], mean[2]) if pixels != "unit" else (0.5, 0.5, 0.5)
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (mean, deviation))
        self.device = torch.device("cpu")
        self.fingerprint = fingerprint(
            self.network, {"classes": list(self.classes), "size": size, "pixels": pixels}
        )
        self._stages = self._measure()
        self.levels = tuple(self._stages)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    def modules(self) -> nn.Module:
        """The classification network."""
        return self.network

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W), stretched to a square."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        return Pin(
            image_size=(height, width),
            input_size=(self.size, self.size),
            scale=(self.size / width, self.size / height),
        )

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, size, size) RGB [0, 1], bilinear with antialiasing."""
        image = image.to(self.device)
        if tuple(image.shape[-2:]) == pin.input_size:
            return image
        size = pin.input_size
        return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Every class above the threshold, best first, as a detection of the whole image."""
        if not images:
            return []
        pins = [self.pin(image) for image in images]
        batch = torch.stack([self.prepare(image, pin) for image, pin in zip(images, pins, strict=True)])
        results = []
        for values, pin in zip(self._logits(batch).softmax(-1), pins, strict=True):
            scores, labels = values.sort(descending=True, stable=True)
            count = int((scores > score_threshold).sum())
            height, width = pin.image_size
            found = Detections(
                boxes=np.tile(np.array([0, 0, width, height], np.float32), (count, 1)),
                scores=scores[:count].cpu().numpy(),
                labels=labels[:count].cpu().numpy(),
                candidates=np.zeros(count, np.int64),
            )
            results.append((found, pin))
        return results

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """The one candidate of masked inputs (B, 3, size, size), differentiable in `u`; index 0 is it."""
        check_asked(u, index, levels, self.levels)
        seen: dict[str, Tensor] = {}
        handles = [
            self.network.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: seen.__setitem__(name, output)
            )
            for name in levels
        ]
        try:
            logits = self._logits(u)[:, None]  # (B, 1, K)
        finally:
            for handle in handles:
                handle.remove()
        if index is not None:
            logits = logits[:, index.to(u.device)]
        height, width = pin.image_size
        boxes = logits.new_tensor([0.0, 0.0, width, height]).expand(*logits.shape[:2], 4)
        features = {name: FeatureMap(seen[name], *columns(self._stages[name])) for name in levels}
        return Candidates(logits.softmax(-1), softmax_log_odds(logits), boxes, features)

    def _logits(self, u: Tensor) -> Tensor:
        """u (B, 3, h, w) RGB [0, 1] -> (B, K) fp32."""
        normalised = ((u - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(normalised)
        return logits.float()

    def _measure(self) -> dict[str, Affine]:
        """Stages by name with their affine, from one run on a blank input."""
        prefix, parent = "", self.network
        features = getattr(self.network, "features", None)
        if isinstance(features, nn.Module):
            prefix, parent = "features.", features
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == 4:
                    shapes[name] = tuple(output.shape)

            return hook

        handles = [
            child.register_forward_hook(note(f"{prefix}{name}")) for name, child in parent.named_children()
        ]
        try:
            affines = cell_affines(self.network, self._logits, torch.zeros(1, 3, self.size, self.size))
        finally:
            for handle in handles:
                handle.remove()
        last: dict[int, str] = {}
        for name, shape in shapes.items():
            # Transformers' maps end in channels; those of a square input are told by their unequal sides.
            if shape[-1] == shape[-2] and 1 < shape[-1] <= self.size / _FINEST + 1:
                last[shape[-1]] = name
        stages: dict[str, Affine] = {}
        for side, name in sorted(last.items(), reverse=True):
            step = self.size / side
            stages[name] = affines.get((side, side)) or ((step, step / 2), (step, step / 2))
        return stages


def build(spec: Spec) -> ClassifierDetector:
    """Build the classifier that `spec` names; nothing is ever downloaded.

    Raises:
        RegistryError: an unknown model. InputError: weights that do not fit. ConfigError: wrong options.
    """
    spec.only(("weights", "classes", "size", "pixels", "seed"))
    options = spec.options
    source, pixels = options.get("weights"), options.get("pixels", "imagenet")
    require(
        source is not None,
        f"classifier: name the weights, as in classifier:{spec.name}?weights=PATH, or weights=random",
    )
    require(pixels in (*PIXELS, "unit"), f"pixels: expected {', '.join(PIXELS)} or unit, got {pixels!r}")
    for name, text in (("size", options.get("size", "224")), ("seed", options.get("seed", "0"))):
        require(text.isdecimal(), f"{name}: expected a whole number, got {text!r}")
    classes = _classes(options.get("classes"))
    network = make_network(spec.name, len(classes), int(options.get("seed", "0")))
    if source not in (None, "random"):
        state = read_state(Path(str(source)))
        if pixels == "caffe":
            first = next(n for n, v in network.state_dict().items() if v.ndim == 4 and v.shape[1] == 3)
            if first not in state:
                raise InputError(f"weights: {source} lacks {first}; expected the layout of {spec.name}")
            state[first] = state[first].flip(1)
        load_into(network, state, str(source))
    return ClassifierDetector(
        network, classes, size=int(options.get("size", "224")), pixels=pixels, spec=spec.text
    )


def make_network(name: str, count: int, seed: int) -> nn.Module:
    """A fresh classification network, torchvision's NAME or timm/NAME, with `count` outputs.

    Raises:
        RegistryError: no such network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name.startswith("timm/"):
            return _make_timm(name.removeprefix("timm/"), count)
        if "/" in name or name not in list_models():
            raise RegistryError(
                f"classifier: expected a torchvision classification model or timm/NAME, got {name!r}"
            )
        network: nn.Module = get_model(name, weights=None, num_classes=count)
    return network


def _make_timm(name: str, count: int) -> nn.Module:
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise RegistryError("classifier: timm/NAME needs the package timm; uv pip install timm") from error
    if name not in timm.list_models():
        raise RegistryError(f"classifier: timm has no model {name!r}")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=count)
    return network


def _classes(text: str | None) -> tuple[str, ...]:
    if text is None:
        return distinct(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    path = Path(text)
    names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return distinct(name.strip() for name in names if name.strip())
