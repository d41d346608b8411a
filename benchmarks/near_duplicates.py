"""How often a copy of a picture is found, and how often a frame of a fixed camera is taken for one.

    python benchmarks/near_duplicates.py [--quick] [--tuning] [--seed N] [--radius N] [--out FILE.json]

The rule, stated before the figures: two pictures are one where the product says so: a hash lies within
`store.duplicates.RADIUS` bits (of the picture, a window of it or its mirror image), and the unlikeness of the
thumbnails is at most 1 (`store.likeness`). Wanted: at least .99 of the planted copies found, at most .02 of a
fixed camera's frames with other objects refused.

Pictures: 120 of vehicles_openimages, 80 of voc100, 80 of coco_val128, 100 of bccd (../shared/data), drawn by
the seed 0. Those whose number leaves 0 or 1 when divided by 4 were looked at while the constants were chosen
(--tuning); the figures are of the others.

copies     each picture resized (35 to 140%, four filters), encoded anew (JPEG quality 25 to 80), brightened
           or darkened (60 to 140%), of changed contrast, mirrored, cropped to 90% of each side at a random
           place; all end as JPEG of quality 90. Beside them: mirrored crops, brightened crops, pictures
           without a strip along one side, pictures moved by a little.
frames     two JPEGs of one background with one or two other objects each: crops of labelled objects of the
           same data set, cut out as ellipses, at random places. The longer side of an object is 10, 15 or 25%
           of the picture's shorter side (5%: beside). `gone`: a frame against the empty background;
           `moved`: the camera moved by .6% of the width between the two (beside).
template   deeppcb_1bit: the tested board against its template, which lacks the defects: different pictures.
others     all pairs of different pictures within a data set. Some may be copies in the data as published.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from store import hash_table
from store.appearance import Planes, appearance, planes
from store.duplicates import candidates
from store.likeness import ALIGNED, WINDOWED, unlikeness

SETS = {
    "vehicles": ("vehicles_openimages/**/*.jpg", 120),
    "voc": ("voc100/**/*.jpg", 80),
    "coco": ("coco_val128/**/*.jpg", 80),
    "bccd": ("bccd/**/*.jp*g", 100),
}
SIZES = (0.05, 0.1, 0.15, 0.25)
CLAIMED = SIZES[1:]
FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)
Picture = Image.Image
Change = Callable[[Picture, random.Random], Picture]


def jpeg(picture: Picture, quality: int = 90) -> Picture:
    """Encode and decode."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(picture: Picture, draw: random.Random) -> Picture:
    scale, kind = draw.choice([0.35, 0.5, 0.7, 1.4]), draw.choice(FILTERS)
    size = (max(8, int(picture.width * scale)), max(8, int(picture.height * scale)))
    return jpeg(picture.resize(size, kind))


def brightened(picture: Picture, draw: random.Random) -> Picture:
    return jpeg(ImageEnhance.Brightness(picture).enhance(draw.choice([0.6, 0.75, 1.25, 1.4])))


def cropped(picture: Picture, draw: random.Random) -> Picture:
    width, height = round(picture.width * 0.9), round(picture.height * 0.9)
    x, y = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    return jpeg(picture.crop((x, y, x + width, y + height)))


def trimmed(picture: Picture, draw: random.Random, share: float = 0.01) -> Picture:
    """Without a strip along one side."""
    width, height = picture.size
    side, strip = draw.randrange(4), max(1, round(share * width))
    box = [0, 0, width, height]
    box[side] += strip if side < 2 else -strip
    return jpeg(picture.crop((box[0], box[1], box[2], box[3])))


def moved(picture: Picture, draw: random.Random, share: float = 0.01) -> Picture:
    """Moved by a share of its width to one side, and up or down or not; its edge is repeated."""
    across = draw.choice([-1, 1]) * max(1, round(share * picture.width))
    down = draw.choice([-1, 0, 1]) * max(1, round(share * picture.height))
    sides = ((max(down, 0), max(-down, 0)), (max(across, 0), max(-across, 0)), (0, 0))
    wide = np.pad(np.asarray(picture), sides, mode="edge")
    top, left = max(-down, 0), max(-across, 0)
    return jpeg(Image.fromarray(wide[top : top + picture.height, left : left + picture.width]))


