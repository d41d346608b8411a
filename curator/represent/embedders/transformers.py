"""Vision transformers of `transformers`: `transformers:FOLDER_OR_ID` (extra `embed`).

In: DINOv2, DINOv3, ViT, CLIP or SigLIP with safetensors, a folder written by `save_pretrained` or a hub id
that is cached or can be downloaded. Out: an embedder whose maps are the patch tokens, whose image vector is
the class token (CLIP and SigLIP: the pooled one).

CLIP and SigLIP also project the picture and a crop around every box into the space of texts (Radford et al.,
ICML 2021; Zhai et al., ICCV 2023): the views clip and clip_image, which compare with `embed_text` by cosine.
A crop is a look of its own: `text=0` leaves these views out.

Options:
    side     longer side in px of what it looks at (448; CLIP and SigLIP: what they were trained at)
    crops    side in px of crops for "object" (0: from the patches of the one look; see `backbone`)
    text     1 for the views that compare with text, where the model has them (1)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from curator.config import require
from curator.detect.base import Detector, FeatureMap
from curator.detect.weights import fingerprint
from curator.errors import InputError
from curator.registry import Spec
from curator.represent.embedders.backbone import BackboneEmbedder, Look, by_crops, cut, unit, whole
from curator.represent.embedders.pooling import array
from store.records import Floats, Pin

_PAIRS = ("clip", "siglip")
_TOWERS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "clip_vision_model", "siglip_vision_model")
_SIDE = 448
_MARGIN = 1.25  # side over the box's of the crop that is compared with text
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class PatchBackbone:
    """A vision transformer whose one level holds its patch tokens.

    Args:
        network: the whole model. pixels: mean and deviation, RGB.
    """

    square = False

    def __init__(self, network: Any, kind: str, pixels: tuple[Sequence[float], Sequence[float]]) -> None:
        self.network = network.float().eval().requires_grad_(False)
        self.kind = kind
        config = getattr(network.config, "vision_config", network.config)
        self.name = kind.partition("_")[0]
        self.step, self.native = _side(config.patch_size), _side(config.image_size)
        self.fingerprint = fingerprint(network, {"architecture": kind, "pixels": [list(p) for p in pixels]})
        self._mean, self._std = (torch.tensor(list(values)).view(3, 1, 1) for values in pixels)
        self._tower = getattr(network, "vision_model", network)
        known = inspect.signature(self._tower.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.network.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def normalised(self, x: Tensor) -> Tensor:
        """RGB [0, 1] -> what the network takes."""
        return (x - self._mean) / self._std

    def look(self, x: Tensor) -> Look:
        """See `Backbone.look`."""
        rows, columns = x.shape[-2] // self.step, x.shape[-1] // self.step
        out = self._tower(pixel_values=self.normalised(x), **self._options)
        tokens = out.last_hidden_state
        pooled = self.kind.startswith(_PAIRS)
        image = out.pooler_output if pooled else tokens[:, 0]
        patches = tokens[:, -rows * columns :]  # class and register tokens come first
        norm = getattr(self._tower, "post_layernorm", None)
        if self.kind.startswith("clip") and isinstance(norm, nn.Module):
            patches = norm(patches)  # as CLIP does it to the class token alone
        values = patches.transpose(1, 2).reshape(len(x), -1, rows, columns)
        step = float(self.step)
        return Look({"patches": FeatureMap(values, (step, step), (step / 2, step / 2))}, image)


class TextImageEmbedder(BackboneEmbedder):
    """CLIP or SigLIP: a `TextEmbedder`."""

    text_view, text_image_view = "clip", "clip_image"
    backbone: PatchBackbone

    def __init__(self, backbone: PatchBackbone, source: str, *, side: int, crops: int = 0) -> None:
        super().__init__(backbone, side=side, crops=crops)
        self._source = source
        self._tokenizer: Any = None

    @torch.inference_mode()
    def embed(
        self,
        u: Tensor,
        pins: Sequence[Pin],
        boxes: Sequence[NDArray[np.float32]],
        *,
        masks: Sequence[NDArray[np.float32]] | None = None,
        features: Mapping[str, FeatureMap] | None = None,
    ) -> list[dict[str, Floats]]:
        """See `Embedder.embed`; the views clip and clip_image have length 1."""
        result = super().embed(u, pins, boxes, masks=masks, features=features)
        side = self.backbone.native
        for i, (pin, views) in enumerate(zip(pins, result, strict=True)):
            whole_image = self._projected(cut(u[i], pin, (side, side)))
            views[self.text_image_view] = array(whole_image)
            own = pin.to_input(np.asarray(boxes[i], np.float32).reshape(-1, 4))
            centre, half = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]) / 2 * _MARGIN
            around = np.concatenate([centre - half, centre + half], 1)
            views[self.text_view] = by_crops(u[i], pin, around, side, self._projected, whole_image.shape[1])
        return result

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Texts -> (T, D) float32 of length 1, in the space of the views clip and clip_image.

        Raises:
            InputError: no texts, or no tokenizer beside the weights.
        """
        if not texts:
            raise InputError("text: expected at least one text, got none")
        network = self.backbone.network
        most = int(network.config.text_config.max_position_embeddings)
        # SigLIP saw texts padded to its full length in training
        padding = "max_length" if self.backbone.kind == "siglip" else True
        tokens = self._tokens()(
            list(texts), padding=padding, truncation=True, max_length=most, return_tensors="pt"
        ).to(next(network.parameters()).device)
        known = ("input_ids",) if self.backbone.kind == "siglip" else ("input_ids", "attention_mask")
        found = network.get_text_features(**{name: tokens[name] for name in known})
        return array(unit(_features(found)))

    def _of_images(self) -> tuple[str, ...]:
        return ("image", self.text_image_view)

    def _projected(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, s, s) of the side that the model was trained at -> (n, D) of length 1."""
        found = self.backbone.network.get_image_features(pixel_values=self.backbone.normalised(x))
        return unit(_features(found))

    def _tokens(self) -> Any:
        if self._tokenizer is None:
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self._source, trust_remote_code=False)
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"transformers: expected a tokenizer beside the weights of {self._source}, got none "
                    f"({_line(error)}); write it with tokenizer.save_pretrained"
                ) from error
        return self._tokenizer


def build(spec: Spec, detector: Detector) -> BackboneEmbedder:
    """`transformers:FOLDER_OR_ID`.

    Raises:
        InputError: no such model, no safetensors, or one of another kind. ConfigError: wrong options.
    """
    spec.only(("side", "crops", "text"))
    text = spec.options.get("text", "1")
    require(text in ("0", "1"), f"embedder {spec.text!r}: text: expected 0 or 1, got {text!r}")
    network, kind = _read(spec.name)
    backbone = PatchBackbone(network, kind, _pixels(spec.name, kind))
    usual = backbone.native if kind.startswith(_PAIRS) else _SIDE
    side = whole(spec, "side", usual, least=backbone.step)
    crops = whole(spec, "crops", 0, least=0)
    if kind in _PAIRS and text == "1":
        return TextImageEmbedder(backbone, spec.name, side=side, crops=crops)
    return BackboneEmbedder(backbone, side=side, crops=crops)


def _read(source: str) -> tuple[Any, str]:
    if not source:
        raise InputError("transformers: expected a folder or a hub id, as in transformers:FOLDER, got none")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"transformers: expected a folder written by save_pretrained, or a hub id that is cached or can "
            f"be downloaded, got {source!r} ({_line(error)})"
        ) from error
    kind = str(config.model_type)
    if kind not in (*_PAIRS, *_TOWERS):
        raise InputError(
            f"transformers: expected a model of {', '.join((*_PAIRS, *_TOWERS))}, got {kind!r} in {source}"
        )
    try:
        network = AutoModel.from_pretrained(
            source, config=config, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"transformers: expected safetensors that fit {kind!r} in {source!r} ({_line(error)})"
        ) from error
    return network, kind


def _pixels(source: str, kind: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation, as stored beside the weights or as the family has them."""
    usual = _CLIP if kind.startswith("clip") else _HALF if kind.startswith(("siglip", "vit")) else _IMAGENET
    try:
        stored: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError):
        return usual
    mean, deviation = getattr(stored, "image_mean", None), getattr(stored, "image_std", None)
    return (tuple(mean), tuple(deviation)) if mean and deviation else usual


def _features(found: Any) -> Tensor:
    """What get_image_features or get_text_features gave: a tensor before version 5, an output since."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return features


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
