"""Pictures with structure, their copies, and a camera that stores them: for tests of near-duplicates."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from store.images import probe
from store.records import NewImage, Role
from store.store import Store


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with large and small structure."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size)
    for blocks, strength in ((5, 0.6), (24, 0.25), (80, 0.15)):
        noise = rng.integers(0, 256, (blocks * 3 // 4, blocks, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        picture = Image.fromarray((np.asarray(picture) + strength * np.asarray(layer)).astype(np.uint8))
    return picture


def with_object(picture: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    x, y = place
    changed = picture.copy()
    ImageDraw.Draw(changed).ellipse((x, y, x + 24, y + 24), fill=colour)
    return changed


def jpeg(picture: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(picture: Image.Image, x: float, y: float, side: float = 0.9) -> Image.Image:
    width, height = picture.size
    left, top = round(x * (1 - side) * width), round(y * (1 - side) * height)
    return picture.crop((left, top, left + round(side * width), top + round(side * height)))


def moved(picture: Image.Image, x: int, y: int) -> Image.Image:
    """Moved to the right and down; its edge is repeated."""
    wide = np.pad(np.asarray(picture), [(abs(y), abs(y)), (abs(x), abs(x)), (0, 0)], mode="edge")
    left, top = abs(x) - x, abs(y) - y
    return Image.fromarray(wide[top : top + picture.height, left : left + picture.width])


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda p: jpeg(p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC)),
    "larger": lambda p: jpeg(p.resize((p.width * 3 // 2, p.height * 3 // 2), Image.Resampling.BICUBIC)),
    "recompressed": lambda p: jpeg(p, 35),
    "darker": lambda p: jpeg(ImageEnhance.Brightness(p).enhance(0.7)),
    "brighter": lambda p: jpeg(ImageEnhance.Brightness(p).enhance(1.3)),
    "less contrast": lambda p: jpeg(ImageEnhance.Contrast(p).enhance(0.7)),
    "mirrored": lambda p: jpeg(ImageOps.mirror(p)),
    "cropped in the middle": lambda p: jpeg(cropped(p, 0.5, 0.5)),
    "cropped in a corner": lambda p: jpeg(cropped(p, 0.0, 1.0)),
    "cropped anywhere": lambda p: jpeg(cropped(p, 0.3, 0.8)),
    "without a strip of three pixels": lambda p: jpeg(p.crop((3, 0, p.width, p.height))),
    "without three pixels all round": lambda p: jpeg(p.crop((3, 3, p.width - 3, p.height - 3))),
    "moved by three pixels": lambda p: jpeg(moved(p, 3, -2)),
    "moved by seven pixels": lambda p: jpeg(moved(p, -7, 0)),
    "cropped and mirrored": lambda p: jpeg(ImageOps.mirror(cropped(p, 0.6, 0.1))),
}


class Camera:
    """Stores pictures as files of a role."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.run = store.begin_run("add", config={})

    def add(self, picture: Image.Image, role: Role, **more: Any) -> int:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.png"
        picture.save(path)
        seen = probe(path)
        image = NewImage(
            uri=str(path),
            sha256=seen.sha256,
            phash=seen.phash,
            appearance=seen.appearance,
            width=seen.width,
            height=seen.height,
            dataset="set",
            role=role,
            **more,
        )
        return self.store.add_images(self.run, [image])[0].image_id