COPIES: dict[str, Change] = {
    "resized": resized,
    "recompressed": lambda picture, draw: jpeg(picture, draw.choice([25, 40, 60, 80])),
    "brightness": brightened,
    "contrast": lambda picture, draw: jpeg(ImageEnhance.Contrast(picture).enhance(draw.choice([0.7, 1.3]))),
    "mirrored": lambda picture, draw: jpeg(ImageOps.mirror(picture)),
    "cropped to 90%": cropped,
}
BESIDE: dict[str, Change] = {
    "mirrored and cropped": lambda picture, draw: cropped(ImageOps.mirror(picture), draw),
    "cropped and brightened": lambda picture, draw: brightened(cropped(picture, draw), draw),
    "trimmed by 1%": trimmed,
    "moved by 1%": moved,
    "moved by 2.5%": lambda picture, draw: moved(picture, draw, 0.025),
}


def boxes(path: Path, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Labelled boxes of at least 16 pixels a side."""
    text = str(path.with_suffix(""))
    found: list[tuple[int, int, int, int]] = []
    labels = Path(text.replace("/images/", "/labels/") + ".txt")
    table = Path(text.replace("/images/", "/Annotations/").replace("/JPEGImages/", "/Annotations/") + ".xml")
    if table.is_file():
        for box in ElementTree.parse(table).iter("bndbox"):
            x1, y1, x2, y2 = (int(float(box.findtext(k, "0"))) for k in ("xmin", "ymin", "xmax", "ymax"))
            found.append((x1, y1, x2, y2))
    elif labels.is_file():
        for row in labels.read_text().splitlines():
            values = [float(v) for v in row.split()]
            if len(values) == 5:
                _, x, y, w, h = values
                left, top = int((x - w / 2) * size[0]), int((y - h / 2) * size[1])
                found.append((left, top, int((x + w / 2) * size[0]), int((y + h / 2) * size[1])))
    return [box for box in found if box[2] - box[0] >= 16 and box[3] - box[1] >= 16]


def frame(background: Picture, objects: list[Picture], size: float, draw: random.Random) -> Picture:
    """The background with one or two objects."""
    picture = background.copy()
    for _ in range(draw.choice([1, 2])):
        thing = draw.choice(objects)
        scale = size * min(picture.size) / max(thing.size)
        sides = max(4, int(thing.width * scale)), max(4, int(thing.height * scale))
        thing = thing.resize(sides, FILTERS[3])
        mask = Image.new("L", (thing.width * 4, thing.height * 4), 0)
        ImageDraw.Draw(mask).ellipse((0, 0, mask.width - 1, mask.height - 1), fill=255)
        place = (draw.randint(0, picture.width - thing.width), draw.randint(0, picture.height - thing.height))
        picture.paste(thing, place, mask.resize(thing.size, FILTERS[2]))
    return jpeg(picture)


class Seen:
    """What the product keeps of a picture."""

    def __init__(self, picture: Picture) -> None:
        found = appearance(picture)
        self.hashes = np.frombuffer(found.hashes, dtype="<u8").astype(np.uint64)
        self.planes: Planes = planes(found.thumbnail)

    def unlike(self, other: Seen) -> float:
        """Unlikeness as the product finds it: infinite where the hashes lie apart."""
        values = [
            unlikeness(self.planes.mirrored() if turned else self.planes, other.planes)
            for _, _, mirrored in candidates(self.hashes[None], other.hashes[None])
            for turned in mirrored.tolist()
        ]
        return min(values, default=float("inf"))


def measure(data: Path, *, tuning: bool, quick: bool, seed: int) -> dict[str, Any]:
    """All figures."""
    files: list[tuple[str, Path]] = []
    for name, (pattern, count) in SETS.items():
        paths = sorted(data.glob(pattern))
        random.Random(0).shuffle(paths)
        files += [(name, path) for path in paths[:count]]
    chosen = [(k, name, path) for k, (name, path) in enumerate(files) if (k % 4 < 2) == tuning]
    chosen = chosen[::6] if quick else chosen
    objects: dict[str, list[Picture]] = defaultdict(list)
    for _, name, path in chosen:
        picture = Image.open(path).convert("RGB")
        objects[name] += [picture.crop(box) for box in boxes(path, picture.size)[:3]]
    copies: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    frames: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seen: dict[str, list[Seen]] = defaultdict(list)
    for k, name, path in chosen:
        picture = Image.open(path).convert("RGB")
        draw = random.Random(1000 * seed + k)
        own = Seen(picture)
        seen[name].append(own)
        for kind, change in {**COPIES, **BESIDE}.items():
            copies[kind][name].append(own.unlike(Seen(change(picture, draw))))
        for size in SIZES:
            one, other = (Seen(frame(picture, objects[name], size, draw)) for _ in range(2))
            frames[f"other objects of {size:.0%}"][name].append(one.unlike(other))
            frames[f"gone, {size:.0%}"][name].append(own.unlike(one))
            shaken = Seen(moved(frame(picture, objects[name], size, draw), draw, 0.006))
            frames[f"other objects of {size:.0%}, moved by .6%"][name].append(one.unlike(shaken))
    for path in sorted(data.glob("deeppcb_1bit/**/*_temp.png"))[int(tuning) :: 60 if quick else 10]:
        tested = path.with_name(path.name.replace("_temp", "_test"))
        if tested.is_file():
            pair = [Seen(Image.open(p).convert("RGB")) for p in (path, tested)]
            frames["template"]["deeppcb"].append(pair[0].unlike(pair[1]))
    others = {}
    for name, pictures in seen.items():
        pairs = [a.unlike(b) for i, a in enumerate(pictures) for b in pictures[:i]]
        others[name] = {
            "pairs": len(pairs),
            "compared": int(np.isfinite(pairs).sum()),
            "called one": int((np.array(pairs) <= 1).sum()),
        }
    return {"copies": rates(copies, found=True), "frames": rates(frames, found=False), "others": others}


def rates(values: dict[str, dict[str, list[float]]], *, found: bool) -> dict[str, Any]:
    """Share of pairs called one, per kind and data set, with the value that is nearest to the other side."""
    table = {}
    for kind, by_set in values.items():
        every = np.concatenate([np.array(v) for v in by_set.values()])
        edge = np.quantile(every, 0.99 if found else 0.01, method="nearest")
        table[kind] = {
            "pairs": len(every),
            "called one": round(float((every <= 1).mean()), 4),
            "99% below" if found else "1% below": None if np.isinf(edge) else round(float(edge), 2),
            **{name: round(float((np.array(v) <= 1).mean()), 3) for name, v in by_set.items()},
        }
    return table


def claims(result: dict[str, Any]) -> dict[str, float]:
    """The two figures that are wanted."""

    def mean(table: dict[str, Any], kinds: list[str]) -> float:
        called = sum(table[kind]["called one"] * table[kind]["pairs"] for kind in kinds)
        return round(called / sum(table[kind]["pairs"] for kind in kinds), 4)

    return {
        "planted copies found": mean(result["copies"], list(COPIES)),
        "frames with other objects refused": mean(
            result["frames"], [f"other objects of {size:.0%}" for size in CLAIMED]
        ),
    }


def speed() -> dict[str, float]:
    """Milliseconds to describe a picture of 640 x 480, to compare two copies, and to compare a crop."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((640, 480), FILTERS[1])
    crop = picture.crop((20, 30, 596, 462))
    own, same, part = (planes(appearance(p).thumbnail) for p in (picture, jpeg(picture), crop))
    timed = {}
    for name, work in {
        "describe": lambda: appearance(picture),
        "compare": lambda: unlikeness(own, same),
        "compare a crop": lambda: unlikeness(own, part),
    }.items():
        work()
        start = time.perf_counter()
        for _ in range(20):
            work()
        timed[f"{name}, ms"] = round((time.perf_counter() - start) * 50, 2)
    return timed


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a sixth of the pictures")
    parser.add_argument("--tuning", action="store_true", help="the half that the constants were chosen on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radius", type=int, default=hash_table.RADIUS, help="bits of a hash")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    hash_table.RADIUS = arguments.radius
    shared = os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared")
    result = measure(
        Path(shared) / "data", tuning=arguments.tuning, quick=arguments.quick, seed=arguments.seed
    )
    for part in ("copies", "frames", "others"):
        for kind, row in result[part].items():
            print(f"{part:8s} {kind:26s}", "  ".join(f"{name} {value}" for name, value in row.items()))
    report = {
        "claims": claims(result),
        "constants": {
            "radius": arguments.radius,
            "aligned": [ALIGNED.floor, ALIGNED.share],
            "windowed": [WINDOWED.floor, WINDOWED.share],
        },
        **result,
        "speed": speed(),
        "half": "tuning" if arguments.tuning else "report",
        "seed": arguments.seed,
        "machine": machine(),
        "versions": versions("pillow"),
    }
    print(report["claims"], report["speed"])
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
