"""From candidate scores to detections: threshold, top-k per class, NMS; every detection keeps its candidate.

In: scores (A, K) and boxes (A, 4) or (A, K, 4) of one image. Out: `Detections`. Equal to torchvision's
`SSD.postprocess_detections`, without its loop over classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from store.records import Detections, Pin


def suppress(
    scores: Tensor,
    boxes: Tensor,
    pin: Pin,
    *,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    limit: int,
    total: int | None = None,
) -> Detections:
    """Threshold, keep the `top_k` best per class, suppress per class, keep the `limit` best.

    Args:
        scores: (A, K) probabilities without background.
        boxes: (A, 4), or (A, K, 4) where a box is decoded per class; input frame.
        score_threshold: scores must exceed it (0 keeps every positive score).
        total: at most so many enter NMS, over all classes; None for no such limit.
    """
    by_class = scores.t()  # (K, A)
    keep = by_class > score_threshold
    if keep.shape[1] > top_k and int(keep.sum(1).max()) > top_k:
        values, candidates = by_class.topk(top_k, dim=1)  # (K, top_k)
        labels = torch.arange(len(by_class), device=scores.device)[:, None].expand_as(values)
        kept = values > score_threshold
        values, candidates, labels = values[kept], candidates[kept], labels[kept]
    else:
        labels, candidates = keep.nonzero(as_tuple=True)
        values = by_class[labels, candidates]
    if total is not None and len(values) > total:  # NMS is quadratic
        values, best = values.topk(total)
        labels, candidates = labels[best], candidates[best]
    decoded = boxes[candidates] if boxes.ndim == 2 else boxes[candidates, labels]
    chosen = batched_nms(decoded, values, labels, iou_threshold)[:limit]
    return Detections(
        boxes=pin.to_image(decoded[chosen].cpu().numpy()),
        scores=values[chosen].cpu().numpy(),
        labels=labels[chosen].cpu().numpy(),
        candidates=candidates[chosen].cpu().numpy(),
    )


def best_of_levels(scores: Tensor, counts: Sequence[int], top_k: int) -> Tensor:
    """Scores (A, K) of which each level's `top_k` best, over all its candidates and classes, are kept.

    Args:
        counts: candidates of each level, in order; they sum to A.
    Returns:
        (A, K), the others 0: torchvision's RetinaNet and FCOS let no more into NMS.
    """
    kept = scores.new_zeros(scores.shape)
    start = 0
    for count in counts:
        level = scores[start : start + count].reshape(-1)
        values, places = level.topk(min(top_k, len(level)))
        kept[start : start + count].view(-1)[places] = values
        start += count
    return kept


def softmax_log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of softmax probabilities, without loss: z_c - logsumexp of the others.

    Args:
        logits: (..., C) float32.
    Returns:
        (..., C). Subtracting e^z_c from the sum loses nothing except for the largest class, whose rest is
        summed on its own.
    """
    top = logits.argmax(-1, keepdim=True)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, top, True)
    largest = logits.amax(-1, keepdim=True).detach()
    powers = (logits - largest).exp()
    rest = (powers.sum(-1, keepdim=True) - powers).masked_fill(is_top, 1.0)
    rest_of_top = logits.masked_fill(is_top, float("-inf")).logsumexp(-1, keepdim=True)
    return logits - torch.where(is_top, rest_of_top, rest.log() + largest)


def probability_log_odds(probability: Tensor) -> Tensor:
    """log p - log(1 - p) of float32 probabilities, clamped to [1e-12, 1 - 6e-8]: log-odds in about
    [-27.6, 16.6]. Beyond the clamp the gradient is zero; use logits where a network gives them."""
    p = probability.clamp(1e-12, 1 - 6e-8)
    return p.log() - torch.log1p(-p)


def joint_log_odds(objectness: Tensor, classes: Tensor) -> Tensor:
    """Log-odds of p = objectness * class: log p = the sum of their logarithms, each factor clamped at 1e-30
    and p at 1 - 6e-8.

    Args:
        objectness: (..., 1). classes: (..., K).
    """
    logarithm = objectness.clamp(min=1e-30).log() + classes.clamp(min=1e-30).log()
    return logarithm - torch.log1p(-(objectness * classes).clamp(max=1 - 6e-8))
