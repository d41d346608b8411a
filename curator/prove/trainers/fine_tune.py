"""Fine-tune a detector: AdamW, one-cycle schedule, flips and zooms, a fixed number of steps.

In: a `TrainableDetector`, labelled images with sampling weights, a `FineTuneConfig`. Out: a trained copy
and the loss of every step.

Which images a step sees, and how they are flipped and zoomed, is a function of (seed, step) alone, and a
checkpoint holds weights and optimiser state: a killed training continues to the very weights of an
undisturbed one. Ctrl-C stops between steps and leaves a checkpoint there.

One-cycle: Smith & Topin (arXiv:1708.07120), torch's own. torch's `DataLoader` decodes, in `workers` processes
of its own or in this one: that changes nothing, since all draws are made here. Decoded images are kept as
uint8 up to `cache_bytes`. Flips and zooms are torchvision's functions, on the device; its random transforms
would draw from torch's global state.

Batch normalisation: fine-tuning on a few hundred images in small batches keeps the statistics frozen by
default, so that the make-up of batches (which images an arm adds) changes no layer's normalisation at
inference; training from fresh weights needs `batch_norm="train"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_area
from torchvision.transforms.v2 import functional as transforms
from torchvision.tv_tensors import BoundingBoxes

from curator.config import require
from curator.detect.base import TrainableDetector
from curator.errors import InputError, StageError
from curator.precision import autocast, resolve_precision
from curator.progress import progress
from curator.prove.trainers.checkpoints import load_checkpoint, save_checkpoint
from curator.prove.trainers.interrupts import held_back
from curator.tensors import image_tensor, resolve_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A labelled image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB. boxes: (n, 4) float32, pixels. labels: (n,) int64, detector classes.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class TrainingSet(Protocol):
    """Labelled images by index; `weights` (N,) says how often each is drawn, relative to the others."""

    weights: Sequence[float]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...


class Watcher(Protocol):
    """Looks at a network while it is trained (`trainers.watch`)."""

    def due(self, step: int, last: int) -> bool: ...
    def look(self, detector: TrainableDetector, step: int) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneConfig:
    """Settings of one training.

    Attributes:
        steps, batch_size: optimiser steps and images per step. learning_rate: peak of the one-cycle schedule.
        flip: mirror half of the images. zoom: scale each side by up to this share, up or down, at a random
            place, so that a few examples are not learnt by where they stand; 0 is none.
        batch_norm: "frozen" keeps the statistics and normalises by them, "train" updates them.
        gradient_norm: larger gradients are scaled down to it.
        precision: "auto" is what `curator.precision` makes of it; without AMX a small SSD gains nothing from
            bf16.
        checkpoint_every: steps between checkpoints. cache_bytes: decoded images kept in memory.
        workers: processes that decode ahead, which pays beside a GPU; 0 decodes in this one.
        ema: decay of the running mean of the weights, which is what is kept; 0 keeps the last ones.
        freeze: parameters whose names begin so are not trained.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 0.001
    weight_decay: float = 0.0005
    seed: int = 0
    flip: bool = True
    zoom: float = 0.15
    batch_norm: Literal["frozen", "train"] = "frozen"
    gradient_norm: float = 10.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    checkpoint_every: int = 50
    cache_bytes: int = 2 << 30
    workers: int = 0
    ema: float = 0.0
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps: expected at least 1, got {self.steps}")
        require(self.batch_size >= 1, f"batch_size: expected at least 1, got {self.batch_size}")
        require(0 <= self.zoom < 0.5, f"zoom: expected 0 to 0.5, got {self.zoom}")
        require(self.learning_rate > 0, f"learning_rate: expected more than 0, got {self.learning_rate}")
        require(
            self.checkpoint_every >= 1, f"checkpoint_every: expected at least 1, got {self.checkpoint_every}"
        )
        require(self.workers >= 0, f"workers: expected at least 0, got {self.workers}")
        require(0 <= self.ema < 1, f"ema: expected 0 <= decay < 1, got {self.ema}")


