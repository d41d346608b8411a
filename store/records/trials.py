"""Dataset versions and the trials of a verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A frozen list of what was exported or trained on.

    Attributes:
        image_ids: original and selected images. sample_ids: accepted samples.
        manifest: JSON of the export's manifest.
        run_id: the run that made it first; two versions of equal contents are equal whoever made them.
    """

    name: str
    image_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    manifest: Mapping[str, Any]
    key: str
    id: int | None = None
    run_id: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One arm x one seed of a verification; `metrics` is plain JSON."""

    verification: str
    arm: str
    seed: int
    metrics: Mapping[str, Any]
    key: str
    id: int | None = None
