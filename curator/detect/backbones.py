"""Backbones for the small SSD: a tiny one of our own, and any torchvision classifier's features.

In: normalised images (B, 3, h, w). Out: feature maps, fine to coarse, as an ordered dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models import get_model, list_models

from curator.errors import ConfigError


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class TopDown(nn.Module):
    """Adds each coarser map, upsampled, to the finer one (FPN's path, Lin et al., CVPR 2017).

    A small object's cell thus sees what surrounds it.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(channels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out = list(maps)
        for i in reversed(range(len(self.lateral))):
            above = F.interpolate(self.lateral[i](out[i + 1]), size=out[i].shape[-2:], mode="nearest")
            out[i] = F.relu(out[i] + above)
        return out


class TinyBackbone(nn.Module):
    """Five steps of stride 2; the maps of stride 8, 16 and 32 are the levels.

    Each step is a 4 x 4 convolution of stride 2 and padding 1, whose cells are centred on the blocks they
    halve, so the centre of a cell is the centre of its anchors. Steps that end in a level add a residual
    3 x 3 block.

    Args:
        channels: of the strides 2, 4, 8, 16, 32.
    """

    def __init__(self, channels: Sequence[int], *, top_down: bool = True) -> None:
        super().__init__()
        if len(channels) != 5 or min(channels) < 1:
            raise ConfigError(f"channels: expected five positive numbers (strides 2 to 32), got {channels}")
        self.steps = nn.ModuleList(
            _block(inputs, outputs, kernel=4, stride=2)
            for inputs, outputs in zip((3, *channels[:-1]), channels, strict=True)
        )
        self.residual = nn.ModuleList(_block(width, width) for width in channels[2:])
        self.top_down = TopDown(channels[2:]) if top_down else None
        self.out_channels = list(channels[2:])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps: list[Tensor] = []
        for i, step in enumerate(self.steps):
            x = step(x)
            if i >= 2:
                x = x + self.residual[i - 2](x)
                maps.append(x)
        if self.top_down is not None:
            maps = self.top_down(maps)
        return OrderedDict((f"level{i}", values) for i, values in enumerate(maps))


class TorchvisionBackbone(nn.Module):
    """The last feature map of each resolution of a torchvision classifier, and extra coarser levels.

    Args:
        name: a torchvision classification model, e.g. "squeezenet1_1", "resnet18".
        size: of the square input, px. levels: number of maps wanted.
        finest: the smallest stride to use.
    """

    def __init__(
        self, name: str, *, size: int, levels: int = 3, finest: float = 7.0, top_down: bool = True
    ) -> None:
        super().__init__()
        if name not in list_models():
            raise ConfigError(f"backbone: expected tiny or a torchvision classifier, got {name!r}")
        model = get_model(name, weights=None)
        # SqueezeNet and others end in a convolutional classifier, so take `features` where there is one
        body = model.features if isinstance(getattr(model, "features", None), nn.Module) else model
        self.body, channels = _cut(body, name, size=size, levels=levels, finest=finest)
        # classifiers without batch normalisation give maps of very different magnitudes
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in channels)
        self.extra = nn.ModuleList()
        while len(channels) < levels:
            self.extra.append(nn.Sequential(_block(channels[-1], 128), _block(128, 128, kernel=4, stride=2)))
            channels.append(128)
        self.top_down = TopDown(channels) if top_down else None
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [norm(values) for norm, values in zip(self.norms, self.body(x).values(), strict=True)]
        for block in self.extra:
            maps.append(block(maps[-1]))
        if self.top_down is not None:
            maps = self.top_down(maps)
        return OrderedDict((f"level{i}", values) for i, values in enumerate(maps))


class _Shapes(fx.Interpreter):
    """Runs a traced module and notes every feature map's node and shape."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: list[tuple[fx.Node, tuple[int, ...]]] = []

    def run_node(self, node: fx.Node) -> object:
        value = super().run_node(node)
        if isinstance(value, Tensor) and value.ndim == 4 and node.op not in ("placeholder", "output"):
            self.seen.append((node, tuple(value.shape)))
        return value


def _cut(
    body: nn.Module, name: str, *, size: int, levels: int, finest: float
) -> tuple[fx.GraphModule, list[int]]:
    """Rewire `body` to return the last map of each stride in [finest, 40], fine to coarse; and widths."""
    traced = fx.symbolic_trace(body.eval())
    shapes = _Shapes(traced)
    with torch.no_grad():
        shapes.run(torch.zeros(1, 3, size, size))
    last: dict[int, tuple[fx.Node, int]] = {}
    for node, shape in shapes.seen:
        if finest <= size / shape[-1] <= 40:
            last[shape[-1]] = (node, shape[1])
    chosen = [last[side] for side in sorted(last, reverse=True)][:levels]
    if not chosen:
        raise ConfigError(f"backbone: {name} has no feature map between stride {finest} and 40")
    output = next(node for node in traced.graph.nodes if node.op == "output")
    output.args = ({f"level{i}": node for i, (node, _) in enumerate(chosen)},)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, [width for _, width in chosen]
