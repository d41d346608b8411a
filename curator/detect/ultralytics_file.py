"""Ultralytics' `.pt` files: read once where the user trusts them, kept without code ever after.

A `.pt` file is a pickle: reading it runs what it holds. So it is read only where the user says so
(`curator detect --trust-pickle`, or `?trust_pickle=yes` in the spec), in a process of its own, which writes
the weights and the table of layers as safetensors:

    <cache>/ultralytics/<sha256 of the .pt file>.safetensors

The main process reads that copy alone. Whoever names the same file again needs no flag, since it is known
by its contents: later stages load `ultralytics:best.pt` as it was stored. A file that changed is another file
and asks again. The cache is the user's own (`CURATOR_CACHE`, else the platform's folder for caches), not the
folder of the `.pt` file: that folder may be read-only, or come from where the `.pt` came from. A worker on a
machine without this cache needs the spec with `?trust_pickle=yes`.

    python -m curator.detect.ultralytics_file FILE.pt OUT.safetensors      # the process of its own
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from curator.errors import InputError
from store.image_cache import cache_folder

TIMEOUT = 300.0
"""Seconds for importing the package and reading one file."""
ARCHITECTURE = "ultralytics"
"""In the metadata of what is written."""
_REFUSED = "curator: refused: "


def converted(path: Path, *, trust: bool) -> Path:
    """The converted copy of a `.pt` file, made now where it is missing and trusted.

    Raises:
        InputError: no such file; not trusted and not converted earlier; or its own process refused it.
    """
    if not path.is_file():
        raise InputError(f"ultralytics: expected a file, found none at {path}")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    out = cache_folder("ultralytics") / f"{digest}.safetensors"
    if out.is_file():
        return out
    if not trust:
        raise InputError(
            f"ultralytics: {path} is a pickle, which can run any code when it is read; if you trust it, run "
            f"`curator detect` with --trust-pickle (or add ?trust_pickle=yes to the spec), else export it: "
            f"`yolo export model={path} format=onnx`, and use onnx:{path.with_suffix('.onnx')}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
        own = Path(folder) / path.name
        shutil.copyfile(path, own)
        with own.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise InputError(f"ultralytics: {path} changed while it was read; is a training writing it?")
        made = Path(folder) / out.name
        _run(own, made, said=path)
        made.replace(out)
    return out


def _run(path: Path, out: Path, *, said: Path) -> None:
    """Convert in a process of its own; `said` is what people call the file."""
    root = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, found] if found else [root]),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    command = [sys.executable, "-m", "curator.detect.ultralytics_file", str(path.resolve()), str(out)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"ultralytics: reading {said} took more than {TIMEOUT:.0f} s and was stopped"
        ) from error
    if done.returncode == 0 and out.is_file():
        return
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    refused = [line.removeprefix(_REFUSED) for line in lines if line.startswith(_REFUSED)]
    reason = refused[-1] if refused else (lines[-1] if lines else f"its process ended with {done.returncode}")
    raise InputError(f"ultralytics: {said} cannot be used ({reason})")


# ---------------------------------------------------------------- in the process of its own


def convert(path: Path, out: Path) -> None:
    """Unpickle `path` and write its weights and its table of layers. Runs what the pickle holds.

    Raises:
        InputError: no detection network of the package.
    """
    from curator.detect import ultralytics_model
    from curator.detect.heads import distinct
    from curator.detect.weights import load_into, write_state

    checkpoint, _ = ultralytics_model.tasks.torch_safe_load(str(path))
    if not isinstance(checkpoint, dict):
        raise InputError(f"expected a checkpoint, got {type(checkpoint).__name__}")
    network: Any = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(network, ultralytics_model.tasks.BaseModel):
        raise InputError(f"expected a model of the package, got {type(network).__name__}")
    kind, head = type(network).__name__, network.model[-1]
    if kind != "DetectionModel" or type(head).__name__ not in ultralytics_model.HEADS:
        raise InputError(
            f"expected a detection model of YOLO, got a {kind} (task {getattr(network, 'task', 'unknown')})"
        )
    channels = int(network.yaml.get("channels", network.yaml.get("ch", 3)))
    if channels != 3:
        raise InputError(f"expected a model of RGB images, got one of {channels} channels")
    names = network.names
    names = [names[i] for i in sorted(names)] if isinstance(names, dict) else list(names)
    classes = distinct(str(name) for name in names)
    given = {**_table(getattr(network, "args", None)), **_table(checkpoint.get("train_args"))}
    gains = {name: float(given[name]) for name in ultralytics_model.GAINS if given.get(name) is not None}
    table = ultralytics_model.check_table(network.yaml, path.name)
    fresh = ultralytics_model.build_network(table, classes, gains=gains, where=path.name)
    if network.is_fused():
        raise InputError("it is fused for inference; give the file that the training wrote")
    load_into(fresh, network.float().state_dict(), path.name)
    description = describe(
        table, classes, size=_size(given.get("imgsz"), ultralytics_model.step_of(fresh)), gains=gains
    )
    write_state(out, fresh, description)


def describe(
    table: dict[str, Any], classes: tuple[str, ...], *, size: tuple[int, int], gains: dict[str, float]
) -> dict[str, Any]:
    """What the metadata of a file says, as plain JSON. size: (h, w) of the input."""
    return {
        "architecture": ARCHITECTURE,
        "task": "detect",
        "table": table,
        "classes": list(classes),
        "size": list(size),
        "gains": gains,
    }


def _table(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, dict) else dict(vars(given)) if hasattr(given, "__dict__") else {}


def _size(given: Any, step: int) -> tuple[int, int]:
    """imgsz, rounded up to whole steps as the package does it."""
    sides = list(given) if isinstance(given, list | tuple) else [given or 640] * 2
    return -(-int(sides[0]) // step) * step, -(-int(sides[-1]) // step) * step


def main() -> None:
    """FILE.pt OUT.safetensors; a refusal is one line on stderr and exit code 3."""
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:
        reason = " ".join(str(error).split())
        print(f"{_REFUSED}{reason or type(error).__name__}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
