"""Content keys: equal inputs give equal keys on every machine.

A result's key is the hash of its inputs, annotation version, the configuration that changes results,
seed, model fingerprints and the stage's integer version (DESIGN.md, rule 4).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no spaces; equal values give equal text.

    Args:
        value: plain JSON values, paths, dataclasses, tuples, numpy scalars and arrays (as nested lists).

    Raises:
        TypeError: for a value that has no canonical form.
    """
    return _ENCODER.encode(_plain(value))


def content_key(*parts: Any) -> str:
    """Return the hex SHA-256 (64 characters) of the canonical JSON of `parts`."""
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_AS_THEY_ARE = frozenset({type(None), bool, int, float, str})


def _plain(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:  # nearly all: a key is made for every item of a stage
        return value
    if type(value) is list or type(value) is tuple:
        return [item if type(item) in _AS_THEY_ARE else _plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"no canonical form for {type(value).__name__}")
