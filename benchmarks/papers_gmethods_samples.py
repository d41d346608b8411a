"""What fills do to pictures and to the detector (Agarwal & Nguyen, ACCV 2020, Table 1, sections 5.1 and 5.2).

In: scenes and fills. Out: the fill study; probability changes of patches outside the box; top-1 labels of
LIME's perturbed images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from papers_scenes import DATA, Part, SceneCase, Table
from torch import Tensor

from curator.boxes import iou
from curator.detect.base import Detector
from curator.explain.base import HoleFill, Target
from curator.explain.fills.fill import fill_many, make_fill
from curator.explain.measures.fills import FillCall, fill_study
from curator.explain.measures.localisation import box_mask
from curator.explain.methods.lime import neighbourhood
from curator.represent.pixel_maps import Labels, Map
from store.records import GridMap

_FOUND = 0.5  # score and IoU at which an object counts as recognised


def fills_table(
    part: Part, detector: Detector, inpainter: HoleFill, cases: Sequence[SceneCase], most: int
) -> None:
    """Table 1: what is left of an object whose pixels are filled."""
    objects: list[tuple[Tensor, Tensor]] = []
    truth: list[tuple[str, tuple[float, float, float, float]]] = []
    for case in cases:
        boxes = np.array([a.box for a in case.scene.annotations])
        for outcome in case.of_kind("TP"):
            number = int(iou(np.array([outcome.box]), boxes)[0].argmax())
            mask = np.any([*case.scene.part_masks[number].values()], axis=0)
            objects.append((case.image, torch.from_numpy(mask)))
            truth.append((outcome.category, outcome.box))
    objects, truth = objects[:most], truth[:most]

    def recognised(image: Tensor, number: int) -> bool:
        found, _ = detector.predict([image], score_threshold=_FOUND)[0]
        category, box = truth[number]
        same = np.array([detector.classes[label] == category for label in found.labels], dtype=bool)
        return bool(same.any() and iou(np.array([box]), found.boxes[same]).max() >= _FOUND)

    fills: dict[str, FillCall] = {}
    for name in ("blur", "mean", "noise", "inpaint"):
        fill = inpainter if name == "inpaint" else make_fill(name, detector, method="fills", takes=("hole",))
        assert not fill.continuous
        fills[name] = fill.fill
    results = fill_study(objects, fills, recognised)
    part.tables["Table 1: what fills leave of an object"] = Table(
        f"{DATA}, {len(objects)} found flowers filled inside their true silhouettes; accuracy: still found "
        f"at score and IoU 0.5. Lower is better for both. LPIPS is left out: it needs ImageNet weights that "
        f"nothing here brings. The paper: 1,000 birds, Inception-v3, DeepLab masks.",
        [{"fill": r.name, "n": r.count, "accuracy": r.accuracy, "ms_ssim": r.ms_ssim} for r in results],
    )
    by_name = {r.name: r for r in results}
    for other in ("blur", "mean"):
        change = by_name["inpaint"].accuracy - by_name[other].accuracy
        part.claim(f"Table 1: accuracy left by the inpainter - {other}", "< 0", change, change < 0)
        change = by_name["inpaint"].ms_ssim - by_name[other].ms_ssim
        part.claim(f"Table 1: MS-SSIM of the inpainter - {other}", "< 0", change, change < 0)


def outside_box(case: SceneCase, targets: Sequence[Target], maps: Sequence[Map], patch: int) -> list[float]:
    """|F(x) - F(patched)| of every window that does not touch the target's box (section 5.1)."""
    changes = []
    for target, found in zip(targets, maps, strict=True):
        assert isinstance(found, GridMap)
        assert target.box is not None
        x1, y1, x2, y2 = case.pin.to_input(np.array(target.box)).tolist()
        h, w = case.pin.input_size
        inside = box_mask((x1, y1, x2, y2), (h, w))
        for (row, column), value in np.ndenumerate(found.values):
            x = found.offset[0] + found.scale[0] * column - patch / 2
            y = found.offset[1] + found.scale[1] * row - patch / 2
            if not (inside & box_mask((x, y, x + patch, y + patch), (h, w))).any():
                changes.append(abs(float(value)))
    return changes


@torch.no_grad()
def top_labels(
    detector: Detector,
    case: SceneCase,
    targets: Sequence[Target],
    labels: Labels,
    fill: HoleFill | Tensor,
    samples: int,
) -> list[int]:
    """Top-1 label of each target's candidate on LIME's samples (section 5.2), the clean first one left out.

    Args:
        fill: a hole fill, or a baseline (3, h, w).
    Returns:
        n T labels: -1 the target's own, K the background, else the class.
    """
    members = neighbourhood(labels, samples, seed=0, image_key=case.key)[1:]
    index = torch.tensor([target.candidate for target in targets])
    own = np.array([target.label for target in targets])
    found: list[int] = []
    for start in range(0, len(members), 16):
        holes = torch.from_numpy(~members[start : start + 16])[:, torch.from_numpy(labels.astype(np.int64))]
        u = (
            torch.where(holes[:, None], fill, case.image)
            if isinstance(fill, Tensor)
            else fill_many(fill, case.image, holes, [0] * len(holes))
        )
        scores = detector.candidates(u, case.pin, index=index).scores  # (B, T, K)
        background = 1 - scores.sum(-1, keepdim=True)
        top = torch.cat([scores, background], -1).argmax(-1).numpy()  # (B, T)
        found += np.where(top == own[None, :], -1, top).ravel().tolist()
    return found
