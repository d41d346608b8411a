"""What stands where a segment is hidden (Fill is orthogonal to method, METHODS.md).

A continuous fill gives a baseline b to interpolate from, u = b + w (x - b); a hole fill repaints a hole and
leaves every other pixel bit-identical. Methods say which kind they take; the other kind is refused. A fill is
named `NAME?setting=value`, such as `blur?sigma=5` or `inpaint?spec=builtin:`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from curator.detect.base import Detector
from curator.errors import ConfigError
from curator.explain.base import AttributionOptions, ContinuousFill, Fill, FillKind, HoleFill
from curator.explain.fills.inpainting import InpaintingHole, load_inpainter
from curator.registry import Spec
from curator.tensors import generator

SIGMA = 10.0
"""Standard deviation of the blur in input pixels (Fong & Vedaldi, ICCV 2017)."""


@runtime_checkable
class BatchedHoleFill(Protocol):
    """A hole fill that paints many holes of one image faster than one by one."""

    def fill_many(self, image: Tensor, holes: Tensor, seeds: Sequence[int]) -> Tensor:
        """x (3, h, w), holes (n, h, w) bool, n seeds -> (n, 3, h, w)."""


def fill_many(fill: HoleFill, image: Tensor, holes: Tensor, seeds: Sequence[int]) -> Tensor:
    """Fill many holes of one image, each by itself; the same as `fill.fill` hole by hole.

    Args:
        image: x (3, h, w). holes: (n, h, w) bool, True = repaint. seeds: n.
    Returns:
        (n, 3, h, w).
    """
    if isinstance(fill, BatchedHoleFill):
        return fill.fill_many(image, holes, seeds)
    return torch.stack([fill.fill(image, hole, seed) for hole, seed in zip(holes, seeds, strict=True)])


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur x (3, h, w) by a Gaussian of `sigma` pixels, cut at 3 sigma; borders weigh what lies inside."""
    reach = int(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    blurred = image[:, None]  # (3, 1, h, w)
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padding = (reach, 0) if shape[2] == -1 else (0, reach)
        weight = F.conv2d(torch.ones_like(blurred[:1]), kernel.view(shape), padding=padding)
        blurred = F.conv2d(blurred, kernel.view(shape), padding=padding) / weight
    return blurred[:, 0]


def uniform_noise(image: Tensor, seed: int) -> Tensor:
    """Independent uniform noise in [0, 1] of an image's shape, keyed by the seed and the shape alone."""
    numbers = generator("noise", seed, *image.shape)
    return torch.rand(image.shape, generator=numbers).to(image)


# ------------------------------------------------------------ continuous fills


class MeanFill:
    """The detector's mean colour everywhere: after the detector's own normalisation, zero."""

    continuous: Literal[True] = True

    def baseline(self, image: Tensor, detector: Detector) -> Tensor:
        """x (3, h, w) -> b (3, h, w)."""
        return image.new_tensor(detector.mean_color).view(3, 1, 1).expand_as(image)


class BlurFill:
    """The image itself, blurred (Fong & Vedaldi, ICCV 2017): colours stay, detail goes.

    Args:
        sigma: standard deviation of the Gaussian, input pixels.
    """

    continuous: Literal[True] = True

    def __init__(self, sigma: float = SIGMA) -> None:
        self.sigma = sigma

    def baseline(self, image: Tensor, detector: Detector) -> Tensor:
        """x (3, h, w) -> b (3, h, w)."""
        return gaussian_blur(image, self.sigma)


class NoiseFill:
    """Uniform noise in [0, 1], one draw for all images of a size.

    Args:
        seed: of the draw.
    """

    continuous: Literal[True] = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def baseline(self, image: Tensor, detector: Detector) -> Tensor:
        """x (3, h, w) -> b (3, h, w)."""
        return uniform_noise(image, self.seed)


# ------------------------------------------------------------ hole fills


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

    def __init__(self, sigma: float = SIGMA) -> None:
        self.sigma = sigma

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        return torch.where(hole, gaussian_blur(image, self.sigma), image)

    def fill_many(self, image: Tensor, holes: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `BatchedHoleFill`: the image is blurred once."""
        return torch.where(holes[:, None], gaussian_blur(image, self.sigma), image)


class NoiseHole:
    """Holes of uniform noise in [0, 1], keyed by `fill`'s seed and the image's shape."""

    continuous: Literal[False] = False

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        return torch.where(hole, uniform_noise(image, seed), image)


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


class BiharmonicHole:
    """Classical inpainting: the smoothest continuation of the surroundings, by the biharmonic equation.

    scikit-image's solver (after Damelin & Hoang, J. Math. Imaging Vis. 2018): one sparse system for the union
    of holes, without learning or chance. Holes of half an image of 320 x 320 px take 0.3 s, one hole of three
    quarters of it 2 s. An image that is all hole gets `color`.

    Args:
        color: RGB in [0, 1].
    """

    continuous: Literal[False] = False

    def __init__(self, color: tuple[float, float, float]) -> None:
        self.color = color

    def fill(self, image: Tensor, hole: Tensor, seed: int) -> Tensor:
        """See `HoleFill.fill`."""
        if bool(hole.all()):
            return image.new_tensor(self.color).view(3, 1, 1).expand_as(image).clone()
        if not bool(hole.any()):
            return image
        solved = inpaint_biharmonic(
            image.detach().cpu().double().numpy(), hole.cpu().numpy(), channel_axis=0
        )  # (3, h, w)
        return torch.where(hole, torch.from_numpy(solved).to(image).clamp(0, 1), image)


# ------------------------------------------------------------ by name


@dataclass(frozen=True, slots=True)
class ContinuousMaker:
    """How a continuous fill is built, and the settings it knows."""

    build: Callable[[Detector, AttributionOptions], ContinuousFill]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HoleMaker:
    """How a hole fill is built, and the settings it knows."""

    build: Callable[[Detector, AttributionOptions], HoleFill]
    settings: tuple[str, ...] = ()


def _sigma(options: AttributionOptions) -> float:
    return options.number("sigma", SIGMA, low=0.5)


CONTINUOUS: dict[str, ContinuousMaker] = {
    "mean": ContinuousMaker(lambda detector, options: MeanFill()),
    "blur": ContinuousMaker(lambda detector, options: BlurFill(_sigma(options)), ("sigma",)),
    "noise": ContinuousMaker(lambda detector, options: NoiseFill(options.whole("seed", 0)), ("seed",)),
}
HOLES: dict[str, HoleMaker] = {
    "mean": HoleMaker(lambda detector, options: MeanHole(detector.mean_color)),
    "blur": HoleMaker(lambda detector, options: BlurHole(_sigma(options)), ("sigma",)),
    "noise": HoleMaker(lambda detector, options: NoiseHole()),
    "local-mean": HoleMaker(
        lambda detector, options: LocalMeanHole(detector.mean_color, options.whole("radius", 7, low=1)),
        ("radius",),
    ),
    "biharmonic": HoleMaker(lambda detector, options: BiharmonicHole(detector.mean_color)),
}
INPAINT = "inpaint"
"""Name of the fill by an inpainter, `inpaint?spec=SPEC`; it stands apart since it needs its spec."""


def make_fill(name: str, detector: Detector, *, method: str, takes: Sequence[FillKind]) -> Fill:
    """Build the fill `name`, `NAME?setting=value&...`, of the first kind in `takes` that there is one of.

    Args:
        name: `inpaint?spec=SPEC` takes the inpainters of `curator synthesize` (builtin:, curator:DIR,
            auto:ID, ...); further settings are the inpainter's own options (`inpaint?spec=builtin:&steps=4`).
    Raises:
        ConfigError: no such fill, one of a kind that `method` does not take, or settings that it has not.
        RegistryError, InputError: an inpainter that is not there.
    """
    spec = Spec.of_method(name)
    options = AttributionOptions(settings=spec.options)
    for kind in takes:
        if kind == "continuous" and spec.name in CONTINUOUS:
            continuous = CONTINUOUS[spec.name]
            _only(name, spec, continuous.settings)
            return continuous.build(detector, options)
        if kind == "hole" and spec.name in HOLES:
            hole = HOLES[spec.name]
            _only(name, spec, hole.settings)
            return hole.build(detector, options)
        if kind == "hole" and spec.name == INPAINT:
            return InpaintingHole(load_inpainter(spec.options, _device(detector)))
    known = ", ".join(
        dict.fromkeys(
            [
                *(CONTINUOUS if "continuous" in takes else ()),
                *([*HOLES, f"{INPAINT}?spec=SPEC"] if "hole" in takes else ()),
            ]
        )
    )
    if spec.name in {*HOLES, *CONTINUOUS, INPAINT}:
        does = "fades segments towards a baseline" if "continuous" in takes else "repaints holes"
        raise ConfigError(f"--fill {name}: {method} {does} and takes one of: {known}")
    others = [] if "hole" in takes else [*(set(HOLES) - set(CONTINUOUS)), INPAINT]
    more = f" ({', '.join(sorted(others))} are for methods that repaint holes)" if others else ""
    raise ConfigError(f"--fill: expected one of {known}, got {name!r}{more}")


def _only(name: str, spec: Spec, known: Sequence[str]) -> None:
    unknown = sorted(set(spec.options) - set(known))
    if unknown:
        raise ConfigError(
            f"--fill {name}: knows the settings {', '.join(known) or '(none)'}, got {', '.join(unknown)}"
        )


def _device(detector: Detector) -> torch.device:
    """Where the detector computes; an inpainter joins it there."""
    network = detector.modules()
    parameter = next(network.parameters(), None) if network is not None else None
    return parameter.device if parameter is not None else torch.device("cpu")


def continuous_baseline(fill: Fill, image: Tensor, detector: Detector, *, method: str) -> Tensor:
    """The baseline b (3, h, w) of a continuous fill.

    Raises:
        ConfigError: a hole fill, which has no baseline to interpolate from.
    """
    if not fill.continuous:
        raise ConfigError(
            f"{method} fades segments towards a baseline and needs a continuous fill "
            f"({', '.join(CONTINUOUS)}), got {type(fill).__name__}, which only fills holes"
        )
    return fill.baseline(image, detector)
