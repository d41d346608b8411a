"""A sheet of samples: what an inpainter in training paints, to be looked at.

In: a pipeline, crops that it is not trained on. Out: a PNG with a row for every crop: the crop, its hole, the
exemplar, what is painted with it, the next row's exemplar, what is painted with that.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from curator.inpaint.exemplar import UNKNOWN, ExemplarInpaintPipeline
from curator.tensors import generator, image_pixels

ROWS = 8
_GAP = 4  # pixels between the pictures


def write_sheet(
    pipe: ExemplarInpaintPipeline,
    crops: tuple[Tensor, Tensor, Tensor],
    place: Path,
    *,
    seed: int = 0,
    steps: int = 12,
) -> None:
    """Write the sheet.

    Args:
        crops: images (B, 3, S, S) and exemplars (B, 3, s, s) in [0, 1], holes (B, 1, S, S); as `Crops.batch`.
        place: the PNG. steps: of the painting.
    """
    images, holes, squares = (part[:ROWS] for part in crops)
    exemplars = [unpadded(square, hole) for square, hole in zip(squares, holes, strict=True)]
    others = exemplars[1:] + exemplars[:1]
    with torch.no_grad():
        pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        painted = [
            pipe(
                images,
                holes,
                given,
                num_inference_steps=steps,
                generator=[generator("sheet", seed, i) for i in range(len(images))],
            )
            .images.float()
            .cpu()
            for given in (exemplars, others)
        ]
    masked = torch.where(holes > 0.5, torch.full_like(images, UNKNOWN), images)
    shown = F.interpolate(squares, images.shape[2:], mode="bilinear")
    columns = [images, masked, shown, painted[0], shown.roll(-1, 0), painted[1]]
    rows = [
        torch.cat([F.pad(column[i], (0, _GAP, 0, _GAP), value=1.0) for column in columns], 2)
        for i in range(len(images))
    ]
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_pixels(torch.cat(rows, 1))).save(place)


def unpadded(square: Tensor, hole: Tensor) -> Tensor:
    """The content of a padded exemplar (3, s, s): its middle part, of the aspect of its hole (1, H, W); as it
    stands it would be laid into another hole with its padding around it."""
    rows, columns = hole[0].any(1).nonzero()[:, 0], hole[0].any(0).nonzero()[:, 0]
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    side = square.shape[1]
    h, w = (max(1, round(side * length / max(height, width))) for length in (height, width))
    top, left = (side - h) // 2, (side - w) // 2
    return square[:, top : top + h, left : left + w]
