"""What becomes of every object and every false positive in a trial, as bytes to keep.

In: the base's and a trial's matched detections (`readings.Base`, `readings.Matched`). Out: a compressed numpy
file without pickled parts, so that every figure of a verification can be read anew, at other thresholds, over
other images and as differences, without training again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curator.prove.readings import Base, Matched, Objects

_MATCHED = ("found_at", "image", "classes", "scores", "boxes")
_OBJECTS = ("image", "classes", "condition", "cause", "counted")


@dataclass(frozen=True, slots=True)
class Holdout:
    """The base on the holdout, as it was kept.

    Attributes:
        sha256: (I,) of each image. cluster: (I,) the video or place that it shares with others, or its hash.
    """

    base: Base
    sha256: tuple[str, ...]
    cluster: tuple[str, ...]


def pack_holdout(base: Base, sha256: Sequence[str], cluster: Sequence[str]) -> bytes:
    """The base as bytes; equal bases give equal bytes."""
    parts = {f"matched.{name}": getattr(base.matched, name) for name in _MATCHED}
    parts |= {f"objects.{name}": getattr(base.objects, name) for name in _OBJECTS}
    parts |= {
        "threshold": np.float64(base.threshold),
        "false_cause": base.false_cause,
        "false_condition": base.false_condition,
        "categories": np.array(base.categories, dtype=np.str_),
        "sha256": np.array(sha256, dtype=np.str_),
        "cluster": np.array(cluster, dtype=np.str_),
    }
    return _bytes(parts)


def unpack_holdout(data: bytes) -> Holdout:
    """What `pack_holdout` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as parts:
        sha256 = tuple(parts["sha256"].tolist())
        base = Base(
            objects=Objects(*(parts[f"objects.{name}"] for name in _OBJECTS)),
            matched=Matched(*(parts[f"matched.{name}"] for name in _MATCHED)),
            threshold=float(parts["threshold"]),
            images=len(sha256),
            false_cause=parts["false_cause"],
            false_condition=parts["false_condition"],
            categories=tuple(parts["categories"].tolist()),
        )
        return Holdout(base, sha256, tuple(parts["cluster"].tolist()))


def pack_matched(matched: Matched) -> bytes:
    """A trial's matched detections as bytes."""
    return _bytes({name: getattr(matched, name) for name in _MATCHED})


def unpack_matched(data: bytes) -> Matched:
    """What `pack_matched` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as parts:
        return Matched(*(parts[name] for name in _MATCHED))


def _bytes(parts: dict[str, NDArray[np.generic] | np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **parts)  # type: ignore[arg-type]
    return buffer.getvalue()
