"""Where the cells of a feature map lie in the input: receptive-field arithmetic, measured on the network.

In: a network and an input size. Out: per spatial size its affine, cell (column i, row j) centred at
x = scale * i + offset in input pixels (pixel 0 covers 0..1). A convolution or pooling of kernel k, stride s,
padding p and dilation d turns a map with step r and first centre c into step r s and first centre
c + r (d (k - 1) / 2 - p) (Dumoulin & Visin, arXiv:1603.07285).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Axis = tuple[float, float]  # (step, first centre)
Affine = tuple[Axis, Axis]  # (x, y)


def cell_affines(
    network: nn.Module, run: Callable[[Tensor], Any], sample: Tensor
) -> dict[tuple[int, int], Affine]:
    """Run `run(sample)` once and follow the geometry of `network`'s convolutions and poolings.

    Branches that meet again have one geometry in the usual networks, so a map is known by its size (h, w).

    Args:
        sample: (1, 3, h, w).
    """
    known: dict[tuple[int, int], Affine] = {_size(sample): ((1.0, 0.5), (1.0, 0.5))}

    def follow(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before = known.get(_size(inputs[0]))
        after = _size(output)
        if before is None or after in known:
            return
        kernel, stride, padding, dilation = (
            _pair(getattr(module, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        axes = [
            (
                before[i][0] * stride[1 - i],
                before[i][1] + before[i][0] * (dilation[1 - i] * (kernel[1 - i] - 1) / 2 - padding[1 - i]),
            )
            for i in (0, 1)
        ]
        known[after] = (axes[0], axes[1])

    handles = [
        module.register_forward_hook(follow)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
    ]
    try:
        with torch.no_grad():
            run(sample)
    finally:
        for handle in handles:
            handle.remove()
    return known


def _size(values: Tensor) -> tuple[int, int]:
    return int(values.shape[-2]), int(values.shape[-1])


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return (0, 0)
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
