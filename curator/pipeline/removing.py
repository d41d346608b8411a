"""`curator remove`: say what would go, and remove it.

In: a `RemoveConfig`. Out: a plan as plain JSON, or what went. Rows go in transactions that each leave a
consistent workspace; files go with `curator gc`. The user's image files are never touched.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from curator.data.run_remove import ChosenImages, chosen_images, sample_ids
from curator.data.settings import RemoveConfig
from curator.diagnose.run_forget import forget_images, forget_models
from curator.errors import InputError
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from store.records import RemovalPlan
from store.removal import BATCH
from store.session import chunks

if TYPE_CHECKING:
    from store.store import Store

STAGE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """What a configuration means in this workspace; of each field what the kind needs.

    Attributes:
        missing: number of those that were named and are not there.
    """

    images: ChosenImages | None = None
    samples: list[int] | None = None
    batch: str | None = None
    names: tuple[str, ...] = ()
    missing: int = 0


def plan_removal(store: Store, config: RemoveConfig) -> dict[str, Any]:
    """What would go, and what stays and named it; nothing is changed.

    Returns:
        "kind", "names", "missing" (named, and not there), and the fields of `store.records.RemovalPlan`:
        "counts" (rows by table), "kept", "selections", "unlinked", "versions", "verifications", "spaces".
    Raises:
        InputError: nothing is named, or no such thing.
    """
    meant = _meant(store, config)
    plan = _plan(store, config, meant)
    names = [*config.names, *([config.dataset] if config.dataset else [])]
    return {"kind": config.kind, "names": names, "missing": meant.missing, **asdict(plan)}


def remove(store: Store, config: RemoveConfig) -> StageResult:
    """Remove it.

    Returns:
        done: images that went, or else rows; the summary holds "counts" (rows by table) and "missing".
    Raises:
        InputError: nothing is named, or no such thing.
        WorkspaceError: another process of this machine is at work in the workspace.
    """
    store.require_alone()
    meant = _meant(store, config)
    facts = store.removal_facts()
    with recorded_run(store, STAGE, config, facts=facts) as (run_id, counts):
        gone = _remove(store, config, meant)
        done = gone["images"] if config.kind in ("images", "dataset") else sum(gone.values())
        counts.update(done=done)
    summary = {"kind": config.kind, "counts": dict(gone), "missing": meant.missing}
    return StageResult(stage=STAGE, run_id=run_id, done=done, summary=summary)


def _meant(store: Store, config: RemoveConfig) -> Meant:
    if config.kind == "dataset":
        names = [*config.names, *([config.dataset] if config.dataset else [])]
        if len(names) != 1:
            raise InputError(f"remove dataset: expected one name, got {len(names)}")
        everything = RemoveConfig(kind="images", dataset=names[0])
        return Meant(images=chosen_images(store, everything))
    if config.kind == "images":
        chosen = chosen_images(store, config)
        return Meant(images=chosen, missing=chosen.missing)
    if not config.names:
        raise InputError(f"remove {config.kind}: expected a name, got none")
    if config.kind == "model":
        store.models_called(config.names[0])
        return Meant(names=config.names[:1])
    known = store.removable()
    numbers = config.names[0] not in known["samples"] and all(word.isdecimal() for word in config.names)
    if config.kind == "samples" and numbers:
        found = sample_ids(store, config.names)
        return Meant(samples=found, missing=len(set(config.names)) - len(found))
    there = [*known[config.kind], *(known["feedback"] if config.kind == "selection" else [])]
    unknown = [name for name in config.names if name not in there]
    if unknown or len(config.names) != 1:
        listed = ", ".join(known[config.kind]) or "none"
        what = {"index": "vector space", "samples": "batch of samples"}.get(config.kind, config.kind)
        if not unknown:
            raise InputError(f"remove {config.kind}: expected one name, got {len(config.names)}")
        raise InputError(f"no {what} called {unknown[0]!r}; there are: {listed}")
    return Meant(names=config.names, batch=config.names[0] if config.kind == "samples" else None)


def _plan(store: Store, config: RemoveConfig, meant: Meant) -> RemovalPlan:
    if meant.images is not None:
        return store.plan_images(meant.images.ids, meant.images.which)
    if config.kind == "samples":
        return store.plan_samples(meant.samples, name=meant.batch)
    if config.kind == "index":
        return store.plan_spaces(meant.names)
    plans = {
        "selection": store.plan_selection,
        "verification": store.plan_verification,
        "model": store.plan_model,
    }
    return plans[config.kind](meant.names[0])


def _remove(store: Store, config: RemoveConfig, meant: Meant) -> Counter[str]:
    if meant.images is not None:
        return _remove_images(store, meant.images)
    if config.kind == "samples":
        return store.remove_samples(meant.samples, name=meant.batch)
    if config.kind == "index":
        return store.remove_spaces(meant.names)
    if config.kind == "model":
        forget_models(store, {fingerprint for _, _, fingerprint in store.models_called(meant.names[0])})
        return store.remove_model(meant.names[0])
    removals = {"selection": store.remove_selection, "verification": store.remove_verification}
    return removals[config.kind](meant.names[0])


def _remove_images(store: Store, chosen: ChosenImages) -> Counter[str]:
    gone: Counter[str] = Counter()
    with progress(STAGE, len(chosen.ids)) as advance:
        for part in chunks(chosen.ids, BATCH):
            with store.transaction():
                gone += store.remove_images(part, chosen.which)
                forget_images(store, set(part) - set(store.known_images(part)))
            advance(len(part))
    return gone
