"""Self-supervised training of the exemplar-conditioned inpainter on unlabelled images.

In: images, nothing else: no boxes, no classes, no detector. Out: a saved `ExemplarInpaintPipeline`.

Each example is made from one image: a box around something that stands out from its surroundings, a square
crop around it, a hole (the box, the segments of the box that differ most from their surroundings, or a blob),
and as exemplar the hole's own content, distorted (flip, small rotation, colour, scale), so that copying it is
not enough (Paint by Example, arXiv:2211.13227, section 3.2). Loss: squared error of x0 with truncated min-SNR
weights (Hang et al., ICCV 2023, arXiv:2303.09556; Salimans & Ho, arXiv:2202.00512): w(t) = clip(SNR, 1, 5),
mostly over the hole. The saved weights are the exponential moving average.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from curator.errors import InputError
from curator.inpaint.exemplar import (
    UNKNOWN,
    ExemplarInpaintPipeline,
    build_pipeline,
    collage,
    condition,
)
from curator.inpaint.masks import standing_out, superpixels
from curator.progress import progress
from curator.tensors import generator, resolve_device

_GAMMA = 5.0
_OUTSIDE = 0.1  # weight of the loss on known pixels: they are trivial, but keep the border sharp


@dataclass(frozen=True, slots=True)
class Crop:
    """One training example: image (3, S, S) and hole (S, S) bool, exemplar (3, S/2, S/2); uint8 [0, 255]."""

    image: NDArray[np.uint8]
    hole: NDArray[np.bool_]
    exemplar: NDArray[np.uint8]


def stands_out(
    pixels: NDArray[np.uint8], rng: np.random.Generator, *, tries: int = 8
) -> tuple[int, int, int, int]:
    """Draw boxes and return the one whose content differs most from its surroundings, as (x1, y1, x2, y2)."""
    height, width = pixels.shape[:2]
    best, best_score = (0, 0, 1, 1), -1.0
    for _ in range(tries):
        long = rng.uniform(0.08, 0.4) * min(height, width)
        aspect = np.exp(rng.uniform(-1.4, 1.4))
        w, h = (
            int(np.clip(long * min(aspect, 1), 6, width - 2)),
            int(np.clip(long / max(aspect, 1), 6, height - 2)),
        )
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        inside = pixels[y : y + h, x : x + w].reshape(-1, 3).astype(np.float32)
        pad = max(3, min(w, h) // 3)
        around = (
            pixels[max(0, y - pad) : y + h + pad, max(0, x - pad) : x + w + pad]
            .reshape(-1, 3)
            .astype(np.float32)
        )
        score = float(np.abs(inside.mean(0) - around.mean(0)).sum() + 0.5 * inside.std(0).sum())
        if score > best_score:
            best, best_score = (x, y, x + w, y + h), score
    return best


def draw_hole(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    box: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """A hole (H, W) inside or around `box`: the box itself, its standing-out segments, or a blob."""
    x1, y1, x2, y2 = box
    hole = np.zeros(labels.shape, bool)
    kind = rng.random()
    if kind < 0.25:
        hole[y1:y2, x1:x2] = True
        return hole
    if kind < 0.8:
        hole = standing_out(pixels, labels, box)
        hole = ndimage.binary_dilation(hole, iterations=int(rng.integers(1, 4)))
    else:
        yy, xx = np.mgrid[0 : y2 - y1, 0 : x2 - x1]
        radius = np.hypot((yy - (y2 - y1) / 2) / ((y2 - y1) / 2), (xx - (x2 - x1) / 2) / ((x2 - x1) / 2))
        angle = np.arctan2(yy - (y2 - y1) / 2, xx - (x2 - x1) / 2)
        waves = sum(rng.uniform(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5))
        hole[y1:y2, x1:x2] = radius < 0.85 + waves
    if hole.sum() < 12:
        hole[y1:y2, x1:x2] = True
    return hole


def make_crop(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Crop:
    """One example from an image (H, W, 3) and its segments (H, W)."""
    hole = draw_hole(pixels, labels, stands_out(pixels, rng), rng)
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = hole.shape
    side = int(min(max(y2 - y1, x2 - x1) * rng.uniform(1.4, 2.4), height, width))
    side = max(side, min(24, height, width), y2 - y1, x2 - x1)
    left = int(np.clip((x1 + x2 - side) / 2 + rng.uniform(-0.1, 0.1) * side, 0, max(width - side, 0)))
    top = int(np.clip((y1 + y2 - side) / 2 + rng.uniform(-0.1, 0.1) * side, 0, max(height - side, 0)))
    window = (slice(top, top + side), slice(left, left + side))
    image = _resize(pixels[window], (size, size))
    small = _resize(hole[window][..., None].astype(np.uint8) * 255, (size, size))[0] > 127
    if not small.any():
        small[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = True
    content = pixels[y1:y2, x1:x2].copy()
    if rng.random() < 0.75:  # mostly the thing alone, as a culprit's segments give it
        content[~hole[y1:y2, x1:x2]] = round(UNKNOWN * 255)
    return Crop(image, small, _resize(content, (size // 2, size // 2)))


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C) -> (C, h, w), antialiased."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()[None]
    out = F.interpolate(tensor, size, mode="bilinear", antialias=True)[0]
    return out.clamp(0, 255).round().to(torch.uint8).numpy()


def distort(exemplar: Tensor, noise: torch.Generator) -> Tensor:
    """Distort exemplars (B, 3, h, w) in [0, 1]: flip, rotation up to 8 degrees, scale, shift, colour."""
    n = len(exemplar)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=noise).to(exemplar.device) * (high - low) + low

    angle, scale = uniform(-0.14, 0.14), uniform(0.88, 1.12)
    flip = torch.where(uniform(0, 1) < 0.1, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([scale * flip * angle.cos(), -scale * angle.sin(), uniform(-0.06, 0.06)], -1),
            torch.stack([scale * flip * angle.sin(), scale * angle.cos(), uniform(-0.06, 0.06)], -1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, list(exemplar.shape), align_corners=False)
    moved = F.grid_sample(exemplar - UNKNOWN, grid, padding_mode="zeros", align_corners=False) + UNKNOWN
    known = ((moved - UNKNOWN).abs().sum(1, keepdim=True) > 0.02).to(moved.dtype)
    coloured = moved * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.04, 0.04, 1, 1, 1)
    return (known * coloured + (1 - known) * UNKNOWN).clamp(0, 1)


def diffusion_loss(
    pipe: ExemplarInpaintPipeline, image: Tensor, hole: Tensor, exemplar: Tensor, noise_from: torch.Generator
) -> Tensor:
    """SNR-weighted x0 loss of one batch.

    Args:
        image: (B, 3, S, S) in [0, 1]. hole: (B, 1, S, S), 1 = hole. exemplar: (B, 3, h, w) in [0, 1].
    """
    device, n = image.device, len(image)
    exemplar = distort(exemplar, noise_from)
    laid = collage(list(exemplar), hole)
    coin = torch.rand(n, generator=noise_from).to(device)
    # A tenth without any exemplar (guidance), a fifth with tokens alone, so that both ways are learnt.
    laid = torch.where((coin < 0.3)[:, None, None, None], torch.full_like(laid, UNKNOWN), laid)
    side = pipe.encoder.config.size
    tokens = pipe.encoder(F.interpolate(exemplar, (side, side), mode="bilinear", antialias=True))
    tokens = tokens * (coin >= 0.1)[:, None, None]
    x0 = F.pixel_unshuffle(image * 2 - 1, pipe.fold)
    noise = torch.randn(x0.shape, generator=noise_from).to(device)
    t = torch.randint(0, pipe.scheduler.config.num_train_timesteps, (n,), generator=noise_from).to(device)
    noisy = pipe.scheduler.add_noise(x0, noise, t)
    found = pipe.unet(
        torch.cat([noisy, condition(image, hole, laid, pipe.fold)], dim=1), t, encoder_hidden_states=tokens
    ).sample
    alpha = pipe.scheduler.alphas_cumprod.to(device)[t]
    snr = alpha / (1 - alpha).clamp(min=1e-8)
    # At least 1: sampling starts at SNR 0, which must not weigh nothing.
    weight = snr.clamp(1.0, _GAMMA)
    where = F.pixel_unshuffle(hole.expand(-1, 3, -1, -1) + _OUTSIDE, pipe.fold)
    error = ((found.float() - x0) ** 2 * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    loss: Tensor = (weight * error).mean()
    return loss


def train_inpainter(
    images: Sequence[NDArray[np.uint8]],
    out: Path | None,
    *,
    steps: int = 3000,
    batch_size: int = 16,
    crops_per_image: int = 8,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    bfloat16: bool | None = None,
    minutes: float | None = None,
    pipeline: ExemplarInpaintPipeline | None = None,
    log: Callable[[str], None] | None = None,
) -> tuple[ExemplarInpaintPipeline, list[float]]:
    """Train an inpainter on unlabelled images.

    Args:
        images: (H, W, 3) uint8 RGB each, at least 32 pixels a side.
        out: folder for the float16 safetensors pipeline; None does not save.
        crops_per_image: examples prepared per image; each is distorted anew whenever it is drawn.
        bfloat16: autocast; None turns it on where the CPU or GPU computes it natively.
        minutes: stop early after so much time (the schedule then ends where it is); None never does.
        pipeline: to train on; None starts from fresh weights drawn from `seed`.
        log: called with a line every 100 steps.
    Returns:
        the pipeline with averaged weights (float32, eval mode), and the loss of every step.
    Raises:
        InputError: no images, or one that is too small.
    """
    if not images:
        raise InputError("expected at least one image to train the inpainter on, got none")
    small = [image.shape for image in images if min(image.shape[:2]) < 32]
    if small:
        raise InputError(f"expected images of at least 32 pixels a side to train on, got {small[0]}")
    target = resolve_device(device)
    pipe = pipeline or build_pipeline(seed=seed)
    pipe.to(target)
    if bfloat16 is None:
        bfloat16 = target.type == "cuda" or (target.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    rng = np.random.default_rng(seed)
    crops: list[Crop] = []
    with progress("train-inpainter: crops", len(images)) as advance:
        for pixels in images:
            labels = superpixels(pixels)
            crops += [make_crop(pixels, labels, pipe.size, rng) for _ in range(crops_per_image)]
            advance()
    stack = [
        torch.from_numpy(np.stack(arrays))
        for arrays in (
            [crop.image for crop in crops],
            [crop.hole[None] for crop in crops],
            [crop.exemplar for crop in crops],
        )
    ]
    modules = torch.nn.ModuleList([pipe.unet, pipe.encoder]).train()
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    warmup = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    average = EMAModel(parameters, decay=0.995, use_ema_warmup=True, power=0.75)
    drawing = generator("train-inpainter", seed)
    losses: list[float] = []
    started = time.monotonic()
    with progress("train-inpainter", steps) as advance:
        for step in range(steps):
            index = torch.randint(0, len(crops), (batch_size,), generator=drawing)
            image, hole, exemplar = (part[index].to(target).float() for part in stack)
            image, hole, exemplar = _mirror(image / 255, hole, exemplar / 255, drawing)
            with torch.autocast(target.type, torch.bfloat16, enabled=bfloat16):
                loss = diffusion_loss(pipe, image, hole, exemplar, drawing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            average.step(parameters)
            losses.append(float(loss.detach()))
            advance(note=f"loss {np.mean(losses[-100:]):.4f}")
            if log and (step + 1) % 100 == 0:
                spent = time.monotonic() - started
                log(f"step {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} {spent:.0f} s")
            if minutes is not None and time.monotonic() - started > minutes * 60:
                break
    average.copy_to(parameters)
    modules.eval()
    if out is not None:
        save_half(pipe, out)
    return pipe, losses


def _mirror(
    image: Tensor, hole: Tensor, exemplar: Tensor, drawing: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    flip = (torch.rand(len(image), generator=drawing) < 0.5).to(image.device)[:, None, None, None]
    mirrored = [torch.where(flip, part.flip(-1), part) for part in (image, hole, exemplar)]
    return mirrored[0], mirrored[1], mirrored[2]


def save_half(pipe: ExemplarInpaintPipeline, out: Path) -> None:
    """Write a pipeline as float16 safetensors; the weights in memory are rounded alike, so that both paint
    alike."""
    for module in (pipe.unet, pipe.encoder):
        torch.nn.Module.to(module, torch.float16)
    pipe.save_pretrained(out, safe_serialization=True)
    for module in (pipe.unet, pipe.encoder):
        torch.nn.Module.to(module, torch.float32)
