"""What `suspects` remembers of images and detectors that are removed.

In: ids of images, or fingerprints. Out: runs that no longer speak of them. A list of suspects names outcomes
by their ids: one that names a removed one is forgotten as a whole, and `curator suspects` makes it again.
What people said of labels stays, but for those of removed images.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from store.errors import CorruptionError, NotFoundError

if TYPE_CHECKING:
    from store.store import Store


STAGE = "suspects"


def forget_images(store: Store, ids: Collection[int]) -> None:
    """Forget lists that name some of these images, and what was said of their labels."""
    for run in store.runs(stage=STAGE):
        facts: dict[str, Any] = dict(run.facts)
        if "blob" in facts and _listed(store, facts["blob"]) & set(ids):
            del facts["blob"]
        if "verdicts" in facts:
            facts["verdicts"] = [said for said in facts["verdicts"] if said["image_id"] not in ids]
        if facts != run.facts:
            store.describe_run(run.id, facts)


def forget_models(store: Store, fingerprints: Collection[str]) -> None:
    """Forget lists of the failures of these detectors."""
    for run in store.runs(stage=STAGE):
        if "blob" in run.facts and set(fingerprints) & set(run.models):
            store.describe_run(run.id, {name: value for name, value in run.facts.items() if name != "blob"})


def _listed(store: Store, blob: str) -> set[int]:
    """Images that a list names; a list that is damaged or gone names none."""
    try:
        return {int(own["image_id"]) for own in json.loads(store.blob(blob))}
    except (NotFoundError, CorruptionError):
        return set()
