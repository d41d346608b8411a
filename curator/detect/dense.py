"""One-stage detectors over a feature pyramid, whose candidates are the cells' anchors: RetinaNet and FCOS.

In: stored images or masked inputs. Out: detections with their anchor's index, candidates with gradients,
losses. Candidates are ordered by level, row, column, anchor, as torchvision's heads give them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from curator.detect.base import Candidates
from curator.detect.checking import check_asked
from curator.detect.postprocess import best_of_levels, suppress
from curator.detect.pyramid import PyramidDetector, clip_to_picture, to_image
from store.records import Detections, Pin

HeadOutputs = dict[str, Tensor]  # each (B, A, ...)


class DenseDetector(PyramidDetector, ABC):
    """RetinaNet and FCOS differ in their scores, their decoding and their loss."""

    plain_pin = True

    @abstractmethod
    def _score(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Scores and log-odds (B, q, K), without the background column that torchvision never trains."""

    @abstractmethod
    def _decode(self, outputs: HeadOutputs, anchors: Tensor) -> Tensor:
        """Boxes (B, q, 4) of the input frame, for anchors (q, 4)."""

    @abstractmethod
    def _losses(
        self, outputs: HeadOutputs, anchors: list[Tensor], targets: list[dict[str, Tensor]], cells: list[int]
    ) -> dict[str, Tensor]:
        """torchvision's losses; `cells` per level."""

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects after NMS; see `Detector.predict`."""
        results: dict[int, tuple[Detections, Pin]] = {}
        for numbers, pins, batch in self._batches(images):
            maps = list(self._features(batch).values())
            outputs = self._heads(maps)
            anchors = self._grid(self.network.anchor_generator, pins[0].input_size, maps)
            scores = self._score(outputs)[0]
            boxes = self._decode(outputs, anchors)
            per_cell = len(anchors) // sum(_cells(maps))
            for i, (number, pin) in enumerate(zip(numbers, pins, strict=True)):
                best = best_of_levels(
                    scores[i], [per_cell * cells for cells in _cells(maps)], self.network.topk_candidates
                )
                found = suppress(
                    best,
                    clip_to_picture(boxes[i], pin),
                    pin,
                    score_threshold=score_threshold,
                    iou_threshold=self.network.nms_thresh,
                    top_k=len(anchors),
                    limit=self.network.detections_per_img,
                )
                results[number] = (found, pin)
        return [results[number] for number in range(len(images))]

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Candidates of masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`."""
        check_asked(u, index, levels, self.levels)
        maps = self._features(u)
        named = self._named(maps, levels)
        if index is not None and index.numel() == 0:
            none = u.new_zeros((len(u), 0, len(self.classes)), dtype=torch.float32)
            return Candidates(none, none, none.new_zeros((len(u), 0, 4)), named)
        outputs = self._heads(list(maps.values()))
        anchors = self._grid(self.network.anchor_generator, pin.input_size, list(maps.values()))
        if index is not None:
            index = index.to(anchors.device)
            outputs, anchors = {name: values[:, index] for name, values in outputs.items()}, anchors[index]
        scores, log_odds = self._score(outputs)
        boxes = clip_to_picture(self._decode(outputs, anchors), pin)
        return Candidates(scores, log_odds, to_image(boxes, pin), named)

    def loss(self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """torchvision's losses in train mode; an image without objects is all background.

        Raises:
            InputError: a box without area, or a label outside the classes.
        """
        batch, sizes, wanted = self._training_batch(images, targets)
        self.network.train()
        try:
            maps = list(self._features(batch).values())
            outputs = self._heads(maps)
        finally:
            self.network.eval()
        anchors = self.network.anchor_generator(ImageList(batch, sizes), maps)
        return self._losses(outputs, anchors, wanted, _cells(maps))

    def _heads(self, maps: Sequence[Tensor]) -> HeadOutputs:
        """Feature maps -> head outputs (B, A, ...), in fp32 even under autocast."""
        with torch.autocast(self.device.type, enabled=False):
            outputs: HeadOutputs = self.network.head([values.float() for values in maps])
        return outputs


def _cells(maps: Sequence[Tensor]) -> list[int]:
    return [int(values.shape[-2] * values.shape[-1]) for values in maps]
