"""The data sets and detectors of `query_real.py`: labelled photographs, and who looks at them.

In: ../shared/data (or CURATOR_SHARED). Out: `Labelled` sets of the images that `query_splits` names, and
specs of detectors. Two of these are trained here, once, and kept in the cache folder (about ten minutes each
on a free core; a killed training continues):

    python benchmarks/query_sets.py --train bccd|deeppcb [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from curator import pipeline
from curator.data.formats.base import Broken, LabelledImage
from curator.data.formats.placement import place
from curator.data.settings import AddConfig
from curator.errors import CuratorError
from curator.prove.settings import TrainConfig
from curator.registry import FORMATS
from store.errors import ImageError
from store.images import probe
from store.records import Annotation, ImageRecord
from store.store import Store

SHARED = Path(os.environ.get("CURATOR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
CACHE = Path("~/.cache/curator-bench").expanduser()
OF_VOC = {  # VOC's names of COCO's classes
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
SQUEEZENET = "backbone=squeezenet1_1&backbone_pixels=caffe&backbone_weights={weights}/squeezenet/" + (
    "squeezenet1_1_torchvision_layout.safetensors"
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a data set on disk: names that hash into [low, high) percent, as `curator add --part`."""

    format: str
    path: str
    split: str | None = None
    low: int = 0
    high: int = 100
    names: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the SSD of a set is trained: the parts it sees, its architecture and settings."""

    parts: tuple[Part, ...]
    detector: str
    steps: int
    batch_size: int = 8
    learning_rate: float = 0.0005


BCCD, PCB, CARS = "bccd/BCCD", "deeppcb_1bit", "vehicles_openimages"
SETS: dict[str, tuple[Part, ...]] = {
    "vehicles": (
        Part(format="yolo", path=CARS, split="train"),
        Part(format="yolo", path=CARS, split="valid"),
    ),
    "bccd": (
        Part(format="voc", path=BCCD, split="train", low=35),
        Part(format="voc", path=BCCD, split="val"),
    ),
    "voc_coco": (
        Part(format="voc", path="voc100", names=OF_VOC),
        Part(format="yolo", path="coco_val128/detection_config.yaml"),
    ),
    "deeppcb": (
        Part(format="deeppcb", path=PCB, split="trainval", low=30),
        Part(format="deeppcb", path=PCB, split="test"),
    ),
}
PAIRS = (
    ("vehicles", "yolox"),
    ("vehicles", "nanodet"),
    ("bccd", "ssd"),
    ("voc_coco", "yolox"),
    ("voc_coco", "nanodet"),
    ("deeppcb", "ssd"),
)
MAPS = {"vehicles": {"car": "Car", "bus": "Bus", "truck": "Truck", "motorcycle": "Motorcycle"}}
TRAININGS = {
    "bccd": Training(
        parts=(Part(format="voc", path=BCCD, split="train", high=35),),
        detector=f"curator:ssd?classes=RBC,WBC,Platelets&size=256&anchors=24,48,90,140,200&{SQUEEZENET}",
        steps=400,
    ),
    "deeppcb": Training(
        parts=(Part(format="deeppcb", path=PCB, split="trainval", high=30),),
        detector="curator:ssd?classes=open,short,mousebite,spur,copper,pin-hole&size=320"
        f"&anchors=12,24,48,96,160&{SQUEEZENET}",
        steps=450,
        batch_size=6,
        learning_rate=0.001,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A set: image i has the id i; no content twice.

    Attributes:
        annotations: per image. vocabulary: per image the classes that are labelled there.
    """

    name: str
    images: tuple[ImageRecord, ...]
    annotations: tuple[tuple[Annotation, ...], ...]
    vocabulary: tuple[tuple[str, ...], ...]
    broken: int


def detector_spec(name: str, dataset: str, cache: Path = CACHE) -> str:
    """The spec of a detector; a trained SSD lies in the cache."""
    weights = SHARED / "data" / "weights"
    if name == "yolox":
        return f"onnx:{weights}/yolox_nano/yolox_nano.onnx?decode=yolox"
    if name == "nanodet":
        return f"onnx:{weights}/nanodet_m/nanodet_m_416.onnx?decode=nanodet"
    return f"curator:{cache}/{dataset}-ssd.safetensors"


def read(name: str) -> Labelled:
    """Read a set: images in the order of their hashes, labels in stored-image pixels."""
    found: dict[str, tuple[ImageRecord, LabelledImage, tuple[str, ...], Part]] = {}
    broken = 0
    for part in SETS[name]:
        path = SHARED / "data" / part.path
        source = FORMATS.load(part.format)().open(path, split=part.split)
        words = tuple(dict.fromkeys((part.names or {}).get(word, word) for word in source.categories))
        for item in _of_part(source.items, part):
            try:
                if isinstance(item, Broken):
                    raise CuratorError(item.reason)
                seen = probe(item.path)
                placed = place(item, (seen.width, seen.height), seen.orientation)
            except (CuratorError, ImageError):
                broken += 1
                continue
            if placed.annotations is None or placed.incomplete:
                broken += 1
                continue
            image = ImageRecord(
                id=0,
                uri=str(item.path),
                sha256=seen.sha256,
                phash=seen.phash,
                width=seen.width,
                height=seen.height,
            )
            found.setdefault(seen.sha256, (image, placed, words, part))
    ordered = [found[key] for key in sorted(found)]
    number = iter(range(1 << 40))
    return Labelled(
        name=name,
        images=tuple(
            ImageRecord(
                id=i,
                uri=image.uri,
                sha256=image.sha256,
                phash=image.phash,
                width=image.width,
                height=image.height,
            )
            for i, (image, *_) in enumerate(ordered)
        ),
        annotations=tuple(
            tuple(
                Annotation(
                    id=next(number),
                    category_id=0,
                    category=(part.names or {}).get(a.category, a.category),
                    box=a.box,
                    crowd=a.crowd,
                    difficult=a.difficult,
                )
                for a in placed.annotations or ()
            )
            for _, placed, _, part in ordered
        ),
        vocabulary=tuple(words for _, _, words, _ in ordered),
        broken=broken,
    )


def _of_part(items: Iterator[LabelledImage | Broken], part: Part) -> Iterator[LabelledImage | Broken]:
    for item in items:
        digest = hashlib.sha256(Path(item.name).name.encode()).digest()
        if part.low <= 100 * int.from_bytes(digest[:8], "big") / 2**64 < part.high:
            yield item


def train(name: str, cache: Path = CACHE) -> Path:
    """Train the SSD of a set with the product's own `train`; nothing where it exists."""
    out = cache / f"{name}-ssd.safetensors"
    if out.is_file():
        return out
    cache.mkdir(parents=True, exist_ok=True)
    recipe = TRAININGS[name]
    workspace = cache / f"{name}-training"  # kept, so that a killed training continues
    known = (workspace / "workspace.json").is_file()
    with Store.open(workspace) if known else Store.create(workspace) as store:
        for part in recipe.parts:
            pipeline.add(
                store,
                AddConfig(
                    format=part.format,
                    path=SHARED / "data" / part.path,
                    split=part.split,
                    part=f"{part.low}-{part.high}",
                    role="train",
                ),
            )
        result = pipeline.train(
            store,
            TrainConfig(
                detector=recipe.detector.format(weights=SHARED / "data" / "weights"),
                out=out,
                steps=recipe.steps,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                batch_norm="train",
            ),
        )
    print(result.summary)
    return out


def main() -> None:
    """Train a detector of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", choices=sorted(TRAININGS), required=True)
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    print(train(arguments.train, arguments.cache.expanduser()))


if __name__ == "__main__":
    main()
