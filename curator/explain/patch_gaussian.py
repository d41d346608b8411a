"""Image patches as one Gaussian, and draws of a patch's inside given its surround (for PDA).

In: training images (3, h, w) RGB [0, 1] in the detector's input frame. Out: the mean and covariance of
squares of patch + 2 pad px, as a safetensors file; and draws from
    x_w | rest ~ N(m_w + B (rest - m_rest), C_ww - B C_rest,w),   B = C_w,rest C_rest,rest^-1
(Zintgraf et al., ICLR 2017, section 3.1: a patch depends on its surround alone, not on where it lies).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from curator.errors import ConfigError, InputError

_NOISE = (1 / 255) ** 2  # variance added to every pixel: one grey level, so that flat skies can be inverted
_FORMAT = "curator patches"

Conditional = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class PatchGaussian:
    """Mean and covariance of squares of l = patch + 2 pad px.

    Attributes:
        patch, pad: pixels.
        mean: (3 l l,), channels first, RGB in [0, 1]. covariance: (3 l l, 3 l l), positive definite.
    Raises:
        ConfigError: sizes that do not agree.
    """

    patch: int
    pad: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    _conditionals: dict[tuple[int, int], Conditional] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        size = 3 * self.side**2
        if self.mean.shape != (size,) or self.covariance.shape != (size, size):
            raise ConfigError(
                f"patches: expected a mean of {size} and a covariance of {size} x {size} for patch="
                f"{self.patch} and pad={self.pad}, got {self.mean.shape} and {self.covariance.shape}"
            )

    @property
    def side(self) -> int:
        """l, pixels."""
        return self.patch + 2 * self.pad

    def save(self, path: Path) -> None:
        """Write a safetensors file, float32 (temporary file, then rename); equal patches give equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"mean": self.mean, "covariance": self.covariance}
        metadata = {
            _FORMAT: json.dumps({"patch": self.patch, "pad": self.pad})
        }  # one key: their order varies
        temporary = path.with_name(f".{path.name}.part")
        save_file(
            {name: values.astype(np.float32) for name, values in tensors.items()},
            temporary,
            metadata=metadata,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PatchGaussian:
        """Read what `save` wrote.

        Raises:
            ConfigError: no such file, or one of something else.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if _FORMAT not in metadata:
                    raise ConfigError(f"{path}: expected patches that curator fit-patches wrote")
                mean, covariance = (file.get_tensor(name).astype(float) for name in ("mean", "covariance"))
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{path}: expected patches that curator fit-patches wrote, got: {error}"
            ) from error
        sizes = json.loads(metadata[_FORMAT])
        return cls(sizes["patch"], sizes["pad"], mean, covariance)

    def draw(
        self, around: NDArray[np.float64], top: int, left: int, noise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Draw the window at (top, left) of a square given the rest of it.

        Args:
            around: the square (3, l, l); what it holds inside the window does not matter.
            top, left: 0..2 pad.
            noise: (S, 3 patch patch) standard normal numbers.
        Returns:
            (S, 3, patch, patch) in [0, 1] (cut there).
        """
        inner, outer, gain, root = self._conditional(top, left)
        middle = self.mean[inner] + gain @ (around.ravel()[outer] - self.mean[outer])
        windows = (middle + noise @ root.T).clip(0, 1)
        return np.asarray(windows.reshape(-1, 3, self.patch, self.patch), dtype=np.float64)

    def _conditional(self, top: int, left: int) -> Conditional:
        """Indices of the window and of the rest, B, and the Cholesky root of the conditional covariance."""
        if (top, left) not in self._conditionals:
            inside = np.zeros((3, self.side, self.side), dtype=bool)
            inside[:, top : top + self.patch, left : left + self.patch] = True
            inner, outer = np.flatnonzero(inside.ravel()), np.flatnonzero(~inside.ravel())
            across = self.covariance[np.ix_(inner, outer)]
            rest = scipy.linalg.cho_factor(self.covariance[np.ix_(outer, outer)], lower=True)
            gain = scipy.linalg.cho_solve(rest, across.T).T  # B
            left_over = self.covariance[np.ix_(inner, inner)] - gain @ across.T
            root = np.linalg.cholesky((left_over + left_over.T) / 2)
            self._conditionals[top, left] = inner, outer, gain, root
        return self._conditionals[top, left]


def fit_patches(
    images: Iterable[Tensor], *, patch: int = 10, pad: int = 2, per_image: int = 200, seed: int = 0
) -> PatchGaussian:
    """Fit a Gaussian to squares at random places of training images; images are read one at a time.

    Args:
        images: (3, h, w) RGB [0, 1], as `detector.prepare` gives them; training images alone, or the
            explanation knows what it should not. patch, pad: pixels, at least 1 and 0.
        per_image: squares taken of each image. A few times 3 (patch + 2 pad)^2 squares in all are enough.
    Example:
        fit_patches(prepared_images).save(Path("patches.safetensors")), then --method
        "pda?model=patches.safetensors".
    Raises:
        InputError: no image, or one smaller than a square.
    """
    if patch < 1 or pad < 0 or per_image < 1:
        raise InputError(
            f"patches: expected patch >= 1, pad >= 0 and per_image >= 1, got {patch}, {pad}, {per_image}"
        )
    side, count = patch + 2 * pad, 0
    total, products = np.zeros(3 * side**2), np.zeros((3 * side**2, 3 * side**2))
    for k, image in enumerate(images):
        pixels = image.detach().cpu().double().numpy()
        height, width = pixels.shape[1:]
        if height < side or width < side:
            raise InputError(f"patches: expected images of at least {side} px a side, got {height} x {width}")
        numbers = np.random.default_rng([seed, k])
        tops = numbers.integers(0, height - side + 1, per_image)
        lefts = numbers.integers(0, width - side + 1, per_image)
        squares = np.stack(
            [pixels[:, y : y + side, x : x + side].ravel() for y, x in zip(tops, lefts, strict=True)]
        )  # (per_image, 3 l l)
        total += squares.sum(0)
        products += squares.T @ squares
        count += per_image
    if count < 2:
        raise InputError("patches: expected at least two squares, got none; give training images")
    mean = total / count
    covariance = products / count - np.outer(mean, mean) + _NOISE * np.eye(len(mean))
    return PatchGaussian(patch, pad, mean, covariance)
