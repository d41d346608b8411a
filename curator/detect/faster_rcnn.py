"""Faster R-CNN as a `Detector`: torchvision's `FasterRCNN` with any backbone (Ren et al., NeurIPS 2015).

A candidate is a proposal p of the *clean* image: `predict` freezes the proposals in the pin, and masked
inputs are scored at these places, so that a candidate stays the same thing. Its score for class c is
softmax(box_predictor(roi_pool(features(u), proposals)))[p, c]; a box is decoded per class.

Every image is run alone: a rounding difference from batch mates could add or drop a proposal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from curator.detect.base import Candidates
from curator.detect.checking import check_asked
from curator.detect.postprocess import softmax_log_odds, suppress
from curator.detect.pyramid import PyramidDetector, clip_to_picture, to_image
from curator.errors import InputError
from store.records import Detections, Pin

SMALLEST = 0.01  # px of the input frame: torchvision drops boxes with a smaller side


class FasterRcnnDetector(PyramidDetector):
    """A torchvision `FasterRCNN` behind the `Detector` and `TrainableDetector` protocols.

    Its levels are those that the box head pools from; the coarsest map serves the proposals alone.
    """

    pooled = frozenset({"pool"})

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS; the pins hold the proposals. See `Detector.predict`."""
        results = []
        for image in images:
            pin = self.pin(image)
            maps = self._float(self._features(self.prepare(image, pin)[None]))
            with torch.autocast(self.device.type, enabled=False):
                blank = ImageList(
                    torch.empty(1, 3, *pin.input_size, device=self.device), [self._resized(*pin.image_size)]
                )
                proposals = self.network.rpn(blank, maps)[0][0]
            pin = replace(pin, proposals=proposals.cpu().numpy().astype(np.float32))
            logits, boxes = self._classify(maps, proposals, pin)
            sides = boxes[0, ..., 2:] - boxes[0, ..., :2]
            scores = logits.softmax(-1)[0, :, 1:] * (sides >= SMALLEST).all(-1)
            found = suppress(
                scores,
                boxes[0],
                pin,
                score_threshold=score_threshold,
                iou_threshold=self.network.roi_heads.nms_thresh,
                top_k=len(proposals),
                limit=self.network.roi_heads.detections_per_img,
            )
            results.append((found, pin))
        return results

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Frozen proposals on masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`.

        Raises:
            InputError: a pin without proposals; `predict` gives them.
        """
        check_asked(u, index, levels, self.levels)
        maps = self._features(u)
        named = self._named(maps, levels)
        alone = index is not None and index.numel() == 0  # features alone need no proposals
        proposals = u.new_zeros((0, 4)) if alone else self._frozen(pin, index)
        if not len(proposals):
            none = u.new_zeros((len(u), 0, len(self.classes)), dtype=torch.float32)
            return Candidates(none, none, none.new_zeros((len(u), 0, len(self.classes), 4)), named)
        logits, boxes = self._classify(self._float(maps), proposals, pin)
        return Candidates(
            logits.softmax(-1)[..., 1:], softmax_log_odds(logits)[..., 1:], to_image(boxes, pin), named
        )

    def loss(self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Losses of the proposals and of the box head, in train mode; heads run in fp32.

        Which anchors and proposals are sampled is a function of the weights and the targets alone, so that
        a training that was killed continues as if it had not been.

        Raises:
            InputError: a box without area, or a label outside the classes.
        """
        batch, sizes, wanted = self._training_batch(images, targets)
        draw = _sampler(self.network.rpn.head.cls_logits.bias, targets)
        for part in (self.network.rpn, self.network.roi_heads):
            sampler = part.fg_bg_sampler
            part.fg_bg_sampler = KeyedSampler(sampler.batch_size_per_image, sampler.positive_fraction, draw)
        self.network.train()
        try:
            maps = self._float(self._features(batch))
            with torch.autocast(self.device.type, enabled=False):
                proposals, losses = self.network.rpn(ImageList(batch, sizes), maps, wanted)
                losses.update(self.network.roi_heads(maps, proposals, sizes, wanted)[1])
        finally:
            self.network.eval()
        result: dict[str, Tensor] = losses
        return result

    def _frozen(self, pin: Pin, index: Tensor | None) -> Tensor:
        """The pin's proposals (q, 4), all or some."""
        if pin.proposals is None:
            raise InputError(
                f"candidates: expected a pin with the proposals that predict froze, got one without; "
                f"run curator detect again with {self.spec}"
            )
        proposals = torch.from_numpy(pin.proposals).to(self.device)
        return proposals if index is None else proposals[index.to(self.device)]

    def _classify(self, maps: dict[str, Tensor], proposals: Tensor, pin: Pin) -> tuple[Tensor, Tensor]:
        """Maps of B inputs, proposals (q, 4) -> logits (B, q, 1 + K) and boxes (B, q, K, 4), clipped."""
        heads = self.network.roi_heads
        count, size = len(next(iter(maps.values()))), self._resized(*pin.image_size)
        with torch.autocast(self.device.type, enabled=False):
            pooled = heads.box_roi_pool(maps, [proposals] * count, [size] * count)
            logits, deltas = heads.box_predictor(heads.box_head(pooled))
            boxes = heads.box_coder.decode(deltas, [proposals] * count)
        logits = logits.view(count, len(proposals), -1)
        boxes = boxes.view(count, len(proposals), -1, 4)[:, :, 1:]
        return logits, clip_to_picture(boxes, pin)

    @staticmethod
    def _float(maps: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values.float() for name, values in maps.items()}


class KeyedSampler:
    """torchvision's balanced sampling of anchors or proposals, from numbers of its own.

    Args:
        count: sampled per image. positive: at most this share of them are positive.
        draw: gives a permutation of n.
    """

    def __init__(self, count: int, positive: float, draw: Callable[[int], Tensor]) -> None:
        self.batch_size_per_image, self.positive_fraction, self._draw = count, positive, draw

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (n,) per image, >= 1 positive, 0 negative, -1 ignored -> masks of the sampled ones."""
        positives: list[Tensor] = []
        negatives: list[Tensor] = []
        for label in labels:
            positive = self._some(
                (label >= 1).nonzero()[:, 0], int(self.batch_size_per_image * self.positive_fraction)
            )
            negative = self._some((label == 0).nonzero()[:, 0], self.batch_size_per_image - len(positive))
            for kept, chosen in ((positives, positive), (negatives, negative)):
                mask = torch.zeros_like(label, dtype=torch.uint8)
                mask[chosen] = 1
                kept.append(mask)
        return positives, negatives

    def _some(self, places: Tensor, count: int) -> Tensor:
        if len(places) <= count:
            return places
        return places[self._draw(len(places))[:count].to(places.device)]


def _sampler(bias: Tensor, targets: Sequence[tuple[Tensor, Tensor]]) -> Callable[[int], Tensor]:
    """Permutations keyed by weights that change at every step and by the boxes."""
    digest = hashlib.sha256(bias.detach().float().cpu().numpy().tobytes())
    for boxes, _ in targets:
        digest.update(boxes.detach().float().cpu().numpy().tobytes())
    numbers = torch.Generator().manual_seed(int.from_bytes(digest.digest()[:7], "big"))
    return lambda n: torch.randperm(n, generator=numbers)