def fine_tune(
    detector: TrainableDetector,
    data: TrainingSet,
    config: FineTuneConfig,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watcher | None = None,
) -> tuple[TrainableDetector, list[float]]:
    """Train a copy of `detector`.

    Args:
        checkpoint: safetensors file to write every `checkpoint_every` steps, on Ctrl-C and after the last
            step, and to continue from when it exists; it must belong to the same training (the caller names
            it by content key).
        on_step: called with (step, loss) after each step. watch: looks at the network between steps.
    Returns:
        the trained copy, frozen and in eval mode, and the loss of every step.
    Raises:
        InputError: no images, or a black box without a network.
        StageError: the loss is no finite number.
    """
    if not len(data):
        raise InputError(
            "training: expected at least one labelled image, got none; add images with role train"
        )
    device = resolve_device(config.device)
    trained = detector.clone()
    trained.to(device)
    network = trained.modules()
    if network is None:
        raise InputError(
            f"training: expected a detector with a network inside, got the black box {detector.spec}"
        )
    parameters = _trained_parameters(network, config.freeze)
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    losses: list[float] = []
    mean = {n: v.detach().clone() for n, v in network.state_dict().items()} if config.ema else {}
    if checkpoint is not None and checkpoint.is_file():
        losses = load_checkpoint(checkpoint, network, optimiser, parameters, mean)
    schedule = _one_cycle(optimiser, config, done=len(losses))
    precision = resolve_precision(config.precision, device)

    def keep() -> None:
        if checkpoint is not None and losses:
            save_checkpoint(checkpoint, network, optimiser, parameters, losses, mean)

    whole = True  # no step is half done
    try:
        with progress("train", config.steps) as advance, _batch_norm(network, config.batch_norm):
            advance(len(losses))
            for step, batch in enumerate(_loader(data, config, done=len(losses)), start=len(losses)):
                examples = [
                    vary(example, np.random.default_rng([config.seed, step, place]), config, device)
                    for place, example in enumerate(_readable(batch), start=1)
                ]
                with held_back():
                    whole = False
                    optimiser.zero_grad(set_to_none=True)
                    with autocast(precision, device):
                        parts = trained.loss([e[0] for e in examples], [(e[1], e[2]) for e in examples])
                        loss = torch.stack(list(parts.values())).sum()
                    loss.backward()  # type: ignore[no-untyped-call]
                    nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
                    optimiser.step()
                    if step + 1 < config.steps:
                        schedule.step()
                    losses.append(float(loss.detach()))
                    _average(mean, network, config.ema, step)
                    if not np.isfinite(losses[-1]):
                        raise StageError(
                            f"training: the loss became {losses[-1]} at step {step + 1}; "
                            f"lower --learning-rate (now {config.learning_rate})"
                        )
                    whole = True
                    if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                        keep()
                if on_step is not None:
                    on_step(step + 1, losses[-1])
                if watch is not None and watch.due(step + 1, config.steps):
                    watch.look(trained, step + 1)
                advance(note=f"loss {np.mean(losses[-50:]):.3f}")
    except KeyboardInterrupt:
        if whole:
            keep()
        raise
    if mean:
        network.load_state_dict(mean)
    network.requires_grad_(False).eval()
    return trained, losses


def _trained_parameters(network: nn.Module, freeze: Sequence[str]) -> list[nn.Parameter]:
    """Parameters to train, in their order; the others ask for no gradient.

    Raises:
        InputError: a prefix that no parameter has, or nothing to train.
    """
    names = [name for name, _ in network.named_parameters()]
    unknown = [prefix for prefix in freeze if not any(name.startswith(prefix) for name in names)]
    if unknown:
        known = dict.fromkeys(name.partition(".")[0] for name in names)
        raise InputError(
            f"freeze: expected beginnings of parameter names ({', '.join(known)}, or longer ones), "
            f"got {', '.join(unknown)}"
        )
    for name, parameter in network.named_parameters():
        if freeze and name.startswith(tuple(freeze)):
            parameter.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(f"freeze: {', '.join(freeze)} leaves nothing to train")
    return parameters


