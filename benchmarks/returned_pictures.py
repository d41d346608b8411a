"""Which changed copies of a photograph count as the photograph, when a file bears its exported name.

`python benchmarks/returned_pictures.py FOLDER [FOLDER ...]` takes up to 120 images of each folder, changes
them as labelling tools do (Roboflow's preprocessing and augmentations), and asks `store.likeness.in_place`,
as `curator add` does. Stretched and written anew must be taken; mirrored, turned and cut must not, as their
boxes lie elsewhere. Prints a table and writes benchmarks/results/returned_pictures.json.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from environment import machine, versions
from PIL import Image, ImageEnhance, ImageOps

from store.appearance import Planes, appearance, planes
from store.leaks import THRESHOLD
from store.likeness import in_place

IMAGES = 120
SUFFIXES = (".jpg", ".jpeg", ".png")


def written(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cut(image: Image.Image, share: float) -> Image.Image:
    """Without a strip of that share at the left and the top."""
    return image.crop((round(image.width * share), round(image.height * share), image.width, image.height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "stretched to 640 x 640, JPEG 85": lambda image: written(image.resize((640, 640)), 85),
    "stretched to 416 x 416, JPEG 75": lambda image: written(image.resize((416, 416)), 75),
    "brighter by 1.2": lambda image: written(ImageEnhance.Brightness(image).enhance(1.2), 85),
    "mirrored": ImageOps.mirror,
    "turned by 90 degrees": lambda image: image.rotate(90, expand=True),
    "cut by 3%": lambda image: cut(image, 0.03),
    "cut by 10%": lambda image: cut(image, 0.1),
}


def seen(image: Image.Image) -> Planes:
    return planes(appearance(image).thumbnail)


def main() -> None:
    rows = []
    for folder in map(Path, sys.argv[1:]):
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        files = random.Random(0).sample(files, min(IMAGES, len(files)))
        taken, others = dict.fromkeys(CHANGES, 0), 0
        before: Planes | None = None
        for file in files:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
            own = seen(image)
            for name, change in CHANGES.items():
                taken[name] += in_place(own, seen(change(image))) <= THRESHOLD
            others += before is not None and in_place(own, before) <= THRESHOLD
            before = own
        print(f"{folder.name}: {len(files)} images")
        for name, count in {**taken, "another image of the folder": others}.items():
            print(f"  {name:33} {count:4} taken")
        rows.append({"folder": folder.name, "images": len(files), "taken": taken, "another": others})
    result = {"rows": rows, "threshold": THRESHOLD, "machine": machine(), "versions": versions("pillow")}
    path = Path(__file__).parent / "results" / "returned_pictures.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
