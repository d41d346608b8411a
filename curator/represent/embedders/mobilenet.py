"""MobileNet V1 with TensorFlow's weights (Howard et al., arXiv:1704.04861), up to its last depthwise layer.

In: tensors `conv1/kernel`, `conv_dw_N/depthwise_kernel`, `conv_pw_N/kernel`, `..._bn/{gamma, beta,
moving_mean, moving_variance}`; kernels (k, k, in, out), depthwise ones (k, k, channels, 1). Out: maps at
strides 4 to 32. Layers without weights end the network: a file may lack conv_pw_13.

TensorFlow pads an even side by one pixel right and below at stride 2, so that cells lie further right and
down than PyTorch's: with r the step and c the first centre, a layer of stride 2 gives c + r, 2 r.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curator.detect.base import FeatureMap
from curator.errors import InputError

_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # after conv_pw_1 to 13
_HALVES = (2, 4, 6, 12)  # conv_dw_N of stride 2
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_EPS = 1e-3
LEVELS = ("conv_pw_3", "conv_pw_5", "conv_pw_11", "conv_dw_13")  # the last map at strides 4, 8, 16, 32


class MobileNetV1(nn.Module):
    """The network; batch normalisation is folded into the convolutions."""

    def __init__(self, state: Mapping[str, Tensor], where: str) -> None:
        super().__init__()
        layers: dict[str, nn.Conv2d] = {"conv1": nn.Conv2d(3, 32, 3, stride=2)}
        channels = 32
        for number, width in enumerate(_WIDTHS, 1):
            stride = 2 if number in _HALVES else 1
            layers[f"conv_dw_{number}"] = nn.Conv2d(channels, channels, 3, stride=stride, groups=channels)
            if number < len(_WIDTHS):
                layers[f"conv_pw_{number}"] = nn.Conv2d(channels, width, 1)
            channels = width
        self.layers = nn.ModuleDict(layers)
        for name, layer in layers.items():
            _load(layer, name, state, where)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, FeatureMap]:
        """x (B, 3, h, w) RGB [0, 1], sides multiples of 32 -> the maps of `LEVELS`.

        A cell counts as centred on its own square, where the gradients of the trained weights are centred;
        the windows of the padded layers are centred up to half a cell farther.
        """
        values, step = x * 2 - 1, 1.0
        found = {}
        for name, layer in self.layers.items():
            if layer.kernel_size == (3, 3):
                values = F.pad(values, (0, 1, 0, 1) if layer.stride == (2, 2) else (1, 1, 1, 1))
            if layer.stride == (2, 2):
                step *= 2
            values = F.relu6(layer(values))
            if name in LEVELS:
                found[name] = FeatureMap(values, (step, step), (step / 2, step / 2))
        return found


def _load(layer: nn.Conv2d, name: str, state: Mapping[str, Tensor], where: str) -> None:
    """Fold gamma (x - mean) / sqrt(variance + eps) + beta into kernel and bias."""
    depthwise = name.startswith("conv_dw")
    kernel_name = f"{name}/depthwise_kernel" if depthwise else f"{name}/kernel"
    names = [kernel_name, *(f"{name}_bn/{part}" for part in _NORM)]
    lacking = [key for key in names if key not in state]
    if lacking:
        raise InputError(
            f"weights: {where} lacks {lacking[0]}; expected MobileNet V1 (width 1.0) in TensorFlow's layout"
        )
    kernel, gamma, beta, mean, variance = (state[key].float() for key in names)
    kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    if kernel.shape != layer.weight.shape:
        raise InputError(
            f"weights: {where}: {kernel_name}: expected {tuple(layer.weight.shape)} (out, in, k, k), got "
            f"{tuple(kernel.shape)}; expected MobileNet V1 of width 1.0"
        )
    scale = gamma / torch.sqrt(variance + _EPS)
    with torch.no_grad():
        layer.weight.copy_(kernel * scale[:, None, None, None])
        if layer.bias is not None:
            layer.bias.copy_(beta - mean * scale)
