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
    images, holes, exemplars = (part[:ROWS] for part in crops)
    others = exemplars.roll(-1, 0)
    with torch.no_grad():
        pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        painted = [
            pipe(
                images,
                holes,
                list(shown),
                num_inference_steps=steps,
                generator=[generator("sheet", seed, i) for i in range(len(images))],
            )
            .images.float()
            .cpu()
            for shown in (exemplars, others)
        ]
    masked = torch.where(holes > 0.5, torch.full_like(images, UNKNOWN), images)
    larger = [F.interpolate(shown, images.shape[2:], mode="bilinear") for shown in (exemplars, others)]
    columns = [images, masked, larger[0], painted[0], larger[1], painted[1]]
    rows = [
        torch.cat([F.pad(column[i], (0, _GAP, 0, _GAP), value=1.0) for column in columns], 2)
        for i in range(len(images))
    ]
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_pixels(torch.cat(rows, 1))).save(place)
