"""Every family of detectors against its own predict, on models that can be made here.

    python benchmarks/detector_families.py [--only NAME ...] [--out FILE.json]

A row a family:
    agreement     their detections on two pictures; the share that ours hold within 1 px and .001 of the
                  score; the largest differences of box and score between a detection and its counterpart
    gradient      of the best candidate's log-odds with respect to the input: finite, and its largest value
    batch         largest difference of a candidate's log-odds, alone and beside another image
    explain s     seconds of E2X for one detection, 16 masked images, 50 segments

"Their predict" is the package's own way from pixels to boxes: torchvision's eval mode (pictures resized and
padded), Ultralytics' `predict` (one of the input's size, one padded), the image processors of transformers
(pictures of the input's size, since resizing there rounds to 8 bits). Of YOLOX and NanoDet no package is at
hand: onnxruntime computes what the network puts out, and curator decodes it. These two are trained and see
photographs; the others are tiny, with random weights whose scores are spread out, made by tests/detect.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import machine, versions
from torch import Tensor

from curator.detect.letterbox import choose
from curator.detect.load import load_detector
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.segments import slic_segments
from curator.registry import ATTRIBUTIONS
from curator.tensors import generator, image_tensor
from store.images import read_pixels

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "detect"))
PIXELS, SCORE, WANTED = 1.0, 1e-3, 0.95
MOST = 40  # detections compared an image
SAMPLES, SEGMENTS = 16, 50
DENSE = "weights=random&classes=a,b&min_size=96&max_size=160"
OWN = {
    "torchvision ssd300": "torchvision:ssd300_vgg16?weights=random&classes=a,b",
    "torchvision ssdlite": "torchvision:ssdlite320_mobilenet_v3_large?weights=random&classes=a,b",
    "torchvision retinanet": f"torchvision:retinanet_resnet50_fpn_v2?{DENSE}",
    "torchvision fcos": f"torchvision:fcos_resnet50_fpn?{DENSE}",
    "torchvision faster rcnn": f"torchvision:fasterrcnn_mobilenet_v3_large_320_fpn?{DENSE}",
    "curator ssd": "curator:ssd?classes=a,b,c&seed=3",
    "curator retinanet": "curator:retinanet?classes=a,b,c&seed=3&size=128",
    "curator fcos": "curator:fcos?classes=a,b,c&seed=3&size=128",
    "curator faster rcnn": "curator:faster_rcnn?classes=a,b,c&seed=3&size=128",
}
YOLO = ("yolov8", "yolo11", "yolov10", "yolo26")
FREE = ("yolov10", "yolo26")
INPUT = (96, 128)
Theirs = Callable[[np.ndarray, float], np.ndarray]
"""An RGB image and a score -> detections (n, 6): corners, score, label from 0."""


@dataclass(frozen=True)
class Family:
    """A detector, what its own package makes of an image, and the images."""

    name: str
    detector: Any
    theirs: Theirs
    package: str
    images: list[np.ndarray]


# ---------------------------------------------------------------- families


def by_torchvision(names: list[str]) -> Iterator[Family]:
    """torchvision's networks, theirs and curator's own."""
    from tiny_yolo import calibrate, picture

    for name in names:
        detector: Any = load_detector(OWN[name], "cpu")
        seen = [image_tensor(picture(96, 128, seed)) for seed in range(4)]
        pin = detector.predict(seen[:1], score_threshold=0.5)[0][1]
        inputs = torch.stack([detector.prepare(image, pin) for image in seen])
        calibrate(
            detector.network,
            lambda detector=detector, inputs=inputs, pin=pin: detector.candidates(
                inputs, pin, index=torch.tensor([0])
            ),
        )
        network: Any = detector.clone().network.eval()
        if "retinanet" in name or "fcos" in name:  # a trained head is sure that nothing is "background"
            for part in (network, detector.network):
                with torch.no_grad():
                    logits = part.head.classification_head.cls_logits
                    logits.bias[:: len(detector.classes) + 1] = -30.0

        def theirs(image: np.ndarray, score: float, network: Any = network) -> np.ndarray:
            owner = getattr(network, "roi_heads", network)
            owner.score_thresh = score
            with torch.inference_mode():
                found = network([image_tensor(image)])[0]
            return rows(found["boxes"], found["scores"], found["labels"] - 1)

        yield Family(name, detector, theirs, "torchvision", [picture(90, 140, 1), picture(120, 100, 2)])


def by_ultralytics(kinds: list[str], folder: Path, *, exported: bool) -> Iterator[Family]:
    """Their `.pt` files, and exports of them."""
    import ultralytics
    from tiny_yolo import picture, save_weights

    from curator.detect.ultralytics_file import convert

    for kind in kinds:
        file = save_weights(kind, folder)
        free: dict[str, Any] = {"nms": False} if kind in FREE else {}
        if exported:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = Path(
                    ultralytics.YOLO(str(file)).export(
                        format="onnx", imgsz=INPUT, simplify=False, opset=17, verbose=False, **free
                    )
                )
            detector = load_detector(f"onnx:{file}", "cpu")
            name, options = f"onnx {kind}", {"rect": False}
        else:
            copy = file.with_suffix(".safetensors")
            convert(file, copy)
            detector = load_detector(f"ultralytics:{copy}?size={INPUT[0]}x{INPUT[1]}", "cpu")
            name, options = f"ultralytics {kind}", {}
        model, said = ultralytics.YOLO(str(file), task="detect"), {**options, **free}

        def theirs(
            image: np.ndarray, score: float, model: Any = model, said: dict[str, Any] = said
        ) -> np.ndarray:
            bgr = np.ascontiguousarray(image[..., ::-1])
            (found,) = model.predict(bgr, imgsz=INPUT, conf=score, verbose=False, device="cpu", **said)
            return np.asarray(found.boxes.data)

        yield Family(name, detector, theirs, "Ultralytics predict", [picture(*INPUT, 1), picture(80, 128, 2)])


def by_onnxruntime(names: list[str], shared: Path) -> Iterator[Family]:
    """Trained exports, on photographs."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    paths = {
        "onnx yolox-nano": shared / "weights" / "yolox_nano" / "yolox_nano.onnx",
        "onnx nanodet-m": shared / "weights" / "nanodet_m" / "nanodet_m_416.onnx",
    }
    photographs = sorted((shared / "coco_val128" / "images").rglob("*.jpg"))[:2]
    for name in names:
        detector: Any = load_detector(f"onnx:{paths[name]}", "cpu")
        session = onnxruntime.InferenceSession(str(paths[name]))

        def theirs(
            image: np.ndarray, score: float, detector: Any = detector, session: Any = session
        ) -> np.ndarray:
            stored, decoder = image_tensor(image), detector.decoder
            pin = detector.pin(stored)
            u = decoder.normalise(detector.prepare(stored, pin)[None])
            out = session.run(None, {session.get_inputs()[0].name: u.numpy()})
            decoded = decoder.decode([torch.from_numpy(value) for value in out], None, detector.input_size)
            found = choose(
                decoded.scores[0],
                decoded.boxes[0],
                pin,
                score_threshold=score,
                nms_iou=decoder.nms_iou,
                top_k=decoder.top_k,
                single_label=decoder.single_label,
                clips_last=decoder.clips_last,
            )
            return np.column_stack([found.boxes, found.scores, found.labels])

        images = [np.asarray(read_pixels(str(path))) for path in photographs]
        yield Family(name, detector, theirs, "onnxruntime, decoded here", images)


