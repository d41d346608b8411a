"""Detectors that follow maite's protocol: `maite:package.module:object` (maite.protocols.object_detection).

In: an importable object, or a class or function that makes one. It is called with a batch of (C, H, W)
arrays and answers per image with `boxes` (N, 4) xyxy, `labels` (N,) and `scores` (N,) or (N, K); its
`metadata` holds an "id" and, most often, "index2label". Out: a `BlackBox`. What counts is what the object
does: the package maite is not imported.

The protocol says nothing of a picture's numbers, and models differ, so `pixels` must be given. The
fingerprint is made of the id, the options and the weights of the torch modules that the object holds. One
that holds none is known by its answers on a few pictures, and `detect` asks it anew on each run
(curator.detect.remote says why); an id alone names a model and not its weights.

Options (others are given to what makes the object, as text):
    pixels      unit (float32 in [0, 1]), 255 (float32 in [0, 255]) or uint8
    channels    rgb (default) or bgr
    classes     names comma-separated, for labels 0, 1, ..., where the metadata has no "index2label"
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from curator.config import require
from curator.detect.black_box import BlackBox, Found
from curator.detect.heads import distinct
from curator.detect.probe import answers_key, probe_pictures
from curator.detect.python import named
from curator.detect.weights import fingerprint
from curator.errors import InputError
from curator.registry import Spec

PIXELS = ("unit", "255", "uint8")
_CHANNELS = ("rgb", "bgr")
_OWN = ("pixels", "channels", "classes")


class MaiteModel:
    """A model of maite as a `black_box.Finder`.

    Args:
        labels: the model's number of each class, in the order of `classes`.
        pixels, channels: as in the module's options. who: for messages.
    """

    def __init__(self, model: Any, labels: Sequence[int], *, pixels: str, channels: str, who: str) -> None:
        self._model, self._who = model, who
        self._labels = np.array(labels)
        self._pixels, self._channels = pixels, channels

    def array(self, image: Tensor) -> NDArray[Any]:
        """(3, H, W) RGB [0, 1] -> the array that the model takes."""
        values = image.flip(0) if self._channels == "bgr" else image
        if self._pixels != "unit":
            values = values.clamp(0, 1) * 255
        if self._pixels == "uint8":
            values = values.round().to(torch.uint8)
        return np.ascontiguousarray(values.detach().cpu().numpy())

    def find(self, images: list[Tensor]) -> list[Found]:
        """Objects of images.

        Raises:
            InputError: an answer that does not follow the protocol.
        """
        found = self._model([self.array(image) for image in images])
        if not isinstance(found, Sequence):
            raise InputError(
                f"{self._who}: expected a sequence with an answer per image, got {type(found).__name__}"
            )
        return [self._one(answer) for answer in found]

    def _one(self, answer: Any) -> Found:
        lacking = [name for name in ("boxes", "labels", "scores") if not hasattr(answer, name)]
        if lacking:
            raise InputError(
                f"{self._who}: expected answers with boxes, labels and scores, got a "
                f"{type(answer).__name__} without {', '.join(lacking)}"
            )
        boxes, labels, scores = (
            self._numbers(getattr(answer, name), name) for name in ("boxes", "labels", "scores")
        )
        labels = labels.reshape(-1) if labels.size == 0 else labels
        unknown = labels[~np.isin(labels, self._labels)]
        if unknown.size:
            raise InputError(
                f"{self._who}: expected labels among the {len(self._labels)} numbers of its classes, got "
                f"{unknown.flat[0]:g}"
            )
        places = np.searchsorted(self._labels, labels)
        if scores.ndim == 2 and labels.ndim == 1:
            if scores.shape[0] == 0:
                scores = scores.reshape(-1)[:0]
            elif scores.shape != (len(labels), len(self._labels)):
                raise InputError(
                    f"{self._who}: expected scores ({len(labels)},) or "
                    f"({len(labels)}, {len(self._labels)}), got {scores.shape}"
                )
            else:
                scores = scores[np.arange(len(labels)), places]
        return boxes, scores, places

    def _numbers(self, values: Any, name: str) -> NDArray[np.float64]:
        try:
            array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
        except ValueError:  # rows of different lengths
            array = np.array("rows")
        if array.dtype.kind not in "iuf":
            raise InputError(f"{self._who}: expected numbers as {name}, got {' '.join(repr(values).split())}")
        return array.astype(np.float64)


def build(spec: Spec) -> BlackBox:
    """Import the object, look at what it says of itself.

    Raises:
        RegistryError: no such module or object. ConfigError, InputError: wrong options, or an object that
            does not follow the protocol.
    """
    pixels = spec.options.get("pixels")
    require(
        pixels in PIXELS,
        f"maite: expected pixels=unit (0 to 1), pixels=255 (float32, 0 to 255) or pixels=uint8, as in "
        f"maite:package.module:object?pixels=unit, got {pixels!r}: the protocol does not say it",
    )
    channels = spec.options.get("channels", "rgb")
    require(channels in _CHANNELS, f"maite: expected channels=rgb or channels=bgr, got {channels!r}")
    model = _made(named(spec, "object"), spec)
    facts = getattr(model, "metadata", None)
    said = facts.get("id") if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not callable(model) or not isinstance(said, str) or not said:
        raise InputError(
            f"maite: {spec.name}: expected a callable with metadata {{'id': ...}}, got a "
            f"{type(model).__name__} with {'no metadata' if facts is None else repr(facts)}"
        )
    labels, classes = _classes(facts, spec)
    own = MaiteModel(model, labels, pixels=str(pixels), channels=channels, who=spec.name)
    modules = nn.ModuleDict({name.replace(".", "_"): module for name, module in _modules(model)})
    description = {"maite": said, "options": spec.options, "classes": classes, "object": spec.name}
    box = BlackBox(own.find, classes, fingerprint="", spec=spec.text, versioned=len(modules.state_dict()) > 0)
    if box.versioned:
        box.fingerprint = fingerprint(modules, description)
    else:
        answers = box.predict(probe_pictures(), score_threshold=0.0)
        box.fingerprint = answers_key([found for found, _ in answers], description)
    return box


def _made(found: Any, spec: Spec) -> Any:
    """The object itself, or what the class or function makes of the options that are not ours."""
    options = {name: value for name, value in spec.options.items() if name not in _OWN}
    if hasattr(found, "metadata") and not inspect.isclass(found):
        spec.only(_OWN)
        return found
    if not callable(found):
        raise InputError(
            f"maite: {spec.name}: expected a model or what makes one, got a {type(found).__name__}"
        )
    try:
        return found(**options)
    except TypeError as error:
        raise InputError(f"maite: {spec.name} does not take the options {options} ({error})") from error


def _modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The torch modules that an object is or holds."""
    if isinstance(model, nn.Module):
        yield "model", model
        return
    for name, value in sorted(getattr(model, "__dict__", {}).items()):
        if isinstance(value, nn.Module):
            yield name, value


def _classes(facts: Mapping[str, Any], spec: Spec) -> tuple[list[int], tuple[str, ...]]:
    """The model's numbers of its classes, ascending, and their names."""
    given = [name.strip() for name in spec.options.get("classes", "").split(",") if name.strip()]
    names = facts.get("index2label") or dict(enumerate(given))
    whole = isinstance(names, Mapping) and all(
        isinstance(label, int | np.integer) and not isinstance(label, bool) for label in names
    )
    if not whole or not names:
        raise InputError(
            f"maite: {spec.name}: expected metadata with 'index2label', {{0: 'cup', 1: 'plate'}}, got "
            f"{facts.get('index2label')!r}; or give the names, as in classes=cup,plate"
        )
    labels = sorted(int(label) for label in names)
    return labels, tuple(distinct(str(names[label]) for label in labels))
