"""Gradient times activation at a network's inner layers, summed over segments.

    view v      sum over cells p of a layer and channels c of (A_c(x) - A_c(b))_p dF/dA_cp, shared out over
                the segments that p's pixels belong to

Eq. (5) of E2X multiplies the input's gradient with x - b. A deep network's input gradient is noisy; the same
product further inside is steadier and coarser (Shrikumar et al., ICML 2017, name it gradient * input;
Grad-CAM and ODAM do it at the last layers). One backward pass gives all of them.

Which layers: of a clean forward pass the last module at each of strides 2, 4, 8 and 16 that runs once, before
the first one that is coarser (one cell, as attention over channels has, is no stride) and outside the block
that this one belongs to. A network without such layers (a transformer on patches) has no inner views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from curator.explain.target import Scores

STRIDES = (2, 4, 8, 16)


@dataclass(frozen=True)
class InnerLayer:
    """A layer of the network as it was on x and on b.

    Attributes:
        name: of the module. difference: A(x) - A(b), (C, h', w').
        cells, segments, shares: (n,) each: a cell (row-major), a segment and which part of the cell's pixels
            the segment holds, for every two that meet. count: M.
    """

    name: str
    difference: Tensor
    cells: Tensor
    segments: Tensor
    shares: Tensor
    count: int

    def sums(self, gradient: Tensor) -> Tensor:
        """dF/dA (B, C, h', w') -> (B, M)."""
        products = torch.einsum("bchw,chw->bhw", gradient.float(), self.difference).flatten(1)
        sums = torch.zeros(len(gradient), self.count, device=gradient.device)
        return sums.index_add_(1, self.segments, products[:, self.cells] * self.shares)


@contextmanager
def _watched(modules: Mapping[str, nn.Module], see: Callable[[str, Any], None]) -> Iterator[None]:
    """While open, `see(name, output)` is called whenever one of `modules` has run."""

    def hook_of(name: str) -> Callable[[nn.Module, object, Any], None]:
        return lambda _module, _inputs, output: see(name, output)

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(network: nn.Module | None, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open, the latest outputs of the modules called `names`, in the graph of what they led to."""
    modules = {name: network.get_submodule(name) for name in names} if network is not None else {}
    found: dict[str, Tensor] = {}
    with _watched(modules, found.__setitem__):
        yield found


def inner_layers(
    network: nn.Module | None, scores: Scores, image: Tensor, baseline: Tensor, segments: NDArray[np.uint16]
) -> list[InnerLayer]:
    """The layers that give views, fine to coarse, with their activations on x and b (3, h, w).

    Two forward passes. [] where the network has no such layers.
    """
    if network is None:
        return []
    seen: list[tuple[str, Tensor]] = []

    def see(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1:
            seen.append((name, output))

    with _watched({name: m for name, m in network.named_modules() if name}, see), torch.no_grad():
        scores(image[None])
    shape = (int(image.shape[1]), int(image.shape[2]))
    places = choose_layers([name for name, _ in seen], [tuple(value.shape[2:]) for _, value in seen], shape)
    shown = {seen[place][0]: seen[place][1][0].float() for place in places}
    seen.clear()
    if not shown:
        return []
    with recorded(network, list(shown)) as hidden, torch.no_grad():
        scores(baseline[None])
    return [
        InnerLayer(name, value - hidden[name][0].float(), *_shares(segments, value), int(segments.max()) + 1)
        for name, value in shown.items()
    ]


def choose_layers(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], image: tuple[int, int]
) -> list[int]:
    """Which of the outputs of a forward pass, in its order, give views of an image of (h, w)."""
    chosen = []
    for stride in STRIDES:
        sides = [math.ceil(side / stride) for side in image]
        fits = [all(abs(a - b) <= 1 for a, b in zip(shape, sides, strict=True)) for shape in shapes]
        if True not in fits:
            continue
        first = fits.index(True)
        later = [i for i in range(first, len(shapes)) if not fits[i] and max(shapes[i]) > 1]
        coarser = [i for i in later if max(shapes[i]) < max(sides) - 1]
        end = (coarser or later or [len(shapes)])[0]
        block = names[end].rpartition(".")[0] + "." if end < len(names) else "."
        fit = [i for i in range(first, end) if fits[i] and names.count(names[i]) == 1]
        # within the block that makes it coarser, a shortcut may pass by
        before = [i for i in fit if not names[i].startswith(block)] or fit
        chosen += before[-1:]
    return list(dict.fromkeys(chosen))


def _shares(segments: NDArray[np.uint16], level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of a level (C, h', w') and segments that meet, and the part of the cell that is shared: (n,)."""
    h, w = segments.shape
    rows, columns = int(level.shape[1]), int(level.shape[2])
    cell = ((np.arange(h) * rows // h)[:, None] * columns + np.arange(w) * columns // w).ravel()
    count = int(segments.max()) + 1
    pairs, pixels = np.unique(cell * count + segments.ravel().astype(np.int64), return_counts=True)
    cells, members = pairs // count, pairs % count
    parts = (pixels / np.bincount(cell)[cells]).astype(np.float32)
    return (
        torch.from_numpy(cells).to(level.device),
        torch.from_numpy(members).to(level.device),
        torch.from_numpy(parts).to(level.device),
    )
