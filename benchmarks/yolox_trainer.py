"""A plain training program for YOLOX kept in ONNX (Ge et al., arXiv:2107.08430), for `--trainer command:`.

    python yolox_trainer.py classes --init coco.onnx --names a,b,c --like 5,2,- --size 256 --out own.onnx
    python yolox_trainer.py train --data FOLDER --init own.onnx --out FOLDER --steps 80 [--batch 8]
        [--learning-rate 0.00005] [--seed 0]

`classes` gives a file other classes: the heads' rows are those of the COCO classes at the places of `--like`,
and for "-" a row of zeros at a probability of .01. `train` reads a COCO folder (annotations.json), takes the
weights out of the file, trains all of them and writes FOLDER/best.onnx. The export has batch normalisation
folded into the convolutions, so there are no statistics to keep.

Loss as in the paper: 5 (1 - IoU^2) on the cells that SimOTA gives to objects, binary cross-entropy of
objectness everywhere and of the class (target: IoU) on those cells, all divided by their number. Pictures are
mirrored and scaled at random.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from curator.detect.decoding import cells
from curator.detect.onnx_graph import OnnxGraph, run

STRIDES = (8, 16, 32)
RADIUS = 2.5  # strides around an object's centre from which it may be predicted
NEAREST = 10  # overlaps whose sum is the number of cells that an object gets
START = 0.01  # probability of a class without a row to begin with
PAD = 114
ZOOM = (0.6, 1.4)
FASTER = 20  # the rate of the class rows, of which some begin with nothing, by that of all other weights


def other_classes(arguments: argparse.Namespace) -> None:
    """Write the file with other classes and another input size."""
    model = onnx.load(str(arguments.init))
    like, names = arguments.like.split(","), arguments.names.split(",")
    assert len(like) == len(names), "as many --like as --names"
    old = 0
    for tensor in model.graph.initializer:
        if "cls_preds" not in tensor.name:
            continue
        values = numpy_helper.to_array(tensor)
        old = len(values)
        bias = tensor.name.endswith("bias")
        fresh = np.full_like(values[0], np.log(START / (1 - START)) if bias else 0.0)
        rows = [fresh if place == "-" else values[int(place)] for place in like]
        tensor.CopyFrom(numpy_helper.from_array(np.stack(rows), tensor.name))
    for tensor in model.graph.initializer:  # the Reshape behind every level: [1, 5 + classes, -1]
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int64 and values.tolist() == [1, 5 + old, -1]:
            tensor.CopyFrom(numpy_helper.from_array(np.array([1, 5 + len(names), -1]), tensor.name))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    shape[2].dim_value = shape[3].dim_value = arguments.size
    count = sum((arguments.size // stride) ** 2 for stride in STRIDES)
    for number, value in enumerate((1, count, 5 + len(names))):
        model.graph.output[0].type.tensor_type.shape.dim[number].dim_value = value
    del model.graph.value_info[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", str(dict(enumerate(names)))
    onnx.save(model, str(arguments.out))


class Pictures:
    """A COCO folder in memory: pictures and boxes (N, 4) with class numbers (N,)."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        told = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
        classes = {entry["id"]: names.index(entry["name"]) for entry in told["categories"]}
        boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in told["images"]}
        for entry in told["annotations"]:
            x, y, w, h = entry["bbox"]
            boxes[entry["image_id"]].append([x, y, x + w, y + h, classes[entry["category_id"]]])
        self.items = []
        for image in told["images"]:
            path = folder / image["file_name"]
            path = path if path.is_file() else folder / "images" / image["file_name"]
            with Image.open(path) as opened:
                pixels = np.asarray(opened.convert("RGB"))
            self.items.append((pixels, np.array(boxes[image["id"]], np.float32).reshape(-1, 5)))

    def batch(self, size: int, count: int, rng: np.random.Generator) -> tuple[Tensor, list[Tensor]]:
        """Random views -> pictures (B, 3, size, size), BGR 0 to 255; per picture x1, y1, x2, y2, class."""
        pictures, targets = [], []
        for number in rng.choice(len(self.items), count, replace=len(self.items) < count):
            pixels, boxes = self.items[number]
            height, width = pixels.shape[:2]
            zoom = size / max(height, width) * rng.uniform(*ZOOM)
            w, h = max(8, round(width * zoom)), max(8, round(height * zoom))
            x, y = (int(rng.integers(min(0, size - side), max(0, size - side) + 1)) for side in (w, h))
            view = np.full((size, size, 3), PAD, np.uint8)
            scaled = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR))
            x1, y1, x2, y2 = max(0, x), max(0, y), min(size, x + w), min(size, y + h)
            view[y1:y2, x1:x2] = scaled[y1 - y : y2 - y, x1 - x : x2 - x]
            moved = boxes.copy()
            moved[:, [0, 2]] = moved[:, [0, 2]] * w / width + x
            moved[:, [1, 3]] = moved[:, [1, 3]] * h / height + y
            whole = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
            moved[:, :4] = moved[:, :4].clip(0, size)
            left = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
            moved = moved[left > 0.4 * whole]
            if rng.random() < 0.5:
                view = view[:, ::-1]
                moved[:, [0, 2]] = size - moved[:, [2, 0]]
            pictures.append(np.ascontiguousarray(view[..., ::-1].transpose(2, 0, 1), np.float32))
            targets.append(torch.from_numpy(moved))
        return torch.from_numpy(np.stack(pictures)), targets