def by_transformers(kinds: list[str], folder: Path) -> Iterator[Family]:
    """Tiny models of transformers; images of the input's own size, since resizing there rounds to 8 bits."""
    import transformers
    from tiny_models import save_tiny
    from tiny_yolo import picture

    for kind in kinds:
        path = save_tiny(kind, folder / kind)
        spread_boxes(path)
        detector: Any = load_detector(f"hf:{path}", "cpu")
        softmax = kind in ("detr", "yolos")
        processor = (
            transformers.DetrImageProcessor if softmax else transformers.DeformableDetrImageProcessor
        ).from_pretrained(path)
        model = transformers.AutoModelForObjectDetection.from_pretrained(path).eval()
        size = {"detr": (64, 88), "yolos": (96, 128), "lw_detr": (128, 128), "rf_detr": (128, 128)}
        own = size.get(kind, (64, 88) if detector.frame.fixed is None else detector.frame.fixed)

        def theirs(
            image: np.ndarray,
            score: float,
            processor: Any = processor,
            model: Any = model,
            softmax: bool = softmax,
        ) -> np.ndarray:
            inputs = processor(images=image, return_tensors="pt")
            with torch.inference_mode():
                out = model(pixel_values=inputs["pixel_values"])
            more = {} if softmax else {"top_k": MOST}
            found = processor.post_process_object_detection(
                out, threshold=score, target_sizes=[image.shape[:2]], **more
            )[0]
            return rows(found["boxes"], found["scores"], found["labels"])

        yield Family(
            f"hf {kind}", detector, theirs, "transformers' processor", [picture(*own, 1), picture(*own, 2)]
        )


def spread_boxes(path: Path) -> None:
    """Fresh box heads give every query the same box: draw their last layers."""
    from transformers import AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained(path)
    draw = generator("boxes")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "bbox" in name and name.endswith("weight"):
                value.add_(torch.randn(value.shape, generator=draw) * 0.15)
    model.save_pretrained(path)


def rows(boxes: Tensor, scores: Tensor, labels: Tensor) -> np.ndarray:
    """(n, 6)."""
    return torch.cat([boxes, scores[:, None], labels[:, None].float()], 1).numpy()


# ---------------------------------------------------------------- figures