@torch.no_grad()
def _average(mean: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move a running mean of weights and statistics; early steps count more (Tarvainen and Valpola)."""
    now = min(decay, (1 + step) / (10 + step))
    current = network.state_dict() if mean else {}
    for name, value in mean.items():
        if value.dtype.is_floating_point:
            value.lerp_(current[name], 1 - now)
        else:
            value.copy_(current[name])


def draw(seed: int, step: int, weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices (count,) of the images of one step, drawn by weight; none twice where there are enough."""
    rng = np.random.default_rng([seed, step, 0])
    enough = np.count_nonzero(weights) >= count
    return rng.choice(len(weights), size=count, replace=not enough, p=weights / weights.sum()).astype(
        np.int64
    )


def _loader(data: TrainingSet, config: FineTuneConfig, *, done: int) -> DataLoader[Example | Exception]:
    """The images of each step from `done` on, as lists."""
    weights = np.asarray(data.weights, dtype=np.float64)
    steps = (draw(config.seed, step, weights, config.batch_size) for step in range(done, config.steps))
    return DataLoader(
        _Decoded(data, config.cache_bytes // max(1, config.workers)),
        batch_sampler=(indices.tolist() for indices in steps),
        num_workers=config.workers,
        collate_fn=list,
        generator=torch.Generator(),  # where the workers' own seeds come from: not the global state
    )


def _readable(batch: Sequence[Example | Exception]) -> Iterator[Example]:
    for example in batch:
        if isinstance(example, Exception):
            raise example
        yield example


class _Decoded(Dataset[Example | Exception]):
    """Examples by index, kept while they fit into `limit` bytes; one that cannot be read is its exception,
    which a worker would otherwise wrap into a traceback."""

    def __init__(self, data: TrainingSet, limit: int) -> None:
        self._data, self._left, self._kept = data, limit, dict[int, Example]()

    def __getitem__(self, index: int) -> Example | Exception:
        if index in self._kept:
            return self._kept[index]
        try:
            example = self._data[index]
        except Exception as error:
            return error
        if example.pixels.nbytes <= self._left:
            self._left -= example.pixels.nbytes
            self._kept[index] = example
        return example


def _one_cycle(optimiser: torch.optim.Optimizer, config: FineTuneConfig, *, done: int) -> OneCycleLR:
    """Cosine from a tenth to the peak in the first fifth (two steps at least), then to a thousandth.

    Standing at step `done`: a resumed optimiser says where it began and ends, as its stored state would.
    """
    steps, begin, end = max(config.steps, 2), 10.0, 100.0
    first = config.learning_rate / begin
    for group in optimiser.param_groups:
        group.update(initial_lr=first, max_lr=config.learning_rate, min_lr=first / end)
    return OneCycleLR(
        optimiser,
        config.learning_rate,
        total_steps=steps,
        pct_start=min(1.0, max(0.2, 2 / steps)),
        div_factor=begin,
        final_div_factor=end,
        cycle_momentum=False,
        last_epoch=done - 1,
    )


def vary(
    example: Example, rng: np.random.Generator, config: FineTuneConfig, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """An example, flipped and zoomed at random: image (3, H, W) in [0, 1], boxes (n, 4), labels (n,).

    A window of (1 - zoom .. 1 + zoom) times the image's size is cut out at a random place (edge pixels are
    repeated where it reaches beyond) and brought to the image's size. Objects of which less than half
    remains lose their box.
    """
    image = image_tensor(example.pixels).to(device)
    height, width = image.shape[-2:]
    boxes = BoundingBoxes(
        torch.from_numpy(np.array(example.boxes)), format="XYXY", canvas_size=(height, width), device=device
    )
    labels = torch.from_numpy(np.array(example.labels)).to(device)
    if config.flip and rng.random() < 0.5:
        image, boxes = transforms.horizontal_flip(image), transforms.horizontal_flip(boxes)
    if config.zoom:
        scale = 1 + rng.uniform(-config.zoom, config.zoom)
        w, h = round(width * scale), round(height * scale)
        x, y = (
            round(rng.uniform(min(0, full - part), max(0, full - part)))
            for full, part in ((width, w), (height, h))
        )
        beyond = [max(0, -x), max(0, -y), max(0, x + w - width), max(0, y + h - height)]
        image = transforms.pad(image, beyond, padding_mode="edge")
        image = transforms.resized_crop(image, max(0, y), max(0, x), h, w, [height, width], antialias=False)
        whole = box_area(boxes) * (width / w) * (height / h)
        boxes = transforms.resized_crop(boxes, y, x, h, w, [height, width])
        kept = box_area(boxes) >= 0.5 * whole
        boxes, labels = boxes[kept], labels[kept]
    return image, boxes.as_subclass(Tensor), labels


@contextmanager
def _batch_norm(network: nn.Module, mode: str) -> Iterator[None]:
    """Inside: "frozen" puts every batch normalisation into eval mode just before it runs, whatever mode the
    adapter has switched the network to."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    handles = [m.register_forward_pre_hook(_to_eval) for m in layers] if mode == "frozen" else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _to_eval(module: nn.Module, _: object) -> None:
    module.eval()
