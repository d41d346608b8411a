"""FCOS as a `Detector`: torchvision's `FCOS` with any backbone (Tian et al., arXiv:2006.09214).

A candidate is a location l; its score for class c is sqrt(sigmoid(cls_logits[l, c]) sigmoid(centerness[l])).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curator.detect.dense import DenseDetector, HeadOutputs


class FcosDetector(DenseDetector):
    """A torchvision `FCOS` behind the `Detector` and `TrainableDetector` protocols."""

    def _score(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """With l = log p = (log sigmoid(z) + log sigmoid(centerness)) / 2: log-odds = l - log(1 - e^l).

        Nothing is lost where p is near 0 or near 1: l is then a large or a small number in its own right.
        """
        log_p = (F.logsigmoid(outputs["cls_logits"][..., 1:]) + F.logsigmoid(outputs["bbox_ctrness"])) / 2
        log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).tiny)  # p = 1 to the last bit has no log-odds
        return log_p.exp(), log_p - torch.log(-torch.expm1(log_p))

    def _decode(self, outputs: HeadOutputs, anchors: Tensor) -> Tensor:
        boxes: Tensor = self.network.box_coder.decode(outputs["bbox_regression"], anchors)
        return boxes

    def _losses(
        self, outputs: HeadOutputs, anchors: list[Tensor], targets: list[dict[str, Tensor]], cells: list[int]
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.network.compute_loss(targets, outputs, anchors, cells)
        return losses
