"""Ultralytics' own models: `ultralytics:best.pt` (extra `ultralytics`, AGPL-3.0; YOLOv3u to YOLO26).

In, by the ending of the name:
    best.pt             what their training wrote. It is a pickle and is read once, where the user trusts it
                        (`ultralytics_file`); afterwards the same spec needs no trust.
    best.safetensors    what was converted from it, or what `train` wrote
    yolo11n.yaml        fresh weights: a model of the package, or the user's own table of layers
Out: a `Detector` that can be trained. A candidate is one cell's prediction, by level, row, column, read
before any choice among them: from the head without NMS where the model has one (YOLOv10, YOLO26), else from
the one whose candidates go through NMS. Score: sigmoid(logit); log-odds are the logits. Levels are what the
neck gives the head, P3 to P5 for the usual models.

Images lie in the input as their `predict` lays one image: letterboxed, padded to the next multiple of 32.

Options:
    trust_pickle=yes    of a .pt: as --trust-pickle of `curator detect`
    classes             of a .yaml: comma-separated names, required
    seed                of a .yaml: of the fresh weights (0)
    size                input size, 640 or 384x640 (height x width); what the training used, or 640
    end2end             no reads the head with NMS where the model has both; some versions of the package do
                        so by default
    nms_iou             NMS threshold (0.7)
    rect                no pads every image to the whole input size, as exports do (yes)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from curator.config import require
from curator.detect.base import Candidates, FeatureMap
from curator.detect.checking import check_asked
from curator.detect.decoding import cells
from curator.detect.heads import keep_fp32
from curator.detect.letterbox import GREY, NMS_IOU, choose, letterbox, place
from curator.detect.pyramid import check_target, clip_to_picture, to_image
from curator.detect.ultralytics_file import ARCHITECTURE, converted, describe
from curator.detect.ultralytics_model import (
    GAINS,
    build_network,
    is_file_name,
    named_table,
    step_of,
    strides_of,
)
from curator.detect.weights import Fingerprinted, load_into, read_description, read_state, write_state
from curator.errors import ConfigError, InputError
from curator.registry import Spec
from store.records import Detections, Pin

_LARGEST_SIDE = 8192


@dataclass(frozen=True, slots=True)
class _Raw:
    """What the head says of inputs, before decoding.

    Attributes:
        distances: (B, 4 R, A), R bins of each side's distance. logits: (B, K, A).
        maps: of the levels, (B, C, h, w) each.
    """

    distances: Tensor
    logits: Tensor
    maps: tuple[Tensor, ...]


class UltralyticsDetector(Fingerprinted):
    """A network of the package behind the `Detector` protocol.

    Args:
        network: their `DetectionModel`; its parameters are frozen and it is put into eval mode.
        description: plain JSON that `save` stores and from which the network is built again.
    """

    plain_pin = True
    mean_color = (GREY, GREY, GREY)

    def __init__(self, network: Any, description: Mapping[str, Any], *, spec: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.description = dict(description)
        self.spec = spec
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.input_size: tuple[int, int] = (int(description["size"][0]), int(description["size"][1]))
        self.device = torch.device("cpu")
        self._strides, self._step = strides_of(network), step_of(network)
        self.levels = tuple(f"P{stride.bit_length() - 1}" for stride in self._strides)
        self._end_to_end = bool(network.end2end)
        self._head = network.model[-1]
        first = "one2one_" if self._end_to_end else ""
        self._boxes: nn.ModuleList = getattr(self._head, f"{first}cv2")
        self._logits: nn.ModuleList = getattr(self._head, f"{first}cv3")
        for branches in (self._boxes, self._logits):
            for branch in branches:
                keep_fp32(branch)

    def to(self, device: torch.device) -> Self:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self.network.criterion = None  # it holds tensors of the device it was made on
        return self

    def modules(self) -> nn.Module:
        """Their `DetectionModel`."""
        network: nn.Module = self.network
        return network

    # ------------------------------------------------------------ the input frame

    def pin(self, image: Tensor) -> Pin:
        """The pin of a stored image (3, H, W)."""
        size = (int(image.shape[-2]), int(image.shape[-1]))
        return letterbox(size, self.input_size, self._step if self.description["rect"] else None)

    def prepare(self, image: Tensor, pin: Pin) -> Tensor:
        """Stored image (3, H, W) -> (3, h, w) RGB [0, 1]: resized, then padded."""
        return place(image.to(self.device), pin, GREY)

    # ------------------------------------------------------------ what it finds

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, score_threshold: float) -> list[tuple[Detections, Pin]]:
        """Detect objects; see `Detector.predict`. The 300 best, after NMS where the head needs it."""
        pins = [self.pin(image) for image in images]
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, pin in enumerate(pins):
            by_size[pin.input_size].append(number)
        results: dict[int, tuple[Detections, Pin]] = {}
        for numbers in by_size.values():
            batch = torch.stack([self.prepare(images[i], pins[i]) for i in numbers])
            raw = self._run(batch)
            scores = raw.logits.sigmoid().transpose(1, 2)
            boxes = self._decode(raw.distances, None, (int(batch.shape[-2]), int(batch.shape[-1])))
            for i, number in enumerate(numbers):
                found = choose(
                    scores[i],
                    boxes[i],
                    pins[number],
                    score_threshold=score_threshold,
                    nms_iou=1.0 if self._end_to_end else float(self.description["nms_iou"]),
                    single_label=not self._end_to_end,
                )
                results[number] = (found, pins[number])
        return [results[number] for number in range(len(images))]

    def candidates(
        self, u: Tensor, pin: Pin, *, index: Tensor | None = None, levels: Sequence[str] = ()
    ) -> Candidates:
        """Candidates of masked inputs (B, 3, h, w), differentiable in `u`; see `Detector.candidates`."""
        check_asked(u, index, levels, self.levels)
        raw = self._run(u)
        index = None if index is None else index.to(u.device)
        log_odds = (raw.logits if index is None else raw.logits[:, :, index]).transpose(1, 2)
        boxes = self._decode(raw.distances, index, pin.input_size)
        return Candidates(
            log_odds.sigmoid(),
            log_odds,
            to_image(clip_to_picture(boxes, pin), pin),
            {name: self._feature(raw, self.levels.index(name)) for name in levels},
        )

    def _run(self, u: Tensor) -> _Raw:
        """Their forward pass on u (B, 3, h, w) RGB [0, 1], with its inner values kept."""
        maps: list[Tensor] = []
        boxes: dict[int, Tensor] = {}
        logits: dict[int, Tensor] = {}
        handles = [
            self._head.register_forward_pre_hook(lambda _, inputs: maps.extend(inputs[0])),
            *(_keep(branch, boxes, level) for level, branch in enumerate(self._boxes)),
            *(_keep(branch, logits, level) for level, branch in enumerate(self._logits)),
        ]
        try:
            self.network(u)
        finally:
            for handle in handles:
                handle.remove()
        order = range(len(self._strides))
        return _Raw(
            torch.cat([boxes[level].flatten(2) for level in order], 2),
            torch.cat([logits[level].flatten(2) for level in order], 2),
            tuple(maps),
        )

    def _decode(self, distances: Tensor, index: Tensor | None, input_size: tuple[int, int]) -> Tensor:
        """Distances (B, 4 R, A) from the cells' centres, in cells -> boxes (B, q, 4) xyxy, input frame."""
        corners, steps = cells(input_size, self._strides, device=distances.device)
        if index is not None:
            distances, corners, steps = distances[:, :, index], corners[index], steps[index]
        if distances.shape[2] == 0:
            return distances.new_zeros((len(distances), 0, 4))
        with torch.autocast(distances.device.type, enabled=False):
            sides = self._head.dfl(distances).transpose(1, 2)  # left, top, right, bottom: (B, q, 4)
        centres = corners + 0.5
        return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1) * steps

    def _feature(self, raw: _Raw, level: int) -> FeatureMap:
        """A cell lies where the boxes that it predicts are centred by default."""
        stride = float(self._strides[level])
        return FeatureMap(raw.maps[level], (stride, stride), (stride / 2, stride / 2))

    # ------------------------------------------------------------ training

    def loss(self, images: Sequence[Tensor], targets: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """The package's losses in train mode, per image; see `TrainableDetector.loss`.

        Images are padded to the whole input size, as in their training.

        Raises:
            InputError: a box without area, or a label outside the classes.
        """
        batch, numbers, labels, boxes = [], [], [], []
        height, width = self.input_size
        for number, (image, (wanted, names)) in enumerate(zip(images, targets, strict=True)):
            check_target(number, wanted, names, len(self.classes))
            pin = letterbox((int(image.shape[-2]), int(image.shape[-1])), self.input_size)
            batch.append(self.prepare(image, pin))
            scale, offset = (torch.tensor(pair).repeat(2).to(wanted) for pair in (pin.scale, pin.offset))
            x1, y1, x2, y2 = (wanted * scale + offset).unbind(1)
            boxes.append(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1))
            numbers.append(torch.full((len(wanted),), float(number)))
            labels.append(names.float())
        share = torch.tensor([width, height, width, height], dtype=torch.float32)
        self.network.train()
        try:
            total = self.network.loss(
                {
                    "img": torch.stack(batch),
                    "batch_idx": torch.cat(numbers).to(self.device),
                    "cls": torch.cat(labels)[:, None].to(self.device),
                    "bboxes": torch.cat(boxes).to(self.device) / share.to(self.device),
                }
            )[0]
        finally:
            self.network.eval()
        parts = total.reshape(-1) / len(images)  # theirs count each image
        names_ = GAINS if len(parts) == len(GAINS) else [f"part{i}" for i in range(len(parts))]
        return dict(zip(names_, parts, strict=True))

    def save(self, path: Path) -> None:
        """Write weights, layers, classes and options; `ultralytics:PATH` and `curator:PATH` read them."""
        write_state(path, self.network, self.description)

    def plain_network(self) -> Any:
        """A `DetectionModel` of the package with equal weights, built anew, as its own trainer takes it."""
        network = _network(self.description, self.spec)
        network.load_state_dict(self.network.state_dict())
        return network

    def clone(self) -> Self:
        """An independent copy with equal weights and trainable parameters, built anew."""
        network = self.plain_network()
        twin = type(self)(network, self.description, spec=self.spec).to(self.device)
        for name, parameter in twin.network.named_parameters():
            parameter.requires_grad_(".dfl" not in name)  # fixed numbers: the bins' distances
        return twin


