"""What stands where a segment is hidden (Fill is orthogonal to method, METHODS.md).

A continuous fill gives a baseline b to interpolate from, u = b + w (x - b); a hole fill repaints a hole and
leaves every other pixel bit-identical. Methods say which kind they take; the other kind is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import ContinuousFill, Fill, FillKind, HoleFill


class MeanFill:
    """The detector's mean colour everywhere: after the detector's own normalisation, zero."""

    continuous: Literal[True] = True

    def baseline(self, image: Tensor, detector: Detector) -> Tensor:
        """x (3, h, w) -> b (3, h, w)."""
        return image.new_tensor(detector.mean_color).view(3, 1, 1).expand_as(image)


class MeanHole:
    """Holes in one colour.

    Args:
        color: RGB in [0, 1].
    """

    continuous: Literal[False] = False

    def __init__(self, color: tuple[float, float, float]) -> None:
        self.color = color

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        return torch.where(hole, image.new_tensor(self.color).view(3, 1, 1), image)


class BlurHole:
    """Holes show the image blurred (as in meaningful perturbation, Fong & Vedaldi, ICCV 2017).

    Args:
        sigma: standard deviation of the Gaussian, input pixels.
    """

    continuous: Literal[False] = False

    def __init__(self, sigma: float = 10.0) -> None:
        self.sigma = sigma

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        reach = int(3 * self.sigma)
        steps = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
        kernel = torch.exp(-0.5 * (steps / self.sigma) ** 2)
        blurred = image[:, None]  # (3, 1, h, w)
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            padding = (reach, 0) if shape[2] == -1 else (0, reach)
            weight = F.conv2d(torch.ones_like(blurred[:1]), kernel.view(shape), padding=padding)
            blurred = F.conv2d(blurred, kernel.view(shape), padding=padding) / weight
        return torch.where(hole, blurred[:, 0], image)


class LocalMeanHole:
    """Each hole pixel becomes the mean of the pixels around it that are no hole.

    The window doubles until it reaches such a pixel; an image that is all hole gets `color`.

    Args:
        color: RGB in [0, 1]. radius: of the first window, input pixels.
    """

    continuous: Literal[False] = False

    def __init__(self, color: tuple[float, float, float], radius: int = 7) -> None:
        self.color, self.radius = color, radius

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        known = (~hole).to(image.dtype)[None]  # (1, h, w)
        result, missing = image, hole
        radius = self.radius
        while bool(missing.any()) and bool(known.any()):
            around = _box_sum(torch.cat([image * known, known]), radius)  # (4, h, w)
            reached = missing & (around[3] > 0.5)
            result = torch.where(reached, around[:3] / around[3:].clamp_min(1), result)
            missing = missing & ~reached
            radius *= 2
        return torch.where(missing, image.new_tensor(self.color).view(3, 1, 1), result)


def _box_sum(values: Tensor, radius: int) -> Tensor:
    """Sums of (C, h, w) over windows of 2 radius + 1, cut at the border; in float64 by running sums."""
    for axis in (1, 2):
        side = values.shape[axis]
        total = F.pad(values.double().cumsum(axis), (1, 0) if axis == 2 else (0, 0, 1, 0))
        place = torch.arange(side, device=values.device)
        high, low = (place + radius + 1).clamp(max=side), (place - radius).clamp(min=0)
        values = total.index_select(axis, high) - total.index_select(axis, low)
    return values.float()


CONTINUOUS: dict[str, Callable[[Detector], ContinuousFill]] = {"mean": lambda detector: MeanFill()}
HOLES: dict[str, Callable[[Detector], HoleFill]] = {
    "mean": lambda detector: MeanHole(detector.mean_color),
    "blur": lambda detector: BlurHole(),
    "local-mean": lambda detector: LocalMeanHole(detector.mean_color),
}


def make_fill(name: str, detector: Detector, *, method: str, takes: Sequence[FillKind]) -> Fill:
    """Build the fill called `name`, of the first kind in `takes` that there is one of.

    Raises:
        ConfigError: no such fill, or one of a kind that `method` does not take.
    """
    for kind in takes:
        if kind == "continuous" and name in CONTINUOUS:
            return CONTINUOUS[name](detector)
        if kind == "hole" and name in HOLES:
            return HOLES[name](detector)
    known = ", ".join(
        dict.fromkeys([*(CONTINUOUS if "continuous" in takes else ()), *(HOLES if "hole" in takes else ())])
    )
    if name in HOLES or name in CONTINUOUS:
        does = "fades segments towards a baseline" if "continuous" in takes else "repaints holes"
        raise ConfigError(f"--fill {name}: {method} {does} and takes one of: {known}")
    raise ConfigError(f"--fill: expected one of {known}, got {name!r}")


def continuous_baseline(fill: Fill, image: Tensor, detector: Detector, *, method: str) -> Tensor:
    """The baseline b (3, h, w) of a continuous fill.

    Raises:
        ConfigError: a hole fill, which has no baseline to interpolate from.
    """
    if not fill.continuous:
        raise ConfigError(
            f"{method} fades segments towards a baseline and needs a continuous fill (mean), "
            f"got {type(fill).__name__}, which only fills holes"
        )
    return fill.baseline(image, detector)
