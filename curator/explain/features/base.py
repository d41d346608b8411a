"""Filters' responses and the fitted interpretation: what fitting and the method `vebi` share.

    symbol      paper (Oramas et al., ICLR 2019)       here
    x_i         3.1, filter-wise responses             `descriptors`: one row per box, (n, m)
    m           number of filters of all layers        sum of the layers' channels
    W, w_j      eq. (1), relevance per class           `Interpretation.weights` (m, C)
    r = w_j o x 3.2, weighted response                 `Interpretation.relevant`

In: a detector's network and an image. Out: each layer's response (B, C, h, w) in the autograd graph, its
descriptor x, and the weights as a safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from curator.detect.base import Detector
from curator.errors import ConfigError, InputError
from store.records import Pin

Source = Literal["conv", "levels"]
Pooling = Literal["box", "image"]

MODEL_FILE = "interpretation.safetensors"
_FORMAT = "curator-interpretation-1"
_FOLLOWERS = (
    *(nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.ELU, nn.Mish),
)  # what belongs to the convolution right before it
_TINY = 1e-12  # a layer that is silent in a box has no profile to normalise


class Responses:
    """Records the responses of a network's convolutions while it is entered.

    A layer is a `Conv2d` module's name, with "#1", "#2", ... for further calls of one module (a head that all
    levels share). Its response is what leaves the batch normalisation and activation modules that follow it
    directly: raw convolution outputs would measure the normalised-away mean. Downstream gets a clone, so that
    in-place operations do not change what was recorded.

    Args:
        layers: record these alone; None records all.
    Attributes:
        values: per layer (B, C, h, w), in the graph of the forward pass.
        inputs: what the convolutions were given.
    """

    def __init__(self, network: nn.Module, layers: Collection[str] | None = None) -> None:
        self.values: dict[str, Tensor] = {}
        self.inputs: list[Tensor] = []
        self._wanted = None if layers is None else frozenset(layers)
        self._passed_on: dict[int, tuple[str, Tensor]] = {}  # by id; holds the tensor, so ids stay unique
        self._calls: dict[str, int] = {}
        self._network = network
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._network.named_modules():
            if isinstance(module, nn.Conv2d):
                self._handles.append(module.register_forward_hook(self._convolution(name)))
            elif isinstance(module, _FOLLOWERS):
                self._handles.append(module.register_forward_hook(self._follower))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._passed_on.clear()

    def _convolution(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            call = self._calls[name] = self._calls.get(name, 0) + 1
            self.inputs.append(inputs[0])
            layer = name if call == 1 else f"{name}#{call - 1}"
            if self._wanted is not None and layer not in self._wanted:
                return None
            return self._record(layer, output)

        return hook

    def _follower(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        layer, _ = self._passed_on.pop(id(inputs[0]), (None, None))
        return None if layer is None else self._record(layer, output)

    def _record(self, layer: str, output: Tensor) -> Tensor:
        self.values[layer] = output
        twin = output.clone()
        self._passed_on[id(twin)] = (layer, twin)
        return twin


def responses(
    detector: Detector, u: Tensor, pin: Pin, *, source: Source, layers: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Responses of a detector's layers to one image.

    Args:
        u: (1, 3, h, w) in the input frame; with `requires_grad` the responses are in its graph.
        source: "conv" (every convolution but the last ones) or "levels" (the detector's feature levels).
        layers: those of `inner_layers`; None gives all of the source.
    Returns:
        per layer (1, C, h, w).
    Raises:
        ConfigError: a black box, or layers that this detector does not have.
    """
    network = detector.modules()
    if network is None:
        raise ConfigError(
            f"interpret: expected a detector with a network to look into, got the black box {detector.spec}"
        )
    if source == "levels":
        empty = torch.zeros(0, dtype=torch.int64, device=u.device)
        found = detector.candidates(u, pin, index=empty, levels=detector.levels).features
        values = {name: found[name].values for name in detector.levels}
    else:
        with Responses(network, layers) as recorder:
            detector.candidates(u, pin, index=torch.zeros(1, dtype=torch.int64, device=u.device))
        values = recorder.values
    missing = [layer for layer in layers or () if layer not in values]
    if missing:
        raise ConfigError(
            f"interpret: {detector.spec} has no layer {missing[0]}; run curator interpret again"
        )
    return {layer: values[layer] for layer in layers} if layers is not None else values


def inner_layers(detector: Detector, u: Tensor, pin: Pin, source: Source) -> tuple[str, ...]:
    """The layers to interpret: all but those "whose output is directly related to the classes" (3.1).

    A convolution is inner when another convolution's input depends on its response, which autograd knows.
    Left out too are layers of one cell (squeeze-and-excitation), which have no place in the image, and layers
    that run per proposal.

    Args:
        u: (1, 3, h, w).
    Raises:
        ConfigError: a black box, or a network without inner layers.
    """
    network = detector.modules()
    if source == "levels" or network is None:
        names = tuple(responses(detector, u, pin, source="levels" if network is not None else source))
    else:
        leaf = u.detach().clone().requires_grad_(True)
        with torch.enable_grad(), Responses(network) as recorder:
            detector.candidates(leaf, pin, index=torch.zeros(1, dtype=torch.int64, device=u.device))
            total = leaf.new_zeros(()) + sum(given.sum() for given in recorder.inputs)
        places = {
            layer: value
            for layer, value in recorder.values.items()
            if len(value) == 1 and value.requires_grad and value.shape[-2] * value.shape[-1] > 1
        }
        found = torch.autograd.grad(total, list(places.values()), allow_unused=True) if places else ()
        names = tuple(layer for layer, used in zip(places, found, strict=True) if used is not None)
    if not names:
        raise ConfigError(
            f"interpret: {detector.spec} has no inner layers of source {source!r}; "
            f"use --layers {'conv' if source == 'levels' else 'levels'}"
        )
    return names


