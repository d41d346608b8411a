"""Networks of the package `ultralytics`, built from a table of their layers; nothing is unpickled (extra
`ultralytics`, AGPL-3.0).

In: the table, as their YAML files hold it, and class names. Out: their `DetectionModel`.

Their parser evaluates the table's `activation` as Python and calls whatever its layers are named, so that a
table of unknown origin is held to layers and activations first (`check_table`).
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import torchvision
from torch import nn

from curator.errors import InputError

# Before the package is imported: it would look for the internet, install what it misses, report its use, and
# write to stdout, where `--json` writes.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")

_OPEN, _SAVE = PIL.Image.open, torch.save
try:
    from ultralytics.nn import modules as layers
    from ultralytics.nn import tasks as tasks
    from ultralytics.utils import DEFAULT_CFG_DICT, IterableSimpleNamespace
except ModuleNotFoundError:
    raise  # the registry names the extra
except ImportError as error:
    raise InputError(f"ultralytics: the package cannot be imported ({error}); install it anew") from error
finally:
    # Importing it replaces functions of other packages for the whole process; its `Image.open` would answer a
    # broken picture by looking for a package, instead of with the error that curator tells.
    PIL.Image.open, torch.save = _OPEN, _SAVE

HEADS = ("Detect", "v10Detect")
GAINS = ("box", "cls", "dfl")
"""Weights of the losses, among their hyper-parameters."""
_KEPT = {"activation", "backbone", "head", "scale", "scales", "depth_multiple", "width_multiple", "end2end"}
_KEPT |= {"reg_max"}
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Za-z0-9]+\((\w+=)?[\w.]*\)")
_FETCHING = ("TorchVision",)  # layers that download weights
_STEP = 32  # inputs are padded to a multiple of this, or of the coarsest stride


def named_table(name: str) -> dict[str, Any]:
    """The table of a YAML file: one that ships with the package, or the user's own.

    Raises:
        InputError: no such file, or no table of layers.
    """
    if "://" in name:
        raise InputError(f"ultralytics: expected a file, got the address {name!r}; nothing is downloaded")
    try:
        return check_table(tasks.yaml_model_load(name), name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"ultralytics: {name} is no model table ({_first_line(error)}); expected a file, or a name such "
            f"as yolo11n.yaml"
        ) from error


def check_table(table: Any, where: str) -> dict[str, Any]:
    """A copy of a table, held to what a detection network is made of.

    Raises:
        InputError: no table, a layer that is none, an activation that is more than a call, another task.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"ultralytics: {where}: expected a table of layers, got {type(table).__name__}")
    kept: dict[str, Any] = deepcopy({key: table[key] for key in sorted(_KEPT) if table.get(key) is not None})
    rows = [*_rows(kept, "backbone", where), *_rows(kept, "head", where)]
    activation = kept.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise InputError(
            f"ultralytics: {where}: expected an activation such as torch.nn.SiLU(), got {activation!r}"
        )
    head = rows[-1][2]
    if head not in HEADS:
        raise InputError(
            f"ultralytics: expected a detection model, whose head is {' or '.join(HEADS)}; that of {where} "
            f"is {head}"
        )
    for row in rows:
        if not _is_layer(row[2]):
            raise InputError(f"ultralytics: {where}: expected layers of the package, got {row[2]!r}")
    if kept.get("scales") and kept.get("scale") not in kept["scales"]:
        kept["scale"] = next(iter(kept["scales"]))
    return kept


def _rows(table: Mapping[str, Any], part: str, where: str) -> list[Any]:
    rows = table.get(part)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"ultralytics: {where}: expected a list of layers under {part!r}, found none")
    for row in rows:
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[2], str):
            raise InputError(
                f"ultralytics: {where}: expected layers [from, number, name, arguments], got {row}"
            )
    return rows


def _is_layer(name: str) -> bool:
    """True for a network layer of torch, torchvision's operators or the package, by the name in a table."""
    found: Any
    if name.startswith("nn."):
        found = getattr(nn, name.removeprefix("nn."), None)
    elif name.startswith("torchvision.ops."):
        found = getattr(torchvision.ops, name.removeprefix("torchvision.ops."), None)
    else:
        found = getattr(layers, name, None)
        if found is None or found is not getattr(tasks, name, None):
            return False
    return inspect.isclass(found) and issubclass(found, nn.Module) and name not in _FETCHING


def build_network(
    table: Mapping[str, Any],
    classes: Sequence[str],
    *,
    end_to_end: bool | None = None,
    gains: Mapping[str, float] | None = None,
    seed: int = 0,
    where: str = "the table",
) -> Any:
    """Their network with fresh weights drawn from `seed`; the global random state stays as it was.

    Args:
        end_to_end: read the head without NMS; None does so where there is one.
        gains: weights of the losses (`GAINS`), their defaults where missing.
    Returns:
        a `DetectionModel` on the CPU. Its `end2end` says which head is read.
    Raises:
        InputError: the table is none (`check_table`), or does not make a network.
    """
    checked = check_table(table, where)
    activation = layers.Conv.default_act
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = tasks.DetectionModel({**checked, "nc": len(classes)}, ch=3, verbose=False)
    except Exception as error:
        raise InputError(f"ultralytics: {where} makes no network ({_first_line(error)})") from error
    finally:
        layers.Conv.default_act = activation  # a table's own activation is for its network alone
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # explanations look at values that would be overwritten
    head = network.model[-1]
    head.dynamic = True  # grids kept from inference mode could not be differentiated
    has = getattr(head, "one2one_cv2", None) is not None
    if end_to_end and not has:
        raise InputError(f"ultralytics: {where} has no head without NMS; leave end2end out")
    network.end2end = has if end_to_end is None else end_to_end
    network.names = dict(enumerate(classes))
    network.args = IterableSimpleNamespace(**{**DEFAULT_CFG_DICT, **(gains or {})})
    return network


def strides_of(network: Any) -> tuple[int, ...]:
    """Strides of the levels, fine to coarse."""
    return tuple(int(stride) for stride in network.model[-1].stride)


def step_of(network: Any) -> int:
    """What the sides of an input are multiples of."""
    return max(_STEP, *strides_of(network))


def is_file_name(name: str) -> bool:
    """True where a spec names a model table, not weights."""
    return Path(name).suffix.lower() in (".yaml", ".yml")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text or type(error).__name__
