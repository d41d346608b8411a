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
        initial: Tensor | None = None,
        strength: float = 1.0,
        prompts: Sequence[str] | None = None,
        negative_prompts: Sequence[str] | None = None,
        exemplars: Sequence[Tensor] | None = None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Repaint.

        Args:
            images: (B, 3, H, W) float32 RGB [0, 1].
            masks: (B, H, W) bool, True = repaint.
            initial: (B, 3, H, W), a composition to start from inside the holes; None: from noise.
            strength: in [0, 1], how much of `initial` is given up: 0 keeps it, 1 paints from nothing (SDEdit,
                Meng et al., ICLR 2022, arXiv:2108.01073).
            prompts: per image, what is painted.
            negative_prompts: per image, what must not be.
            exemplars: per image (3, h, w) RGB [0, 1], what to paint; sizes may differ.
            seeds: B ints.
        Returns:
            (B, 3, H, W); pixels where the mask is False come back bit-identical.
        """