def _keep(branch: nn.Module, values: dict[int, Tensor], level: int) -> Any:
    """Keep a level's output in `values`."""
    return branch.register_forward_hook(lambda _, __, output: values.__setitem__(level, output))


def _network(description: Mapping[str, Any], where: str, seed: int = 0) -> Any:
    return build_network(
        description["table"],
        description["classes"],
        end_to_end=description.get("end2end"),
        gains=description.get("gains"),
        seed=seed,
        where=where,
    )


def build(spec: Spec) -> UltralyticsDetector:
    """Load what `spec` names.

    Raises:
        InputError: no such file, a pickle that is not trusted, another kind of model. ConfigError: options.
    """
    path = Path(spec.name)
    common = ("size", "end2end", "nms_iou", "rect")
    if is_file_name(spec.name):
        spec.only((*common, "classes", "seed"))
        return _fresh(spec)
    if path.suffix == ".safetensors":
        spec.only(common)
        return _saved(path, spec)
    require(
        path.suffix == ".pt",
        f"ultralytics: expected a .pt, .safetensors or .yaml file (ultralytics:best.pt), got {spec.name!r}",
    )
    spec.only((*common, "trust_pickle"))
    return _saved(converted(path, trust=bool(_yes(spec, "trust_pickle"))), spec)


