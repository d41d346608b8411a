"""DETR-type detectors of `transformers`: `hf:PATH` or `detr:PATH` (Carion et al., ECCV 2020; extra `hub`).

In: a folder written by `save_pretrained` with safetensors; nothing is ever downloaded. Out: a `Detector`. A
candidate is a query q. Score: softmax(logits[q])[c] for DETR, whose last logit is "no object"; sigmoid for
the families trained with a focal loss (Conditional, DAB and Deformable DETR). There is no NMS; an index
survives because detections are chosen, not merged.

RT-DETR, D-FINE, DEIM, RF-DETR, LW-DETR and two-stage Deformable DETR draw their queries anew from each input,
so that a query's index means nothing on a masked image (`fixed_candidates` is False).

Options:
    min_size, max_size    sides in px to which images are resized, instead of preprocessor_config.json's
    detections            per image at most (100)
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers import AutoConfig, AutoModelForObjectDetection

from curator.config import require
from curator.detect.base import Candidates, Detector, FeatureMap
from curator.detect.checking import check_asked
from curator.detect.heads import distinct, keep_fp32
from curator.detect.postprocess import softmax_log_odds
from curator.detect.pyramid import clip_to_picture, to_image
from curator.detect.query_families import DRAWN, SIGMOID, SOFTMAX
from curator.detect.weights import fingerprint
from curator.errors import InputError
from curator.registry import Spec
from store.records import Detections, Pin

_HEADS = ("class_labels_classifier", "class_embed", "bbox_predictor", "bbox_embed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How an image becomes an input.

    Attributes:
        least, most: the shorter side is brought to `least`, the longer one kept at or below `most`; or
        fixed: (h, w) to which every image is stretched.
        mean, deviation: of the normalisation, RGB.
    """

    least: int = 800
    most: int = 1333
    fixed: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the input of a stored image."""
        if self.fixed is not None:
            return self.fixed
        short, long = min(height, width), max(height, width)
        least = min(self.least, round(self.most * short / long))
        return int(least * height / short), int(least * width / short)


class DetrDetector:
    """A `transformers` model with fixed queries behind the `Detector` protocol."""

    plain_pin = True

    def __init__(
        self,
        network: Any,
        classes: Sequence[str],
        frame: Frame,
        *,
        sigmoid: bool,
        limit: int,
        spec: str,
        fixed: bool = True,
    ) -> None:
        self.network = network.float().eval().requires_grad_(False)
        model = getattr(network, "model", None)
        for owner in (network, model, getattr(model, "decoder", None)):  # where a family keeps its heads
            for name in _HEADS:
                head = getattr(owner, name, None)
                for part in head if isinstance(head, nn.ModuleList) else [head] if head is not None else []:
                    keep_fp32(part)
        self.classes = tuple(classes)
        self.spec = spec
        self.frame = frame
        self.mean_color = (frame.mean[0], frame.mean[1], frame.mean[2]) if frame.mean[0] else (0.5, 0.5, 0.5)
        self._mean = torch.tensor(frame.mean).view(3, 1, 1)
        self._std = torch.tensor(frame.deviation).view(3, 1, 1)
        self._sigmoid, self._limit = sigmoid, limit
        self.fixed_candidates = fixed
        self._projections, self._projected = _projections(network)
        count = len(self._projections)
        self.levels: tuple[str, ...] = ("backbone",) if count == 1 else tuple(
            f"level{number}" for number in range(count)
        )
        self.device = torch.device("cpu")
        description = {"frame": str(frame), "classes": list(self.classes), "limit": limit}
        self.fingerprint = fingerprint(self.network, description)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    def modules(self) -> nn.Module:
        """The `transformers` model."""
        network: nn.Module = self.network
        return network

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W); inputs are not padded."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        h, w = self.frame.size(height, width)
        return Pin(image_size=(height, width), input_size=(h, w), scale=(w / width, h / height))

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1], bilinear with antialiasing."""
        image = image.to(self.device)
        if tuple(image.shape[-2:]) == pin.input_size:
            return image
        size = pin.input_size
        return F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects; see `Detector.predict`.

        There is no NMS: softmax families give each query's best class, sigmoid families the best pairs of
        query and class.
        """
        pins = [self.pin(image) for image in images]
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, pin in enumerate(pins):
            by_size[pin.input_size].append(number)
        results: dict[int, tuple[Detections, Pin]] = {}
        for numbers in by_size.values():
            batch = torch.stack([self.prepare(images[i], pins[i]) for i in numbers])
            scores, _, boxes, _ = self._run(batch)
            for i, number in enumerate(numbers):
                results[number] = (
                    self._choose(scores[i], boxes[i], pins[number], score_threshold),
                    pins[number],
                )
        return [results[number] for number in range(len(images))]

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Candidates of masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`."""
        check_asked(u, index, levels, self.levels)
        scores, log_odds, boxes, values = self._run(u)
        if index is not None:
            index = index.to(u.device)
            scores, log_odds, boxes = scores[:, index], log_odds[:, index], boxes[:, index]
        features = {}
        for name in levels:
            own = values[self.levels.index(name)]
            (h, w), (rows, columns) = pin.input_size, own.shape[-2:]
            step = (w / columns, h / rows)
            features[name] = FeatureMap(own, step, (step[0] / 2, step[1] / 2))
        return Candidates(scores, log_odds, to_image(clip_to_picture(boxes, pin), pin), features)

    def _run(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """u (B, 3, h, w) -> scores and log-odds (B, Q, K), boxes (B, Q, 4) in the input frame, the maps."""
        maps: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            maps[module] = inputs[0] if output is None else output

        handles = [
            module.register_forward_hook(keep) if self._projected else module.register_forward_pre_hook(keep)
            for module in self._projections
        ]
        try:
            out = self.network(pixel_values=(u - self._mean) / self._std)
        finally:
            for handle in handles:
                handle.remove()
        logits = out.logits.float()
        if self._sigmoid:
            scores, log_odds = logits.sigmoid(), logits
        else:
            scores, log_odds = logits.softmax(-1)[..., :-1], softmax_log_odds(logits)[..., :-1]
        size = out.pred_boxes.new_tensor([u.shape[-1], u.shape[-2]] * 2)
        boxes = box_convert(out.pred_boxes.float(), "cxcywh", "xyxy") * size
        return scores, log_odds, boxes, [maps[module] for module in self._projections]

    def _choose(self, scores: Tensor, boxes: Tensor, pin: Pin, threshold: float) -> Detections:
        """Scores (Q, K), boxes (Q, 4) -> the best, best first."""
        if not self._sigmoid:
            scores = torch.where(scores == scores.amax(-1, keepdim=True), scores, 0.0)
        values, places = scores.flatten().sort(descending=True, stable=True)
        places = places[: self._limit][values[: self._limit] > threshold]
        queries, labels = places // scores.shape[1], places % scores.shape[1]
        return Detections(
            boxes=pin.to_image(clip_to_picture(boxes[queries], pin).cpu().numpy()),
            scores=scores[queries, labels].cpu().numpy(),
            labels=labels.cpu().numpy(),
            candidates=queries.cpu().numpy(),
        )


def build(spec: Spec) -> Detector:
    """Load the model in the folder that `spec` names.

    Raises:
        InputError: no such folder, no safetensors, another kind of model. ConfigError: wrong options.
    """
    spec.only(("min_size", "max_size", "detections"))
    folder = Path(spec.name)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(
                f"detr: expected {name} in the folder {folder}, found none; write it with "
                f"model.save_pretrained({str(folder)!r})"
            )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    known = (*SOFTMAX, *SIGMOID, *DRAWN)
    if config.model_type not in known:
        raise InputError(
            f"detr: expected a model of {', '.join(known)}, got {config.model_type!r} in {folder}"
        )
    try:
        network = AutoModelForObjectDetection.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"detr: {folder} needs a package that is not installed ({reason})") from error
    names = distinct(str(config.id2label[i]) for i in range(config.num_labels))
    return DetrDetector(
        network,
        names,
        _frame(folder, spec),
        sigmoid=config.model_type not in SOFTMAX,
        limit=_whole(spec, "detections", 100),
        spec=spec.text,
        fixed=config.model_type not in DRAWN and not getattr(config, "two_stage", False),
    )