def cover(
    boxes: NDArray[np.float32], size: tuple[int, int], input_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """How much of each row (n, h) and column (n, w) of a map lies in each box, 0 to 1.

    Args:
        boxes: (n, 4) input frame. size: (h, w) of the map, whose cells divide the input of `input_size`.
    """

    def along(low: NDArray[np.float32], high: NDArray[np.float32], cells: int, length: int) -> Tensor:
        edges = np.arange(cells + 1) * (length / cells)
        inside = np.minimum(high[:, None], edges[None, 1:]) - np.maximum(low[:, None], edges[None, :-1])
        return torch.from_numpy((inside.clip(0) * (cells / length)).astype(np.float32))

    return (
        along(boxes[:, 1], boxes[:, 3], size[0], input_size[0]),
        along(boxes[:, 0], boxes[:, 2], size[1], input_size[1]),
    )


def descriptors(
    values: Mapping[str, Tensor], boxes: NDArray[np.float32], input_size: tuple[int, int]
) -> NDArray[np.float32]:
    """x: each channel's L2 norm inside the box, L1-normalised per layer, the layers one after the other.

    Args:
        values: per layer (1, C, h, w). boxes: (n, 4) input frame; the whole input for a response per image.
    Returns:
        (n, m), non-negative; a layer's part sums to 1, or is 0 where the layer is silent.
    """
    parts = []
    for value in values.values():
        rows, columns = cover(boxes, (int(value.shape[-2]), int(value.shape[-1])), input_size)
        squares = value.detach()[0].float().cpu() ** 2  # (C, h, w)
        energy = torch.einsum("nh,chw,nw->nc", rows, squares, columns).sqrt()
        parts.append(energy / energy.sum(1, keepdim=True).clamp_min(_TINY))
    return np.asarray(torch.cat(parts, 1).numpy(), dtype=np.float32)


def input_boxes(boxes: NDArray[Any], pin: Pin, pooling: Pooling) -> NDArray[np.float32]:
    """Boxes (n, 4) of the stored image in the input frame; the whole input for pooling "image"."""
    if pooling == "image":
        h, w = pin.input_size
        return np.tile(np.array([0, 0, w, h], np.float32), (len(boxes), 1))
    return np.asarray(pin.to_input(boxes), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpretation:
    """Relevance weights of a detector's filters.

    Attributes:
        weights: W (m, C) float32, ||w_j||_1 <= mu.
        layers, channels: the layers in the order of x, with their numbers of filters.
        classes: the detector's, in label order. samples: (C,) how many objects each was fitted on.
        fingerprint: of the detector. key: hash of everything that was fitted.
    """

    weights: NDArray[np.float32]
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    classes: tuple[str, ...]
    samples: tuple[int, ...]
    mu: float
    source: Source
    pooling: Pooling
    fingerprint: str
    key: str

    def filter_of(self, feature: int) -> tuple[str, int]:
        """Feature number -> (layer, channel): the paper's (p*, q*)."""
        starts = np.concatenate([[0], np.cumsum(self.channels)])
        number = int(np.searchsorted(starts, feature, side="right")) - 1
        return self.layers[number], int(feature - starts[number])

    def relevant(self, label: int, x: NDArray[np.float32], count: int) -> list[tuple[int, float]]:
        """The `count` features of largest r = w_label o x (section 3.2), those with r > 0 alone.

        Args:
            x: (m,) one descriptor.
        Returns:
            (feature, r), strongest first; ties by number.
        """
        r = self.weights[:, label].astype(np.float64) * x
        order = np.argsort(-r, kind="stable")[:count]
        return [(int(feature), float(r[feature])) for feature in order if r[feature] > 0]

    def save(self, path: Path) -> None:
        """Write a safetensors file (temporary file, then rename)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {name: value for name, value in asdict(self).items() if name != "weights"}
        temporary = path.with_name(f".{path.name}.part")
        metadata = {_FORMAT: json.dumps(stored)}  # one key: several are written in random order
        save_file({"weights": np.ascontiguousarray(self.weights)}, temporary, metadata=metadata)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; `path` may be the folder that `curator interpret` wrote.

        Raises:
            InputError: no such file, or not one of ours.
        """
        path = path / MODEL_FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"interpretation: expected a file at {path}, found none; fit one with "
                f"`curator interpret --detector SPEC --out DIR`"
            )
        try:
            with safe_open(path, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                if _FORMAT not in metadata:
                    raise InputError(
                        f"interpretation: {path} was not written by this version; fit it again with "
                        f"`curator interpret --detector SPEC --out DIR`"
                    )
                weights = opened.get_tensor("weights")
        except SafetensorError as error:
            raise InputError(f"interpretation: {path} is no safetensors file ({error})") from error
        stored = json.loads(metadata[_FORMAT])
        lists = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
        return cls(weights=weights, **{**stored, **lists})
