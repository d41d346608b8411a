"""Self-supervised training of the exemplar-conditioned inpainter on unlabelled images.

In: images (`examples.py` makes crops of them). Out: a saved `ExemplarInpaintPipeline`.

Loss: squared error of x0 with truncated min-SNR weights (Hang et al., ICCV 2023, arXiv:2303.09556; Salimans &
Ho, arXiv:2202.00512): w(t) = clip(SNR, 1, 5), mostly over the hole. What is saved is the exponential moving
average of the weights that did best on held-out images: the same loss, always on the same crops, noise and
timesteps. The learning rate rises, stays, and falls over the last fifth of the steps (Zhai et al., CVPR 2022,
arXiv:2106.04560), so that a training may be stopped or prolonged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError
from curator.inpaint.checkpoint import Checkpoint, save_pipeline
from curator.inpaint.examples import Crops, distort, recompose
from curator.inpaint.exemplar import (
    UNKNOWN,
    ExemplarInpaintPipeline,
    build_pipeline,
    collage,
    known_part,
    predict,
    square_collage,
    squares,
)
from curator.inpaint.sheet import write_sheet
from curator.progress import progress
from curator.tensors import generator, resolve_device

_GAMMA = 5.0
_OUTSIDE = 0.1  # weight of the loss on known pixels: they are trivial, but keep the border sharp
HELD_OUT_CROPS = 64
T = TypeVar("T")


def diffusion_loss(
    pipe: ExemplarInpaintPipeline, image: Tensor, hole: Tensor, exemplar: Tensor, noise_from: torch.Generator
) -> Tensor:
    """SNR-weighted x0 loss of one batch.

    Args:
        image: (B, 3, S, S) in [0, 1]. hole: (B, 1, S, S), 1 = hole. exemplar: (B, 3, s, s) in [0, 1],
            squares as `Crop.exemplar`.
    """
    device, n = image.device, len(image)
    exemplar = distort(exemplar, noise_from)
    laid = square_collage(exemplar, hole) if pipe.fit == "pad" else collage(list(exemplar), hole)
    coin = torch.rand(n, generator=noise_from).to(device)[:, None, None, None]
    # A tenth without any exemplar (guidance), a fifth with tokens alone, so that both ways are learnt; three
    # tenths start from a composition.
    laid = torch.where(coin < 0.3, torch.full_like(laid, UNKNOWN), laid)
    laid = torch.where(coin > 0.7, recompose(image, hole, noise_from), laid)
    tokens = pipe.encoder(squares(list(exemplar), pipe.encoder.config.size, "squash"))
    tokens = tokens * (coin[..., 0] >= 0.1)
    x0 = F.pixel_unshuffle(image * 2 - 1, pipe.fold)
    noise = torch.randn(x0.shape, generator=noise_from).to(device)
    t = torch.randint(0, pipe.scheduler.config.num_train_timesteps, (n,), generator=noise_from).to(device)
    noisy = pipe.scheduler.add_noise(x0, noise, t)
    found = predict(pipe, noisy, known_part(image, hole, laid), hole, t, tokens)
    alpha = pipe.scheduler.alphas_cumprod.to(device)[t]
    snr = alpha / (1 - alpha).clamp(min=1e-8)
    # At least 1: sampling starts at SNR 0, which must not weigh nothing.
    weight = snr.clamp(1.0, _GAMMA)
    where = F.pixel_unshuffle(hole.expand(-1, 3, -1, -1) + _OUTSIDE, pipe.fold)
    error = ((found.float() - x0) ** 2 * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    loss: Tensor = (weight * error).mean()
    return loss


@dataclass(kw_only=True)
class Trained:
    """What a training gave.

    Attributes:
        pipe: with the best averaged weights, float32, eval mode. losses: of every step.
        checks: (step, loss on the held-out crops); the saved weights are those of the lowest.
        spent: seconds of training. stopped: why it ended.
    """

    pipe: ExemplarInpaintPipeline
    losses: list[float]
    checks: list[tuple[int, float]] = field(default_factory=list)
    spent: float = 0.0
    stopped: str = ""


def train_inpainter(
    images: Sequence[NDArray[np.uint8]],
    out: Path | None,
    *,
    held_out: Sequence[NDArray[np.uint8]] = (),
    steps: int = 3000,
    batch_size: int = 16,
    crops_per_image: int = 8,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    bfloat16: bool | None = None,
    minutes: float | None = None,
    check_every: int = 100,
    patience: int = 0,
    sheet_every: int = 0,
    key: str = "",
    pipeline: ExemplarInpaintPipeline | None = None,
    log: Callable[[str], None] | None = None,
) -> Trained:
    """Train an inpainter on unlabelled images.

    Args:
        images: (H, W, 3) uint8 RGB each, at least 32 pixels a side; a sequence that decodes when asked does.
        out: folder for the float16 safetensors pipeline, with `checkpoint/` from which the same call goes on
            after a kill, and `sheets/`; None does not save.
        held_out: images that no step sees; without them the last weights are kept, not the best.
        crops_per_image: crops made of an image whenever it is its turn; each is distorted anew when drawn.
        bfloat16: autocast; None turns it on where the CPU or GPU computes it natively.
        minutes: of training, those before a kill included; None: any.
        check_every: steps between two checks of the held-out loss, each with a checkpoint.
        patience: checks without a better one after which it ends; 0: never.
        sheet_every: steps between two sheets of samples; 0: none.
        key: digest of the images, for the checkpoint.
        pipeline: to train on; None starts from fresh weights drawn from `seed`.
        log: called with a line at every check.
    Raises:
        InputError: no images, one that is too small, or a checkpoint of another training in `out`.
    """
    if not len(images):
        raise InputError("expected at least one image to train the inpainter on, got none")
    target = resolve_device(device)
    pipe = pipeline or build_pipeline(seed=seed)
    pipe.to(target)
    if bfloat16 is None:
        bfloat16 = target.type == "cuda" or (target.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    crops = Crops(images, size=pipe.size, fit=pipe.fit, seed=seed, per_image=crops_per_image)
    unseen = None
    if len(held_out):
        fixed = Crops(held_out, size=pipe.size, fit=pipe.fit, seed=seed + 1, per_image=4)
        unseen = fixed.batch(range(min(HELD_OUT_CROPS, 16 * len(held_out))))
    modules = torch.nn.ModuleList([pipe.unet, pipe.encoder]).train()
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    average = EMAModel(parameters, decay=0.995, use_ema_warmup=True, power=0.75)
    facts = [key, seed, batch_size, crops_per_image, learning_rate, pipe.size, pipe.fit, pipe.predicts]
    state = Checkpoint(None if out is None else out / "checkpoint", facts, parameters, optimizer, average)
    state.load()
    before, started = state.spent, time.monotonic()

    def why() -> str:
        """Why the training ends here; "" where it goes on."""
        if state.step >= steps:
            return f"after {steps} steps"
        if minutes is not None and state.spent >= minutes * 60:
            return f"after {minutes:g} minutes"
        if patience and state.since_best >= patience:
            return f"the held-out loss has not improved for {patience} checks"
        return ""

    def check() -> None:
        """Measure, keep what is best, write a checkpoint."""
        loss = None if unseen is None else _held_out_loss(pipe, unseen, target, bfloat16, seed, average)
        better = state.check(loss)
        if better and out is not None:
            _with_average(pipe, average, lambda: save_pipeline(pipe, out))
        state.save()
        if log:
            told = "" if loss is None else f" held-out {loss:.4f}{' (best)' if better else ''}"
            log(f"step {state.step} loss {np.mean(state.losses[-100:]):.4f}{told} {state.spent:.0f} s")

    def sheet() -> None:
        if out is not None and sheet_every and unseen is not None:
            place = out / "sheets" / f"step_{state.step:06d}.png"
            _with_average(pipe, average, lambda: write_sheet(pipe, unseen, place, seed=seed))

    with progress("train-inpainter", steps) as advance:
        advance(state.step)
        while not why():
            drawing = generator("train-inpainter", seed, state.step)
            batch = _mirror(*crops.draw(state.step, batch_size, drawing), drawing)
            image, hole, exemplar = (part.to(target) for part in batch)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * _schedule(state.step, steps)
            with torch.autocast(target.type, torch.bfloat16, enabled=bfloat16):
                loss = diffusion_loss(pipe, image, hole, exemplar, drawing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            average.step(parameters)
            state.step += 1
            state.losses.append(float(loss.detach()))
            state.spent = before + time.monotonic() - started
            advance(note=f"loss {np.mean(state.losses[-100:]):.4f}")
            ends = bool(why())
            if ends or state.step % check_every == 0:
                check()
            if sheet_every and (ends or state.step % sheet_every == 0):
                sheet()
    state.restore_best()
    modules.eval()
    return Trained(pipe=pipe, losses=state.losses, checks=state.checks, spent=state.spent, stopped=why())


def _schedule(step: int, steps: int) -> float:
    warmup, fall = max(1, min(100, steps // 10)), max(1, steps // 5)
    return max(0.02, min((step + 1) / warmup, 1.0, (steps - step) / fall))


@torch.no_grad()
def _held_out_loss(
    pipe: ExemplarInpaintPipeline,
    unseen: tuple[Tensor, Tensor, Tensor],
    target: torch.device,
    bfloat16: bool,
    seed: int,
    average: EMAModel,
) -> float:
    """Loss of the averaged weights, always on the same crops, noise and timesteps."""

    def measure() -> float:
        total, size = 0.0, 8
        for start in range(0, len(unseen[0]), size):
            image, hole, exemplar = (part[start : start + size].to(target) for part in unseen)
            with torch.autocast(target.type, torch.bfloat16, enabled=bfloat16):
                noise = generator("held out", seed, start)
                total += float(diffusion_loss(pipe, image, hole, exemplar, noise)) * len(image)
        return total / len(unseen[0])

    return _with_average(pipe, average, measure)


def _with_average(pipe: ExemplarInpaintPipeline, average: EMAModel, act: Callable[[], T]) -> T:
    """`act` with the averaged weights in place."""
    modules = torch.nn.ModuleList([pipe.unet, pipe.encoder])
    parameters = [p for p in modules.parameters() if p.requires_grad]
    average.store(parameters)
    average.copy_to(parameters)
    modules.eval()
    try:
        return act()
    finally:
        average.restore(parameters)
        modules.train()


def _mirror(
    image: Tensor, hole: Tensor, exemplar: Tensor, drawing: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    flip = (torch.rand(len(image), generator=drawing) < 0.5).to(image.device)[:, None, None, None]
    mirrored = [torch.where(flip, part.flip(-1), part) for part in (image, hole, exemplar)]
    return mirrored[0], mirrored[1], mirrored[2]