def agreement(family: Family) -> dict[str, Any]:
    """Their best detections of each image, and what ours make of them."""
    boxes, values, held, count = [0.0], [0.0], 0, 0
    for pixels in family.images:
        image = image_tensor(pixels)
        ((every, _),) = family.detector.predict([image], score_threshold=0.0)
        floor = float(every.scores[min(MOST, len(every) - 1)]) * 0.999
        ((found, _),) = family.detector.predict([image], score_threshold=floor)
        height, width = pixels.shape[:2]
        limit = np.array([width, height, width, height], np.float32)
        for *box, score, label in family.theirs(pixels, floor)[:MOST]:
            off = np.abs(found.boxes.clip(0, limit) - np.clip(box, 0, limit)).max(1)
            apart = np.abs(found.scores - score)
            distance = np.where(found.labels == label, off / PIXELS + apart / SCORE, np.inf)
            nearest = int(distance.argmin())
            fits = bool(np.isfinite(distance[nearest])) and off[nearest] < PIXELS and apart[nearest] < SCORE
            held, count = held + fits, count + 1
            if np.isfinite(distance[nearest]) and off[nearest] < 10 and apart[nearest] < 0.05:
                boxes.append(float(off[nearest]))
                values.append(float(apart[nearest]))
    return {
        "their detections": count,
        "share within 1 px and .001": round(held / max(1, count), 4),
        "largest box difference px": float(f"{max(boxes):.3g}"),
        "largest score difference": float(f"{max(values):.3g}"),
    }


def gradients(family: Family) -> dict[str, Any]:
    """Of one candidate, and whether another image of the batch changes it."""
    detector = family.detector
    images = [image_tensor(pixels) for pixels in family.images]
    ((found, pin),) = detector.predict(images[:1], score_threshold=0.0)
    u = detector.prepare(images[0], pin)
    batch = torch.stack([u, u.flip(2) * 0.7]).requires_grad_(True)
    best = torch.from_numpy(found.candidates[:20].copy())
    both = detector.candidates(batch, pin, index=best)
    with torch.no_grad():
        alone = detector.candidates(u[None], pin, index=best)
    (gradient,) = torch.autograd.grad(both.log_odds[0, 0, int(found.labels[0])], batch)
    return {
        "gradient finite": bool(torch.isfinite(gradient).all()),
        "gradient largest": float(f"{float(gradient[0].abs().max()):.3g}"),
        "gradient of the other image": float(gradient[1].abs().max()),
        "batch: largest difference of log-odds": float(
            f"{float((both.log_odds[0].detach() - alone.log_odds[0]).abs().max()):.3g}"
        ),
    }


def seconds(family: Family) -> float:
    """Of one explanation by E2X."""
    detector = family.detector
    image = image_tensor(family.images[0])
    ((found, pin),) = detector.predict([image], score_threshold=0.0)
    u = detector.prepare(image, pin)
    labels = slic_segments(u, pin, SEGMENTS)
    target = Target(
        candidate=int(found.candidates[0]),
        label=int(found.labels[0]),
        kind="log_odds",
        box=tuple(float(v) for v in found.boxes[0]),  # type: ignore[arg-type]
    )
    method = ATTRIBUTIONS.load("e2x")(AttributionOptions(samples=SAMPLES))
    start = time.perf_counter()
    (found_map,) = method.explain(
        detector, u, pin, labels, MeanFill(), [target], seed=0, image_key="families"
    )
    spent = time.perf_counter() - start
    if not np.isfinite(found_map.phi).all():
        raise SystemExit(f"{family.name}: E2X gave numbers that are none")
    return round(spent, 3)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], help="families whose name holds one of these")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    start, table = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for family in families(options.only, options.shared / "data", Path(folder)):
            row = agreement(family) | gradients(family) | {"explain s": seconds(family)}
            row["compared with"] = family.package
            row["ok"] = bool(
                row["share within 1 px and .001"] >= WANTED
                and row["gradient finite"]
                and row["gradient largest"] > 0
                and row["gradient of the other image"] == 0
                and row["batch: largest difference of log-odds"] < 1e-2
            )
            table[family.name] = row
            print(f"{'ok  ' if row['ok'] else 'MISS'} {family.name:26}", json.dumps(row), flush=True)
    if options.out:
        report = {
            "machine": machine(),
            "versions": versions("ultralytics", "transformers", "onnxruntime", "onnx2pytorch"),
            "seconds": round(time.perf_counter() - start),
            "table": table,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def families(only: list[str], shared: Path, folder: Path) -> Iterator[Family]:
    """All whose names hold one of `only`; all for none."""

    def wanted(names: dict[str, str]) -> list[str]:
        return [key for key, name in names.items() if not only or any(part in name for part in only)]

    from tiny_models import KINDS

    yield from by_torchvision(wanted({name: name for name in OWN}))
    for exported, scheme in ((False, "ultralytics"), (True, "onnx")):
        kinds = wanted({kind: f"{scheme} {kind}" for kind in YOLO})
        if kinds:
            yield from by_ultralytics(kinds, folder / scheme, exported=exported)
    yield from by_onnxruntime(wanted({name: name for name in ("onnx yolox-nano", "onnx nanodet-m")}), shared)
    yield from by_transformers(wanted({kind: f"hf {kind}" for kind in KINDS}), folder)


if __name__ == "__main__":
    main()
