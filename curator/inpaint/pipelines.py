"""Loading diffusers pipelines, and the fingerprint of what was loaded."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from curator.errors import InputError, RegistryError, StageError
from curator.registry import Spec


def load_pipeline(kind: Any, model: str, arguments: dict[str, Any]) -> Any:
    """`kind.from_pretrained` with safetensors only, its many errors turned into one clear line."""
    import diffusers.utils.logging as diffusers_logging

    diffusers_logging.disable_progress_bar()
    try:
        with silent(), warnings.catch_warnings():
            # diffusers renames this argument; the versions that we allow do not all know the new name.
            warnings.filterwarnings("ignore", message="`torch_dtype` is deprecated")
            return kind.from_pretrained(model, use_safetensors=True, **arguments)
    except (OSError, ValueError, ImportError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"expected a diffusers pipeline with safetensors weights at {model!r} (a folder, or a hub id "
            f"that this machine can download or has cached), got {type(error).__name__}: {reason}"
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """No warnings of diffusers, which tell their own developers more than our users."""
    import diffusers.utils.logging as diffusers_logging

    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)


def quiet(pipe: Any) -> Any:
    """The pipeline, without its progress bars."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def number(spec: Spec, name: str, kind: type[Any], default: Any) -> Any:
    """A spec's option as `kind` (int, float), or the default where the spec does not name it.

    Raises:
        RegistryError: not a number.
    """
    text = spec.options.get(name)
    try:
        return default if text is None else kind(text)
    except ValueError:
        raise RegistryError(f"{name}: expected {kind.__name__}, got {text!r} in {spec.text!r}") from None


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
