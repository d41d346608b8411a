"""`train`, which refuses an `out` that would not be found again, or where other weights would be lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.detect.weights import read_description
from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.outputs import require_file
from curator.jobs.stage import StageResult
from curator.prove import run_train
from curator.prove.run_trainer import settings_of
from curator.prove.settings import TrainConfig
from curator.prove.trainers.base import load_trainer
from curator.prove.trainers.torchvision import TorchvisionTrainer
from store.keys import canonical_json

if TYPE_CHECKING:
    from store.store import Store


def train(store: Store, config: TrainConfig, *, executor: Executor | None = None) -> StageResult:
    """Train and write `config.out`; see `curator.prove.run_train.train`.

    Raises:
        InputError: as there, and `require_replaceable`, where curator itself trains: a program's `out` is a
            folder.
    """
    detector = load_detector(config.detector, config.device)
    if isinstance(load_trainer(settings_of(config), detector), TorchvisionTrainer):
        require_file(config.out)
        require_replaceable(config.out, detector)
    return run_train.train(store, config, executor=executor)


def require_replaceable(out: Path, detector: Detector) -> None:
    """Refuse to write the trained weights of `detector` to `out` where `out` has not the name of such a file,
    or where something else lies. Weights of the same architecture and classes are replaced: the same training
    given again does that, another one with other settings, and the rounds of a loop.

    Raises:
        InputError: the name is no .safetensors, or other weights, or another file, lie there.
    """
    if out.suffix != ".safetensors":
        better = out.with_name(f"{out.stem}.safetensors")
        raise InputError(f"--out {out}: expected a name that ends with .safetensors, such as {better}")
    own = getattr(detector, "description", None)
    if own is None or not out.exists():
        return
    try:
        found = read_description(out)
    except InputError:
        raise InputError(
            f"--out {out}: a file lies there that curator did not write; name another --out"
        ) from None
    if canonical_json(found) != canonical_json(own):
        raise InputError(f"--out {out}: {_said(found)} lies there, not {_said(own)}; name another --out")


def _said(description: Mapping[str, Any]) -> str:
    """An architecture with its classes, for people."""
    options = description.get("options")
    classes = description.get("classes") or (options or {}).get("classes") or ()
    more = ", ..." if len(classes) > 3 else ""
    return f"{description.get('architecture')} of {len(classes)} classes ({', '.join(classes[:3])}{more})"
