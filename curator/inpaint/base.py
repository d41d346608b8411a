"""The inpainter seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Inpainter(Protocol):
    """Repaints the masked part of images."""

    fingerprint: str

    def inpaint(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        prompts: Sequence[str] | None = None,
        exemplars: Tensor | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Repaint.

        Args:
            images: (B, 3, H, W) float32 RGB [0, 1]. masks: (B, H, W) bool, True = repaint.
            exemplars: (B, 3, h, w) RGB [0, 1], what to paint. seeds: B ints.
        Returns:
            (B, 3, H, W); pixels where the mask is False come back bit-identical.
        """
