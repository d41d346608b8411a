"""Load diffusers pipelines: safetensors only, quietly, one clear line for their many errors."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch

from curator.errors import InputError, StageError


def load_pipeline(kind: Any, model: str, arguments: dict[str, Any]) -> Any:
    """`kind.from_pretrained` with safetensors only, its many errors turned into one clear line."""
    import diffusers.utils.logging as diffusers_logging

    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # diffusers renames this argument; the versions that we allow do not all know the new name.
            warnings.filterwarnings("ignore", message="`torch_dtype` is deprecated")
            return kind.from_pretrained(model, use_safetensors=True, **arguments)
    except (OSError, ValueError, ImportError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"expected a diffusers pipeline with safetensors weights at {model!r} (a folder, or a hub id "
            f"that this machine can download or has cached), got {type(error).__name__}: {reason}"
        ) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)


def restore_paint_by_example(kind: Any) -> None:
    """Give `diffusers.pipelines.paint_by_example` its address back: recent versions of diffusers moved it to
    `pipelines.deprecated`, while the published model_index.json names the old one for its image encoder."""
    pipelines = import_module("diffusers.pipelines")
    if not hasattr(pipelines, "paint_by_example"):
        setattr(pipelines, "paint_by_example", import_module(kind.__module__.rpartition(".")[0]))  # noqa: B010


def hide_transformers_bars() -> None:
    """No bars of transformers while weights are read."""
    try:
        from transformers.utils import logging as transformers_logging
    except ImportError:  # a pipeline without text encoder does without; others say so on loading
        return
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def quiet(pipe: Any) -> Any:
    """The pipeline, without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fingerprint(pipe: Any, **settings: Any) -> str:
    """Hash of every component's configuration and weights, and of the settings; 64 hex digits."""
    digest = hashlib.sha256(json.dumps([type(pipe).__name__, settings], sort_keys=True).encode())
    for name, component in sorted(pipe.components.items()):
        if component is None:
            continue
        digest.update(f"\n{name}:{type(component).__name__}".encode())
        config = getattr(component, "config", None)
        if config is not None:
            values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
            plain = {
                key: value
                for key, value in values.items()
                if not key.startswith("_") and not key.endswith(("version", "dtype"))
            }
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        for key, data in _weights(component):
            digest.update(key.encode())
            digest.update(data)
    return digest.hexdigest()


def _weights(component: Any) -> Iterator[tuple[str, bytes]]:
    if not isinstance(component, torch.nn.Module):
        return
    for key, tensor in sorted(component.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        if not bool(torch.isfinite(flat.float()).all()):
            raise StageError(
                f"inpainter weights {key} are not finite; the file is damaged, download or train it again"
            )
        yield key, flat.view(torch.uint8).numpy().tobytes()
