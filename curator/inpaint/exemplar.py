"""Exemplar-conditioned inpainting as a diffusers pipeline: UNet, DDIM scheduler and exemplar encoder.

In: crops with a hole and, for each, a picture of what to paint. Out: the crops with the hole painted.

Follows Paint by Example (Yang et al., CVPR 2023, arXiv:2211.13227): cross-attention to exemplar tokens,
trained self-supervised (`curator.inpaint.training`). Two differences, since the exemplar must be kept and
not reinterpreted: sixteen spatial tokens instead of one, and the exemplar is laid into the hole as a
collage, as in AnyDoor (Chen et al., CVPR 2024, arXiv:2307.09481). The UNet works on pixels rearranged 4 x 4
into channels (space to depth), which loses nothing and makes training and painting possible on two CPU cores.

    x_t     noisy crop                     (B, 3, 64, 64) in [-1, 1]
    m       hole, 1 = repaint              (B, 1, 64, 64)
    k       (1 - m) x + m laid             (B, 3, 64, 64); laid: the exemplar as a collage, or the composition
    e       exemplar tokens                (B, 16, D); zeros for "no exemplar" (classifier-free guidance)
    x0      UNet(x_t | k | m, t, e), or k + UNet(x_t | k | m, t, e) where the weights were trained so
            (`predicts` "change": what is laid keeps its detail): the clean crop, since a narrow network over
            folded pixels cannot carry the 48 values of noise per place through to an output, but need not
            (Li & He 2025, arXiv:2511.13720)

A composition instead of noise to start from: SDEdit (Meng et al., ICLR 2022, arXiv:2108.01073), the last
`strength` of the steps. An exemplar keeps its aspect (`fit` "pad": centred on a square of `UNKNOWN`) where
the weights were trained so; those of older folders saw it squeezed into a square (`fit` "squash").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.nn import functional as F

UNKNOWN = 0.5
"""Value of exemplar pixels that do not belong to the thing shown."""


class ExemplarEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' bases disagree on a name
    """Exemplar (B, 3, size, size) in [0, 1] -> tokens (B, 16, width)."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, size: int = 32, width: int = 128) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        steps: list[nn.Module] = []
        previous = 3
        for channels in (width // 4, width // 2, width):
            steps += [
                nn.Conv2d(previous, channels, 3, stride=2, padding=1),
                nn.GroupNorm(8, channels),
                nn.SiLU(),
            ]
            previous = channels
        self.body = nn.Sequential(*steps, nn.Conv2d(width, width, 3, padding=1))
        self.position = nn.Parameter(torch.zeros(1, 16, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, exemplar: Tensor) -> Tensor:
        """Exemplar (B, 3, size, size) in [0, 1] -> tokens (B, 16, width)."""
        grid = F.adaptive_avg_pool2d(self.body(exemplar * 2 - 1), 4)  # (B, D, 4, 4)
        tokens: Tensor = self.norm(grid.flatten(2).transpose(1, 2) + self.position)
        return tokens


@dataclass
class ExemplarInpaintOutput(BaseOutput):
    """Painted crops (B, 3, 64, 64) in [0, 1]; pixels outside the holes are the input's own."""

    images: Tensor


def build_unet(
    size: int = 64, width: int = 128, channels: Sequence[int] = (64, 128), fold: int = 4
) -> UNet2DConditionModel:
    """The UNet for crops of `size` pixels: 7 channels (noisy RGB, known RGB, hole), folded."""
    deeper = len(channels) - 1
    return UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=size // fold,
        in_channels=7 * fold**2,
        out_channels=3 * fold**2,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * deeper,
        up_block_types=("CrossAttnUpBlock2D",) * deeper + ("UpBlock2D",),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """DDIM on x0 predictions, cosine schedule with zero terminal SNR and trailing steps
    (arXiv:2305.08891)."""
    return DDIMScheduler(  # type: ignore[no-untyped-call]
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=True,
        set_alpha_to_one=True,
    )


def squares(exemplars: Sequence[Tensor], side: int, fit: str) -> Tensor:
    """Bring exemplars (3, h, w) of any sizes to one square (B, 3, side, side).

    Args:
        fit: "squash" stretches each to the square, "pad" keeps its aspect, centred on `UNKNOWN`.
    """
    out = []
    for exemplar in exemplars:
        height, width = exemplar.shape[1:]
        scale = side / max(height, width)
        h, w = (side, side) if fit == "squash" else (_at_least_1(height * scale), _at_least_1(width * scale))
        square = exemplar.new_full((3, side, side), UNKNOWN)
        top, left = (side - h) // 2, (side - w) // 2
        square[:, top : top + h, left : left + w] = _scaled(exemplar, h, w)
        out.append(square)
    return torch.stack(out)


def collage(exemplars: Sequence[Tensor], mask: Tensor, fit: str = "squash") -> Tensor:
    """Lay exemplars into the bounding boxes of their holes.

    Args:
        exemplars: B tensors (3, h, w) in [0, 1].
        mask: (B, 1, H, W), 1 = hole; every mask has a hole.
        fit: "squash" stretches an exemplar over its bounding box, "pad" lays it there as large as its aspect
            allows, centred.
    Returns:
        (B, 3, H, W) in [0, 1], `UNKNOWN` where no exemplar lies.
    """
    out = mask.new_full((mask.shape[0], 3, *mask.shape[2:]), UNKNOWN)
    for i, hole in enumerate(mask[:, 0] > 0.5):
        y1, y2, x1, x2 = _bounds(hole)
        h, w = y2 - y1, x2 - x1
        if fit == "pad":
            rows, columns = exemplars[i].shape[1:]
            scale = min(h / rows, w / columns)
            h, w = min(_at_least_1(rows * scale), h), min(_at_least_1(columns * scale), w)
        top, left = y1 + (y2 - y1 - h) // 2, x1 + (x2 - x1 - w) // 2
        out[i, :, top : top + h, left : left + w] = _scaled(exemplars[i], h, w)
    return out


def square_collage(square: Tensor, mask: Tensor) -> Tensor:
    """`collage` with "pad" of exemplars that are padded to squares already and have their holes' aspect.

    Args:
        square: (B, 3, s, s) in [0, 1]. mask: (B, 1, H, W), 1 = hole; every mask has a hole.
    """
    out = mask.new_full((mask.shape[0], 3, *mask.shape[2:]), UNKNOWN)
    for i, hole in enumerate(mask[:, 0] > 0.5):
        y1, y2, x1, x2 = _bounds(hole)
        side = max(y2 - y1, x2 - x1)
        top, left = (side - (y2 - y1)) // 2, (side - (x2 - x1)) // 2
        laid = _scaled(square[i], side, side)
        out[i, :, y1:y2, x1:x2] = laid[:, top : top + y2 - y1, left : left + x2 - x1]
    return out


def _bounds(hole: Tensor) -> tuple[int, int, int, int]:
    rows, columns = hole.any(1).nonzero()[:, 0], hole.any(0).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _scaled(image: Tensor, height: int, width: int) -> Tensor:
    """(3, h, w) -> (3, height, width), antialiased."""
    scaled: Tensor = F.interpolate(
        image[None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )[0]
    return scaled


def _at_least_1(pixels: float) -> int:
    return max(1, round(pixels))


def predict(
    pipe: ExemplarInpaintPipeline, noisy: Tensor, known: Tensor, mask: Tensor, t: Tensor, tokens: Tensor
) -> Tensor:
    """One forward pass: the clean crop x0, folded.

    Args:
        noisy: (B, 3 fold^2, S / fold, S / fold), x_t. known: (B, 3, S, S) in [-1, 1], k. mask: (B, 1, S, S).
        t: () or (B,). tokens: (B, 16, D).
    """
    told = F.pixel_unshuffle(torch.cat([known, mask], dim=1), pipe.fold)
    out: Tensor = pipe.unet(torch.cat([noisy, told], dim=1), t, encoder_hidden_states=tokens).sample
    return out + F.pixel_unshuffle(known, pipe.fold) if pipe.predicts == "change" else out


def known_part(image: Tensor, mask: Tensor, laid: Tensor) -> Tensor:
    """k in [-1, 1]: `image` with `laid` in the hole, both (B, 3, S, S) in [0, 1]; mask (B, 1, S, S)."""
    return torch.where(mask > 0.5, laid, image) * 2 - 1


class ExemplarInpaintPipeline(DiffusionPipeline):
    """Paints what an exemplar shows into the hole of a crop.

    Example:
        pipe = ExemplarInpaintPipeline.from_pretrained(folder, use_safetensors=True)
        painted = pipe(crops, masks, exemplars, generator=[torch.Generator().manual_seed(0)]).images
    """

    model_cpu_offload_seq = "encoder->unet"  # type: ignore[assignment]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        encoder: ExemplarEncoder,
        fit: str = "squash",
        predicts: str = "image",
    ) -> None:
        super().__init__()
        if fit not in ("squash", "pad"):
            raise ValueError(f"fit: expected squash or pad, got {fit!r}")
        if predicts not in ("image", "change"):
            raise ValueError(f"predicts: expected image or change, got {predicts!r}")
        self.register_modules(unet=unet, scheduler=scheduler, encoder=encoder)  # type: ignore[no-untyped-call]
        self.register_to_config(fit=fit, predicts=predicts)  # type: ignore[no-untyped-call]

    @property
    def fit(self) -> str:
        """How exemplars are brought to a square: "squash" or "pad"."""
        return str(self.config["fit"])

    @property
    def predicts(self) -> str:
        """What the UNet puts out: the "image", or the "change" of what it is told."""
        return str(self.config["predicts"])

    @property
    def size(self) -> int:
        """Side of the crops in pixels."""
        return int(self.unet.config.sample_size) * self.fold

    @property
    def fold(self) -> int:
        """Pixels per side that are folded into channels."""
        return round(math.sqrt(int(self.unet.config.out_channels) / 3))

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        mask: Tensor,
        exemplars: Sequence[Tensor] | None = None,
        *,
        initial: Tensor | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 12,
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> ExemplarInpaintOutput:
        """Paint.

        Args:
            image: (B, 3, size, size) RGB in [0, 1].
            mask: (B, 1, size, size), 1 = repaint.
            exemplars: B tensors (3, h, w) RGB in [0, 1], what to paint, `UNKNOWN` where nothing is shown;
                None fills the hole from its surroundings.
            initial: (B, 3, size, size) RGB in [0, 1], what to start from at a `strength` below 1; the UNet is
                also told it, in place of the collage.
            strength: in (0, 1], the share of the steps that is run (at least one); 1 starts from noise.
            guidance_scale: classifier-free guidance (arXiv:2207.12598); 1 is off and costs half.
            generator: one per image, so that an image's result does not depend on its batch mates.
        Raises:
            ValueError: shapes that do not fit, or a strength out of range or without `initial`.
        """
        self._check(image, mask, initial, strength)
        device, dtype = self.unet.device, self.unet.dtype
        image, mask = image.to(device, dtype), (mask > 0.5).to(device, dtype)
        start = None if initial is None or strength == 1 else initial.to(device, dtype)
        # 1. What the UNet is told: tokens, and the known pixels with the collage in the hole.
        laid = torch.full_like(image, UNKNOWN) if start is None else start
        if exemplars is None:
            tokens = torch.zeros(len(image), 16, self.encoder.config.width, device=device, dtype=dtype)
        else:
            shown = [exemplar.to(device, dtype) for exemplar in exemplars]
            tokens = self.encoder(squares(shown, self.encoder.config.size, self.fit))
            laid = collage(shown, mask, self.fit) if start is None else laid
        known, holes = known_part(image, mask, laid), mask
        guided = guidance_scale != 1 and exemplars is not None
        if guided:
            blank = known_part(image, mask, torch.full_like(image, UNKNOWN))
            known, holes = torch.cat([known, blank]), torch.cat([mask, mask])
            tokens = torch.cat([tokens, torch.zeros_like(tokens)])
        # 2. Denoise from pure noise, or from the noised composition through the last of the steps.
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = self.scheduler.timesteps
        side = self.size // self.fold
        shape = (len(image), 3 * self.fold**2, side, side)
        x = (
            randn_tensor(shape, generator=generator, device=device, dtype=dtype)
            * self.scheduler.init_noise_sigma
        )
        if start is not None:
            timesteps = timesteps[-max(1, round(len(timesteps) * strength)) :]
            x0 = F.pixel_unshuffle(start * 2 - 1, self.fold)
            x = self.scheduler.add_noise(x0, x, timesteps[:1].expand(len(x)))
        for t in self.progress_bar(timesteps):
            double = torch.cat([x, x]) if guided else x
            x0 = predict(self, double, known, holes, t, tokens)
            if guided:
                with_exemplar, without = x0.chunk(2)
                x0 = without + guidance_scale * (with_exemplar - without)
            x = self.scheduler.step(x0, t, x).prev_sample
        # 3. Unfold and put the known pixels back.
        painted = (F.pixel_shuffle(x, self.fold) / 2 + 0.5).clamp(0, 1)
        return ExemplarInpaintOutput(images=torch.where(mask > 0.5, painted, image))

    def _check(self, image: Tensor, mask: Tensor, initial: Tensor | None, strength: float) -> None:
        if image.ndim != 4 or image.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images (B, 3, {self.size}, {self.size}), got {tuple(image.shape)}")
        if mask.shape != (len(image), 1, self.size, self.size):
            raise ValueError(
                f"expected masks {(len(image), 1, self.size, self.size)}, got {tuple(mask.shape)}"
            )
        if initial is not None and initial.shape != image.shape:
            raise ValueError(f"expected initial {tuple(image.shape)}, got {tuple(initial.shape)}")
        if not 0 < strength <= 1 or (strength < 1 and initial is None):
            raise ValueError(
                f"expected 0 < strength <= 1, and an initial below 1, got strength {strength}, initial "
                f"{'None' if initial is None else 'given'}"
            )


def build_pipeline(
    *,
    size: int = 64,
    width: int = 128,
    channels: Sequence[int] = (64, 128),
    fold: int = 4,
    fit: str = "pad",
    predicts: str = "change",
    seed: int = 0,
) -> ExemplarInpaintPipeline:
    """A pipeline with fresh weights, drawn from `seed` without touching the global random state; one that
    predicts changes begins with almost none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = build_unet(size, width, channels, fold)
        encoder = ExemplarEncoder(size // 2, width)
        if predicts == "change":
            for parameter in unet.conv_out.parameters():
                nn.init.normal_(parameter, std=0.002) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return ExemplarInpaintPipeline(unet, build_scheduler(), encoder, fit, predicts)