def _fresh(spec: Spec) -> UltralyticsDetector:
    classes = tuple(name.strip() for name in spec.options.get("classes", "").split(",") if name.strip())
    require(
        bool(classes) and len(set(classes)) == len(classes),
        f"ultralytics: expected distinct classes, as in ultralytics:yolo11n.yaml?classes=a,b, got {classes}",
    )
    seed = spec.options.get("seed", "0")
    require(seed.isdecimal(), f"seed: expected a whole number, got {seed!r}")
    description = describe(named_table(spec.name), classes, size=(640, 640), gains={})
    return _detector(description, spec, seed=int(seed))


def _saved(path: Path, spec: Spec) -> UltralyticsDetector:
    description = read_description(path)
    if description.get("architecture") != ARCHITECTURE:
        raise InputError(
            f"ultralytics: {path} holds another kind of detector ({description.get('architecture')}); use "
            f"curator:{path}"
        )
    detector = _detector(description, spec)
    load_into(detector.network, read_state(path), str(path))
    return detector


def _detector(description: Mapping[str, Any], spec: Spec, seed: int = 0) -> UltralyticsDetector:
    """The network of a description and a spec's options, with fresh weights."""
    end_to_end, rect = _yes(spec, "end2end"), _yes(spec, "rect")
    chosen = {**description, "end2end": description.get("end2end") if end_to_end is None else end_to_end}
    network = _network(chosen, spec.text, seed)
    chosen["end2end"] = bool(network.end2end)
    chosen["rect"] = description.get("rect", True) if rect is None else rect
    chosen["nms_iou"] = _share(spec, "nms_iou", float(description.get("nms_iou", NMS_IOU)))
    chosen["size"] = list(_size(spec, step_of(network), description["size"]))
    return UltralyticsDetector(network, chosen, spec=spec.text)


def _yes(spec: Spec, name: str) -> bool | None:
    """An option that is yes or no; None where it is not given."""
    text = spec.options.get(name)
    require(text in (None, "yes", "no"), f"{name}: expected yes or no, got {text!r}")
    return None if text is None else text == "yes"


def _share(spec: Spec, name: str, default: float) -> float:
    text = spec.options.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError as error:
        raise ConfigError(f"{name}: expected a number, got {text!r}") from error
    require(0 < value <= 1, f"{name}: expected a number in (0, 1], got {value}")
    return value


def _size(spec: Spec, step: int, default: Sequence[int]) -> tuple[int, int]:
    text = spec.options.get("size")
    if text is None:
        return int(default[0]), int(default[1])
    parts = text.lower().split("x")
    sides = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    require(
        len(sides) <= 2 and all(0 < side <= _LARGEST_SIDE and side % step == 0 for side in sides),
        f"ultralytics: expected size=640 or 384x640 (height x width) in multiples of {step}, got {text!r}",
    )
    return sides[0], sides[-1]
