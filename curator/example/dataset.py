"""Data sets of rendered scenes on disk: JPEG images and COCO annotations per role.

In: a folder, the number of scenes per role, a seed. Out: `OUT/ROLE/images/*.jpg` and
`OUT/ROLE/annotations.json`. A scene is drawn by (seed, role, index, gap), gaps by (seed, role); every
image is encoded alike, so that neither file name nor compression betrays a gap. A role that is complete with
equal parameters is left alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curator.config import require
from curator.example.flowers import CLASSES
from curator.example.gaps import GAPS, Gap
from curator.example.scene import RENDERER_VERSION, RenderedScene, SceneParams, render_scene
from curator.progress import progress
from store.records import ROLES, Role

POOL_RATE = 0.015  # of each gap
FAILURE_SHARE = 0.78  # of the scenes of mine and holdout that have a gap, each gap alike
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRates:
    """How often a scene has a gap; training scenes never have one.

    Attributes:
        pool: rate of each gap. mine, holdout: share of scenes with any gap, each gap alike.
    """

    pool: float = POOL_RATE
    mine: float = FAILURE_SHARE
    holdout: float = FAILURE_SHARE

    def __post_init__(self) -> None:
        require(
            0 <= self.pool * len(GAPS) <= 1, f"pool rate: expected 0 to {1 / len(GAPS):.3f}, got {self.pool}"
        )
        for name in ("mine", "holdout"):
            require(0 <= getattr(self, name) <= 1, f"{name} rate: expected 0 to 1, got {getattr(self, name)}")

    def of_any(self, role: Role) -> float:
        """Probability that a scene of `role` has a gap."""
        return {"train": 0.0, "pool": self.pool * len(GAPS), "mine": self.mine, "holdout": self.holdout}[role]


def draw_gaps(role: Role, count: int, seed: int, rates: GapRates) -> list[Gap | None]:
    """The gap of each of `count` scenes: every gap in its exact share (rounded), at places drawn by `seed`.

    Drawn scene by scene, a gap meant for 1.5% of 3,200 pool images would hold 1.1 to 1.9% of them by chance.
    """
    each = round(count * rates.of_any(role) / len(GAPS))
    gaps: list[Gap | None] = [gap for gap in GAPS for _ in range(each)]
    gaps = (gaps + [None] * count)[:count]
    order = np.random.default_rng([seed, ROLES.index(role), 1]).permutation(count)
    return [gaps[place] for place in order]


def scenes(
    role: Role, count: int, *, seed: int = 0, size: int = 192, rates: GapRates | None = None
) -> Iterator[RenderedScene]:
    """Render the scenes of a role, one at a time."""
    gaps = draw_gaps(role, count, seed, rates or GapRates())
    for index, gap in enumerate(gaps):
        yield render_scene(SceneParams(role=role, index=index, seed=seed, size=size, gap=gap))


def write_dataset(
    out: Path, *, sizes: Mapping[Role, int], seed: int = 0, size: int = 192, rates: GapRates | None = None
) -> dict[Role, Path]:
    """Render data sets.

    Args:
        sizes: number of scenes per role; roles with 0 are left out. size: side of a scene in px.
    Returns:
        the folder of each role, as `curator add coco` takes it.
    Raises:
        ConfigError: an unknown role, a negative number, or a size outside 96 to 1024 px.
    """
    rates = rates or GapRates()
    require(96 <= size <= 1024, f"size: expected 96 to 1024 px, got {size}")
    for role, count in sizes.items():
        require(role in ROLES, f"sizes: expected the roles {', '.join(ROLES)}, got {role!r}")
        require(count >= 0, f"{role}: expected 0 scenes or more, got {count}")
    folders: dict[Role, Path] = {}
    for role, count in sizes.items():
        if count:
            folders[role] = out / role
            described = {
                "version": RENDERER_VERSION,
                "role": role,
                "count": count,
                "seed": seed,
                "size": size,
                "gap_rate": rates.of_any(role),
                "gaps": "exact shares",
            }
            if _described(folders[role]) != described:
                _write_role(folders[role], role, described, rates)
    return folders


def _write_role(folder: Path, role: Role, described: Mapping[str, Any], rates: GapRates) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    size, seed, count = described["size"], described["seed"], described["count"]
    with progress(f"render {role}", count) as advance:
        for index, scene in enumerate(scenes(role, count, seed=seed, size=size, rates=rates)):
            name = f"{role}-{seed}-{index:05d}.jpg"
            Image.fromarray(scene.pixels).save(part / "images" / name, quality=JPEG_QUALITY, subsampling=0)
            images.append(
                {
                    "id": index + 1,
                    "file_name": f"images/{name}",
                    "width": size,
                    "height": size,
                    "tags": dict(scene.tags),
                }
            )
            for annotation in scene.annotations:
                x1, y1, x2, y2 = annotation.box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": CLASSES.index(annotation.category) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "attributes": dict(annotation.attributes),
                    }
                )
            advance()
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    (part / "annotations.json").write_text(
        json.dumps(
            {
                "info": {
                    "description": "curator's built-in example: flowers with planted gaps",
                    "renderer": described,
                },
                "images": images,
                "annotations": annotations,
                "categories": categories,
            }
        ),
        encoding="utf-8",
    )
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _described(folder: Path) -> dict[str, Any] | None:
    """The parameters that a finished role was rendered with; None when it is absent or not ours."""
    try:
        described: dict[str, Any] = json.loads((folder / "annotations.json").read_text())["info"]["renderer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return described
