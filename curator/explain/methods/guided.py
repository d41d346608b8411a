"""Guided backpropagation (Springenberg et al., ICLR-W 2015) with VEBI's stride fix (Oramas et al., 2019).

    symbol   paper       here
    A, M     eq. (2)     side of a layer's input, of its kernel (dilated: d (k - 1) + 1)
    S, O     eq. (2)     stride, padding (here padT + padB, per axis)
    B        eq. (3)     side of its output; B at S = 1 is A + padT + padB - M + 1

Guided: an activation passes back its slope times the positive part of the gradient, where its input was
positive. Stride fix: the gradient that reaches a convolution or pooling of stride above 1 is resampled
(nearest) to that layer's B at S = 1 and goes on through the same layer at stride 1, which removes the grid
artefacts. Resampling is divided by the growth in cells, so that the gradient's sum stays: a constant per
layer, which keeps branches of unequal stride comparable and numbers in range.

In: a target. Out: per pixel sum_c |gradient|, not negative, in the target's units per unit of intensity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from curator.detect.base import Detector
from curator.errors import StageError
from curator.explain.base import EVIDENCE_FLOOR, AttributionOptions, Fill, FillKind, Target
from curator.explain.game import coalition_game, ends_of
from curator.explain.target import TargetScores
from store.records import GridMap, Pin, SegmentMap

_ACTIVATIONS: dict[Any, Callable[..., Tensor]] = {
    F.relu: F.relu,
    torch.relu: F.relu,
    torch.relu_: F.relu,
    Tensor.relu: F.relu,
    Tensor.relu_: F.relu,
    F.relu6: F.relu6,
    F.leaky_relu: F.leaky_relu,
    F.silu: F.silu,
    F.hardswish: F.hardswish,
    F.gelu: F.gelu,
    F.elu: F.elu,
    F.mish: F.mish,
}
_SIGMOIDS = (torch.sigmoid, Tensor.sigmoid, F.sigmoid)
_PRODUCTS = (torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)


class GuidedBackward(TorchFunctionMode):
    """While entered, what is computed has guided gradients; its values are the usual ones.

    It works on functions, not modules, so that functional activations and converted ONNX graphs (whose SiLU
    is written x * sigmoid(x)) follow the rule too, and the shared network is not changed.

    Args:
        stride_fix: send gradients through strided layers at stride 1.
        guided: clip gradients at activations; False leaves plain gradients.
    """

    def __init__(self, *, stride_fix: bool = True, guided: bool = True) -> None:
        super().__init__()
        self.stride_fix, self.guided = stride_fix, guided
        self._gate: tuple[Tensor, Tensor] | None = None  # the last sigmoid's input and output

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.guided and func in _ACTIVATIONS:
            rest = {name: value for name, value in kwargs.items() if name not in ("inplace", "input")}
            x, given = (args[0], args[1:]) if args else (kwargs["input"], ())
            return _guided(x, lambda values: _ACTIVATIONS[func](values, *given, **rest))
        if self.guided and func in _SIGMOIDS and len(args) == 1:
            output = func(*args, **kwargs)
            self._gate = (args[0], output)
            return output
        if self.guided and func in _PRODUCTS and self._is_silu(args):
            return _guided(args[0] if args[1] is self._gate[1] else args[1], F.silu)  # type: ignore[index]
        if self.stride_fix and func in _STRIDED:
            return _STRIDED[func](func, *args, **kwargs)
        return func(*args, **kwargs)

    def _is_silu(self, args: tuple[Any, ...]) -> bool:
        if self._gate is None or len(args) != 2:
            return False
        x, gate = self._gate
        return (args[0] is x and args[1] is gate) or (args[0] is gate and args[1] is x)


class _Gate(torch.autograd.Function):
    """Values of an activation whose gradient is gate * max(gradient, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(gate)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (gate,) = ctx.saved_tensors
        return gate * gradient.clamp_min(0), None, None


def _guided(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """activation(x), whose gate is its slope where x > 0 and 0 elsewhere."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return activation(x)
    leaf = x.detach().clone().requires_grad_(True)
    output = activation(leaf)
    (slope,) = torch.autograd.grad(output.sum(), leaf)
    result: Tensor = _Gate.apply(x, output.detach(), torch.where(x > 0, slope, 0.0))
    return result


class _Resampled(torch.autograd.Function):
    """A strided layer whose gradient is resampled and passed through `back`, the layer at stride 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, size: tuple[int, int], back: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size, ctx.back = size, back
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.back(x, resample(gradient, ctx.size)), None, None, None


def resample(gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-resample a gradient (B, C, h, w) to `size`, keeping its mean times cells, its mass."""
    share = gradient.shape[-2] * gradient.shape[-1] / (size[0] * size[1])
    return F.interpolate(gradient, size=size, mode="nearest") * share


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _side_one(x: Tensor, kernel: Any, padding: Any, dilation: Any) -> tuple[int, int]:
    """B at S = 1, (h, w): A + padT + padB - M + 1 of this layer."""
    k, p, d = _pair(kernel), _pair(padding), _pair(dilation)
    h, w = (int(x.shape[2 + i]) + 2 * p[i] - d[i] * (k[i] - 1) for i in (0, 1))
    return h, w


def _convolution(
    func: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    output: Tensor = func(input, weight, bias, stride, padding, dilation, groups)
    if max(_pair(stride)) == 1 or not (torch.is_grad_enabled() and input.requires_grad):
        return output
    padding = 0 if padding == "valid" else padding

    def back(_: Tensor, gradient: Tensor) -> Tensor:
        # The convolution's adjoint at stride 1, which gives A back: B - 1 + M - padT - padB.
        return F.conv_transpose2d(
            gradient, weight, stride=1, padding=padding, dilation=dilation, groups=groups
        )

    result: Tensor = _Resampled.apply(
        input, output.detach(), _side_one(input, weight.shape[2:], padding, dilation), back
    )
    return result


def _pooling(
    func: Any, input: Tensor, kernel_size: Any, stride: Any = None, *args: Any, **kwargs: Any
) -> Any:
    output = func(input, kernel_size, stride, *args, **kwargs)
    stride = kernel_size if stride is None else stride
    if max(_pair(stride)) == 1 or not isinstance(output, Tensor) or not output.requires_grad:
        return output

    def back(x: Tensor, gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            at_one = func(leaf, kernel_size, 1, *args, **kwargs)
            (result,) = torch.autograd.grad(at_one, leaf, gradient)
        return result

    with torch.no_grad():
        size = func(input, kernel_size, 1, *args, **kwargs).shape[2:]  # ceil_mode changes nothing at stride 1
    return _Resampled.apply(input, output.detach(), (int(size[0]), int(size[1])), back)


_STRIDED: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _convolution,
    F.max_pool2d: _pooling,
    torch.max_pool2d: _pooling,
    F.avg_pool2d: _pooling,
}


def heat_map(gradient: Tensor) -> NDArray[np.float32]:
    """sum_c |gradient|: (1, 3, h, w) -> (h, w)."""
    values: NDArray[np.float32] = gradient[0].abs().sum(0).float().cpu().numpy()
    return values


class GuidedBackpropagation:
    """Guided backpropagation of the target's score, the baseline beside VEBI.

    Settings: `stride_fix` (1 or 0, default 1); 0 is "Deconv+GB" of VEBI's figures.
    """

    name = "guided"
    version = 2  # evidence by segment
    takes: tuple[FillKind, ...] = ("continuous", "hole")
    gradients = True

    def __init__(self, options: AttributionOptions | None = None) -> None:
        self.options = options or AttributionOptions()
        self.options.only(self.name, ("stride_fix",))
        self.stride_fix = self.options.choice("stride_fix", "1", ("0", "1")) == "1"

    def explain(
        self,
        detector: Detector,
        image: Tensor,
        pin: Pin,
        segments: NDArray[np.uint16],
        fill: Fill,
        targets: Sequence[Target],
        *,
        seed: int,
        image_key: str,
    ) -> list[SegmentMap | GridMap]:
        """Explain every target of an image; see `curator.explain.base.AttributionMethod`.

        Returns:
            a `GridMap` of the input's size per target, values >= 0; the gap is nan (no completeness).
        Raises:
            ConfigError: a black box. StageError: gradients that are not finite.
        """
        scores = TargetScores(detector, pin, targets)
        u = image[None].detach().clone().requires_grad_(True)
        with torch.enable_grad(), GuidedBackward(stride_fix=self.stride_fix):
            values = scores(u)[0]  # (T,)
        maps = []
        for t in range(len(targets)):
            gradient = None
            if values.requires_grad:
                (gradient,) = torch.autograd.grad(
                    values[t], u, retain_graph=t + 1 < len(targets), allow_unused=True
                )
            maps.append(heat_map(torch.zeros_like(u) if gradient is None else gradient))
        game = coalition_game(scores, detector, image, segments, fill, seed=seed, options=self.options)
        full, empty = ends_of(game, int(segments.max()) + 1)
        labels = segments.ravel()
        return [
            pixel_map(
                self.name,
                maps[t],
                full=float(full[t]),
                empty=float(empty[t]),
                passes=4,  # the explained forward and its backward, and the two ends
                # a floor for segments: what moving all of a segment's pixels by 1 would do to the score
                evidence=bool(np.bincount(labels, maps[t].ravel()).max() > EVIDENCE_FLOOR[target.kind]),
            )
            for t, target in enumerate(targets)
        ]


def pixel_map(
    name: str,
    values: NDArray[np.float32],
    *,
    full: float,
    empty: float,
    passes: int,
    evidence: bool,
    extra: dict[str, float] | None = None,
) -> GridMap:
    """A map with a value per input pixel.

    Raises:
        StageError: a value that is not finite.
    """
    if not np.isfinite(values).all():
        raise StageError(f"{name}: expected finite gradients, got nan or infinity; try --target log_odds")
    return GridMap(
        values=values,
        scale=(1.0, 1.0),
        offset=(0.5, 0.5),
        full=full,
        empty=empty,
        gap=float("nan"),
        passes=passes,
        evidence=evidence,
        extra=extra or {},
    )
