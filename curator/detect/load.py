"""Load the detector that a spec names, once per process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

import torch

from curator.config import require
from curator.detect.base import Detector
from curator.detect.ultralytics_file import converted
from curator.errors import InputError
from curator.registry import DETECTORS, Spec
from curator.tensors import resolve_device
from store.records import ModelRecord


def load_detector(spec: str, device: str = "auto") -> Detector:
    """Build the detector that `spec` names, once per process: (spec, device, state of the files it names);
    again where it says that its model changed (`Detector.changed`).

    Callers must not train it: `TrainableDetector.clone()` gives a copy to train.

    Raises:
        RegistryError, InputError: unknown scheme, options or weights.
    """
    wanted = (spec, str(resolve_device(device)), Spec.parse(spec).files())
    built = _load.cache_info().misses
    detector = _load(*wanted)
    changed = getattr(detector, "changed", None)
    if _load.cache_info().misses == built and changed is not None and changed():
        _load.cache_clear()
        detector = _load(*wanted)
    return detector


def load_known(model: ModelRecord, device: str = "auto") -> Detector:
    """The detector of a stored model.

    Raises:
        InputError: its weights are others now.
    """
    return load_same(model.spec, model.fingerprint, device)


def load_same(
    spec: str, fingerprint: str, device: str = "auto", *, since: str = "its detections were stored"
) -> Detector:
    """The detector that `spec` names, which must be the one that a stage began with or that is stored: a file
    may be overwritten, a service changed.

    Raises:
        InputError: its weights are others now.
    """
    detector = load_detector(spec, device)
    if detector.fingerprint != fingerprint:
        raise InputError(
            f"{spec}: its weights changed since {since} (fingerprint {detector.fingerprint[:12]}, expected "
            f"{fingerprint[:12]}); run curator detect and curator diagnose again"
        )
    return detector


def trust_pickle(spec: str) -> None:
    """Read the pickle that `spec` names (`ultralytics:FILE.pt`, also behind `blackbox:`), once, in a process
    of its own; from then on every stage loads the spec without trust (`curator.detect.ultralytics_file`).

    Raises:
        ConfigError: the spec names no such file. InputError: the file cannot be used.
    """
    parsed = Spec.parse(spec)
    while parsed.scheme == "blackbox":
        parsed = Spec.parse(parsed.text.partition(":")[2])
    path = Path(parsed.name)
    require(
        parsed.scheme == "ultralytics" and path.suffix == ".pt",
        f"--trust-pickle: expected a detector ultralytics:FILE.pt, got {spec!r}; other files are read "
        f"without running code",
    )
    converted(path, trust=True)


@lru_cache(maxsize=2)
def _load(spec: str, device: str, files: tuple[tuple[str, int, int], ...]) -> Detector:
    parsed = Spec.parse(spec)
    return cast(Detector, DETECTORS.load(parsed.scheme)(parsed).to(torch.device(device)))