def given(
    boxes: Tensor, scores: Tensor, centres: Tensor, strides: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """SimOTA's cells of one picture: their numbers (P,), the object of each (P,), and the overlaps (P,)."""
    wanted = target[:, :4]
    middle = (wanted[:, :2] + wanted[:, 2:]) / 2
    away = (centres[None] - middle[:, None]).abs().amax(-1)
    near = away < RADIUS * strides[None]
    inside = ((centres[None] > wanted[:, None, :2]) & (centres[None] < wanted[:, None, 2:])).all(-1)
    cell = (near | inside).any(0).nonzero()[:, 0]
    overlap = box_iou(wanted, boxes[cell])
    hot = F.one_hot(target[:, 4].long(), scores.shape[1]).float()
    shape = (len(target), len(cell), scores.shape[1])
    told = F.binary_cross_entropy(
        scores[cell].sqrt().expand(shape), hot[:, None].expand(shape), reduction="none"
    )
    cost = told.sum(-1) - 3 * overlap.clamp_min(1e-8).log() + 1e5 * ~(near & inside)[:, cell]
    chosen = torch.zeros_like(cost)
    for number in range(len(target)):
        sum_of_best = overlap[number].topk(min(NEAREST, len(cell))).values.sum()
        count = int(sum_of_best.clamp(1, len(cell)))
        chosen[number, cost[number].topk(count, largest=False).indices] = 1
    twice = chosen.sum(0) > 1
    if twice.any():
        chosen[:, twice] = F.one_hot(cost[:, twice].argmin(0), len(target)).T.float()
    taken = chosen.sum(0) > 0
    owner = chosen[:, taken].argmax(0)
    return cell[taken], owner, overlap[owner, taken.nonzero()[:, 0]]


def loss_of(output: Tensor, targets: list[Tensor], size: int) -> Tensor:
    """The loss of raw outputs (B, A, 5 + K)."""
    corner, stride = cells((size, size), STRIDES, device=output.device)
    centre = (output[..., :2] + corner) * stride
    half = output[..., 2:4].exp() * stride / 2
    boxes = torch.cat([centre - half, centre + half], -1)
    objects = torch.zeros(output.shape[:2])
    total = output.new_zeros(())
    count = 0
    for number, target in enumerate(targets):
        if not len(target):
            continue
        joint = output[number, :, 4:5] * output[number, :, 5:]
        with torch.no_grad():
            cell, owner, overlap = given(
                boxes[number], joint, ((corner + 0.5) * stride), stride[:, 0], target
            )
        if not len(cell):
            continue
        count += len(cell)
        objects[number, cell] = 1.0
        own, wanted = boxes[number, cell], target[owner, :4]
        low, high = torch.maximum(own[:, :2], wanted[:, :2]), torch.minimum(own[:, 2:], wanted[:, 2:])
        common = (high - low).clamp_min(0).prod(-1)
        both = (own[:, 2:] - own[:, :2]).prod(-1) + (wanted[:, 2:] - wanted[:, :2]).prod(-1) - common
        total = total + 5 * (1 - (common / both.clamp_min(1e-9)) ** 2).sum()
        hot = F.one_hot(target[owner, 4].long(), output.shape[2] - 5).float() * overlap[:, None]
        total = total + F.binary_cross_entropy(output[number, cell, 5:], hot, reduction="sum")
    total = total + F.binary_cross_entropy(output[..., 4], objects, reduction="sum")
    return total / max(count, 1)


def train(arguments: argparse.Namespace) -> None:
    """Train and write best.onnx."""
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    graph = OnnxGraph(arguments.init)
    names = list(ast.literal_eval(graph.facts["names"]).values())
    network = graph.to_torch([])
    model = onnx.load(str(arguments.init))
    places = matched(network, model)
    size = graph.input_size[0]
    pictures = Pictures(arguments.data, names)
    parameters = [p.requires_grad_(True) for p in network.parameters()]
    rows = {id(p) for name, p in places.items() if "cls_preds" in name}
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if id(p) not in rows]},
            {"params": [p for p in parameters if id(p) in rows]},
        ],
        lr=arguments.learning_rate,
        weight_decay=0.0005,
    )
    peaks = [arguments.learning_rate, FASTER * arguments.learning_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peaks, total_steps=arguments.steps, pct_start=max(0.1, 2 / arguments.steps)
    )
    for step in range(1, arguments.steps + 1):
        batch, targets = pictures.batch(size, arguments.batch, rng)
        loss = loss_of(run(network, batch)[0], targets, size)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        schedule.step()
        if step % 10 == 0:
            print(f"step {step} of {arguments.steps}, loss {loss.item():.3f}", flush=True)
    for tensor in model.graph.initializer:
        if tensor.name in places:
            value = places[tensor.name].detach().numpy().astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    arguments.out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(arguments.out / "best.onnx.part"))
    os.replace(arguments.out / "best.onnx.part", arguments.out / "best.onnx")


def matched(network: nn.Module, model: onnx.ModelProto) -> dict[str, nn.Parameter]:
    """Initializer -> the parameter that holds its values."""
    held = {p.detach().numpy().tobytes(): p for p in network.parameters()}
    found = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.tobytes() in held:
            found[tensor.name] = held[values.tobytes()]
    assert len({id(p) for p in found.values()}) == len(list(network.parameters())), "a weight without a place"
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="what", required=True)
    for what in ("classes", "train"):
        part = parts.add_parser(what)
        part.add_argument("--init", type=Path, required=True)
        part.add_argument("--out", type=Path, required=True)
        if what == "classes":
            part.add_argument("--names", required=True)
            part.add_argument("--like", required=True)
            part.add_argument("--size", type=int, default=416)
            continue
        part.add_argument("--data", type=Path, required=True)
        part.add_argument("--steps", type=int, required=True)
        part.add_argument("--batch", type=int, default=8)
        part.add_argument("--learning-rate", type=float, default=0.00005)
        part.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    (other_classes if arguments.what == "classes" else train)(arguments)


if __name__ == "__main__":
    main()
