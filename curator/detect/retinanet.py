"""RetinaNet as a `Detector`: torchvision's `RetinaNet` with any backbone (Lin et al., ICCV 2017).

A candidate is an anchor a; its score for class c is sigmoid(cls_logits[a, c]), its log-odds the logit itself.
"""

from __future__ import annotations

from torch import Tensor

from curator.detect.dense import DenseDetector, HeadOutputs


class RetinaNetDetector(DenseDetector):
    """A torchvision `RetinaNet` behind the `Detector` and `TrainableDetector` protocols."""

    def _score(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        logits = outputs["cls_logits"][..., 1:]
        return logits.sigmoid(), logits

    def _decode(self, outputs: HeadOutputs, anchors: Tensor) -> Tensor:
        deltas = outputs["bbox_regression"]
        anchors = anchors.expand(len(deltas), -1, 4).reshape(-1, 4)
        boxes: Tensor = self.network.box_coder.decode_single(deltas.reshape(-1, 4), anchors)
        return boxes.view(deltas.shape)

    def _losses(
        self, outputs: HeadOutputs, anchors: list[Tensor], targets: list[dict[str, Tensor]], cells: list[int]
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.network.compute_loss(targets, outputs, anchors)
        return losses
