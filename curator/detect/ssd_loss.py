"""The multibox loss of SSD (Liu et al., ECCV 2016, eq. 1), in which images without objects count too.

In: head outputs, anchors, boxes and labels in the input frame. Out: the two losses. Equal to torchvision's
`SSD.compute_loss` when every image has an object. torchvision takes 3 negatives per positive of the *same*
image, so an image without objects (a hard negative, which mends false positives) would teach nothing; here
such an image gets as many negatives as an average image of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

DEFAULT_POSITIVES = 8  # assumed per image when no image of the batch holds an object


def multibox_loss(
    network: SSD,
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Compute the losses.

    Args:
        logits: (B, A, 1 + K). deltas: (B, A, 4). anchors: (A, 4).
        boxes: per image (n, 4). labels: per image (n,), 1-based (0 is background).
    Returns:
        "classification" and "bbox_regression", both per positive anchor.
    """
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)  # (B, A)
    regression = deltas.new_zeros(())
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if not len(box):
            continue
        matched = network.proposal_matcher(box_iou(box, anchors))  # (A,), -1 = background
        positive = (matched >= 0).nonzero().squeeze(1)
        classes[i, positive] = label[matched[positive]]
        wanted = network.box_coder.encode_single(box[matched[positive]], anchors[positive])
        regression = regression + F.smooth_l1_loss(deltas[i, positive], wanted, reduction="sum")
    positive = classes > 0
    per_image = positive.sum(1, keepdim=True).float()  # (B, 1)
    held = per_image[per_image > 0]
    typical = held.mean() if len(held) else per_image.new_tensor(float(DEFAULT_POSITIVES))
    quota = network.neg_to_pos_ratio * torch.where(per_image > 0, per_image, typical)

    cross_entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")
    cross_entropy = cross_entropy.view_as(classes)
    hardness = cross_entropy.detach().masked_fill(positive, float("-inf"))
    rank = hardness.sort(1, descending=True)[1].sort(1)[1]
    negative = (rank < quota) & ~positive
    count = per_image.sum() if len(held) else per_image.new_tensor(float(DEFAULT_POSITIVES * len(logits)))
    return {
        "classification": (cross_entropy[positive].sum() + cross_entropy[negative].sum()) / count,
        "bbox_regression": regression / count,
    }