def _projections(network: Any) -> tuple[list[nn.Module], bool]:
    """What the backbone's maps go through, fine to coarse: one module, or one a level; none where there is
    no map (YOLOS). And whether a level is what they give, or what they read."""
    model = getattr(network, "model", network)
    single = getattr(model, "input_projection", None)
    if isinstance(single, nn.Conv2d):
        return [single], False
    several = getattr(model, "encoder_input_proj", None)
    if isinstance(several, nn.ModuleList):
        return list(several), False
    several = getattr(model, "input_proj", None)  # Deformable DETR
    if isinstance(several, nn.ModuleList):
        return list(several), True
    projector = getattr(getattr(model, "backbone", None), "projector", None)
    scales = getattr(projector, "scale_layers", None)  # LW-DETR
    if isinstance(scales, nn.ModuleList):
        factors = list(network.config.projector_scale_factors)
        return [scales[i] for i in sorted(range(len(scales)), key=lambda i: -factors[i])], True
    return ([projector], True) if isinstance(projector, nn.Module) else ([], True)  # RF-DETR


def _frame(folder: Path, spec: Spec) -> Frame:
    path = folder / "preprocessor_config.json"
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    size = stored.get("size", {})
    if not isinstance(size, dict):  # as older versions wrote it
        size = {"shortest_edge": size, "longest_edge": stored.get("max_size", 1333)}
    fixed = (int(size["height"]), int(size["width"])) if "height" in size else None
    if {"min_size", "max_size"} & spec.options.keys():
        fixed = None
    normal = bool(stored.get("do_normalize", True))
    return Frame(
        least=_whole(spec, "min_size", int(size.get("shortest_edge", 800))),
        most=_whole(spec, "max_size", int(size.get("longest_edge", 1333))),
        fixed=fixed,
        mean=tuple(stored.get("image_mean", Frame().mean)) if normal else (0.0, 0.0, 0.0),
        deviation=tuple(stored.get("image_std", Frame().deviation)) if normal else (1.0, 1.0, 1.0),
    )


def _whole(spec: Spec, name: str, default: int) -> int:
    text = spec.options.get(name, str(default))
    require(text.isdecimal() and int(text) >= 1, f"{name}: expected a whole number from 1, got {text!r}")
    return int(text)
