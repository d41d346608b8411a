"""How YOLO detectors lay an image into their input, and how they choose detections from their candidates.

In: a stored image of (H, W). Out: the image resized with its aspect ratio kept, in the middle of a grey
input.
Shared by exports (`yolo`) and by `ultralytics`; needs no extra package.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curator.detect.postprocess import suppress
from curator.detect.pyramid import clip_to_picture
from store.records import Detections, Pin

LAYOUT = 2  # 2: each axis has its own scale, that of its whole pixels; before, both had the same
GREY = 114 / 255
NMS_IOU = 0.7
TOP_K = 3000  # candidates per class that enter NMS
TOTAL = 3000  # candidates of all classes that enter NMS
DETECTIONS = 300  # detections per image


def letterbox(image_size: tuple[int, int], input_size: tuple[int, int], step: int | None = None) -> Pin:
    """The pin of an image: on whole pixels, in the middle.

    Args:
        image_size: (H, W) of the stored image.
        input_size: (h, w) that it must fit into.
        step: pad each side only to the next multiple of it (the smallest rectangle), instead of to
            `input_size`.
    """
    ratio = min(input_size[0] / image_size[0], input_size[1] / image_size[1])
    height, width = (max(1, round(side * ratio)) for side in image_size)
    rows, columns = input_size[0] - height, input_size[1] - width  # of padding
    if step is not None:
        rows, columns = rows % step, columns % step
    return Pin(
        image_size=image_size,
        input_size=(height + rows, width + columns),
        scale=(width / image_size[1], height / image_size[0]),
        offset=(float(round(columns / 2 - 0.1)), float(round(rows / 2 - 0.1))),
    )


def place(image: Tensor, pin: Pin, padding: float, *, antialias: bool = False) -> Tensor:
    """Stored image (3, H, W) -> (3, h, w) RGB [0, 1]: resized as the pin says, then padded."""
    size = (round(pin.image_size[0] * pin.scale[1]), round(pin.image_size[1] * pin.scale[0]))
    if tuple(image.shape[-2:]) != size:
        image = F.interpolate(
            image[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
        )[0]
    (h, w), left, top = pin.input_size, round(pin.offset[0]), round(pin.offset[1])
    return F.pad(image, (left, w - size[1] - left, top, h - size[0] - top), value=padding)


def choose(
    scores: Tensor,
    boxes: Tensor,
    pin: Pin,
    *,
    score_threshold: float,
    nms_iou: float = NMS_IOU,
    top_k: int = TOP_K,
    single_label: bool = True,
    clips_last: bool = True,
) -> Detections:
    """Detections of one image, best first.

    Args:
        scores: (A, K). boxes: (A, 4) xyxy in the input frame.
        single_label: a candidate can only be a detection of its best class.
        clips_last: NMS compares boxes that may reach beyond the image.
    """
    if single_label:
        scores = torch.where(scores == scores.amax(-1, keepdim=True), scores, 0.0)
    found = suppress(
        scores,
        boxes if clips_last else clip_to_picture(boxes, pin),
        pin,
        score_threshold=score_threshold,
        iou_threshold=nms_iou,
        top_k=top_k,
        limit=min(DETECTIONS, len(scores)),
        total=TOTAL,
    )
    if not clips_last:
        return found
    height, width = pin.image_size
    return replace(found, boxes=found.boxes.clip(0, np.array([width, height, width, height], np.float32)))
