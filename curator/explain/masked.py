"""Masked images through the detector: scores at given weights, and segment sums of input gradients.

In: targets, x and b (3, h, w), labels (h, w), weights W (n, M) in [0, 1]. Out: F(W) (n, T), and
G = (1/n) sum_k sum_{p in S_i, channels} (x - b)_p ds/du_p at u(W_k), (T, M): the sum that E2X (eq. 5) and
integrated gradients over segments share. Every batch is run forward once for all targets and backward once
per target; memory does not grow with the number of targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from curator.errors import InputError
from curator.explain.inner_layers import InnerLayer, recorded
from curator.explain.target import Scores
from curator.precision import Precision, autocast

Weights = NDArray[np.float32]


class MaskedImages:
    """The images u(w) = b + w[label] (x - b) of one image.

    Args:
        image, baseline: x and b (3, h, w).
        segments: (h, w) labels 0..M-1.
        batch_size: masked images per forward pass.
    Raises:
        InputError: shapes that do not agree.
    """

    def __init__(
        self,
        scores: Scores,
        image: Tensor,
        baseline: Tensor,
        segments: NDArray[np.uint16],
        *,
        batch_size: int,
    ) -> None:
        if image.shape != baseline.shape or tuple(image.shape[1:]) != segments.shape:
            raise InputError(
                f"explain: expected image, baseline and segments of one size, got "
                f"{tuple(image.shape)}, {tuple(baseline.shape)} and {segments.shape}"
            )
        self.scores, self.batch_size = scores, batch_size
        self.baseline, self.difference = baseline, image - baseline
        self.flat = segments.ravel().astype(np.int64)
        self.count = int(self.flat.max()) + 1  # M
        self.shape = segments.shape
        self.labels = torch.from_numpy(self.flat).to(image.device)

    def evaluate(self, weights: Weights, precision: Precision = "fp32") -> NDArray[np.float64]:
        """F(W): weights (n, M) -> (n, T)."""
        rows = []
        with torch.no_grad():
            for u in self._batches(weights):
                with autocast(precision, u.device):
                    rows.append(self.scores(u).double().cpu().numpy())
        return np.concatenate(rows)

    def mean_products(self, weights: Weights, precision: Precision = "fp32") -> NDArray[np.float64]:
        """G: weights (n, M) -> (T, M), the gradient taken with respect to u as a leaf."""
        total = np.zeros((len(self.scores), self.count))
        for u in self._batches(weights):
            u.requires_grad_(True)
            with autocast(precision, u.device):
                values = self.scores(u)  # (B, T)
            if not values.requires_grad:  # the detector does not look at its input at all
                continue
            summed = values.sum(0)  # masked images do not see each other
            for t in range(len(total)):
                (gradient,) = torch.autograd.grad(
                    summed[t], u, retain_graph=t + 1 < len(total), allow_unused=True
                )
                if gradient is not None:
                    total[t] += self._segment_sums(gradient)
        return total / len(weights)

    def weighted_products(
        self, weights: Weights, coefficients: Weights, precision: Precision = "fp32"
    ) -> NDArray[np.float64]:
        """sum_k c_i(k) sum_{p in S_i, channels} (x - b)_p ds/du_p at u(W_k): weights, c (n, M) -> (T, M)."""
        total = np.zeros((len(self.scores), self.count))
        start = 0
        for u in self._batches(weights):
            c = torch.from_numpy(coefficients[start : start + len(u)]).to(u.device)  # (B, M)
            start += len(u)
            per_pixel = c.index_select(1, self.labels).view(len(u), 1, *self.shape)
            u.requires_grad_(True)
            with autocast(precision, u.device):
                values = self.scores(u)  # (B, T)
            if not values.requires_grad:
                continue
            summed = values.sum(0)
            for t in range(len(total)):
                (gradient,) = torch.autograd.grad(
                    summed[t], u, retain_graph=t + 1 < len(total), allow_unused=True
                )
                if gradient is not None:
                    total[t] += self._segment_sums(gradient * per_pixel)
        return total

    def samples(
        self,
        weights: Weights,
        precision: Precision = "fp32",
        *,
        network: nn.Module | None = None,
        layers: Sequence[InnerLayer] = (),
    ) -> NDArray[np.float64]:
        """The products that `mean_products` averages, sample by sample, and the same at inner layers.

        Args:
            weights: (n, M). network, layers: where the inner layers lie, and which.
        Returns:
            (1 + layers, T, n, M); first the input's.
        """
        found = np.zeros((1 + len(layers), len(self.scores), len(weights), self.count))
        start = 0
        with recorded(network, [layer.name for layer in layers]) as outputs:
            for u in self._batches(weights):
                rows = slice(start, start + len(u))
                start += len(u)
                u.requires_grad_(True)
                with autocast(precision, u.device):
                    values = self.scores(u)  # (B, T)
                if not values.requires_grad:
                    continue
                summed = values.sum(0)
                wanted = [u, *(outputs[layer.name] for layer in layers)]
                reached = [n for n, value in enumerate(wanted) if value.requires_grad]
                for t in range(len(self.scores)):
                    gradients = torch.autograd.grad(
                        summed[t],
                        [wanted[n] for n in reached],
                        retain_graph=t + 1 < len(self.scores),
                        allow_unused=True,
                    )
                    for n, gradient in zip(reached, gradients, strict=True):
                        if gradient is not None:
                            sums = self._sums_each(gradient) if n == 0 else layers[n - 1].sums(gradient)
                            found[n, t, rows] = sums.double().cpu().numpy()
        return found

    def _batches(self, weights: Weights) -> Iterator[Tensor]:
        """Yield u (B, 3, h, w)."""
        if weights.shape[1] != self.count:
            raise InputError(f"explain: expected weights of {self.count} segments, got {weights.shape[1]}")
        all_weights = torch.from_numpy(weights).to(self.labels.device)
        for start in range(0, len(weights), self.batch_size):
            w = all_weights[start : start + self.batch_size]  # (B, M)
            per_pixel = w.index_select(1, self.labels).view(len(w), 1, *self.shape)
            u = torch.addcmul(self.baseline, per_pixel, self.difference)
            # A third less time on YOLOX's depthwise convolutions, neutral on plain ones. The weights keep
            # their layout: other stages share the detector and must see the same rounding.
            yield u.contiguous(memory_format=torch.channels_last)

    def _sums_each(self, gradient: Tensor) -> Tensor:
        """sum_{p in S_i, channels} (x - b)_p g_p of each image: gradient (B, 3, h, w) -> (B, M)."""
        per_pixel = (gradient * self.difference).sum(1).flatten(1)  # (B, h w)
        sums = torch.zeros(len(gradient), self.count, device=gradient.device)
        return sums.index_add_(1, self.labels, per_pixel.float())

    def _segment_sums(self, gradient: Tensor) -> NDArray[np.float64]:
        """sum_{p in S_i, channels} (x - b)_p sum_k g_p(k): gradient (B, 3, h, w) -> (M,), in float64."""
        per_pixel = (gradient.sum(0) * self.difference).sum(0)  # (h, w)
        weights = per_pixel.double().cpu().numpy().ravel()
        return np.asarray(np.bincount(self.flat, weights=weights, minlength=self.count), dtype=np.float64)
