"""`groups`: cluster the failures and name the groups; a look that stores nothing but its run.

In: outcomes, the vectors that `index` stored, pixels of the failing images (for words such as "dark"), tags.
Out: groups with names, counts and exemplars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.diagnose.run_suspects import without_suspects
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError
from curator.jobs.base import Executor
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import progress
from curator.query.groups import FailureGroup, Grouped, group_failures
from curator.query.looks import look
from curator.query.run_indexed import IndexState, indexed, read_mined
from curator.query.settings import GroupsConfig
from store.images import read_pixels
from store.keys import content_key
from store.records import Outcome
from store.session import ITEM_ERRORS

if TYPE_CHECKING:
    from store.store import Store

STAGE = "groups"
STAGE_VERSION = 1
LOOKED_AT = 400  # failures, and successes, whose pixels are measured for the names; evenly over the images


def groups(store: Store, config: GroupsConfig, *, executor: Executor | None = None) -> StageResult:
    """Group failures; the driver does it, so that `executor` is not used.

    Returns:
        a result whose summary holds "groups" (name, kind, failures, images, classes, causes, seen_as,
        conditions, side, score, outcomes, exemplars with image, uri and box), "stability", "silent" (failures
        without vectors) and "warnings".

    Raises:
        InputError: no failure matches, or nothing is indexed (names `curator index`).
    """
    current = read_current(store, STAGE)
    failures = FailureSelector.parse(config.failures).among(current.outcomes)
    if not failures:
        raise InputError(f"groups: no failure matches {config.failures!r} (curator diagnose lists them)")
    index = indexed(store, config.embedder, current, store.image_ids(role="pool"))
    trusted = without_suspects(store, current, failures, keep=False, stage=STAGE)
    current, failures = trusted.current, trusted.failures
    found = find_groups(store, config, current, failures, index)
    key = content_key(STAGE, STAGE_VERSION, config.results(), current.digest, index.state)
    with recorded_run(
        store, STAGE, config, models=[current.model.fingerprint], config_key=key, aside=True
    ) as (run_id, counts):
        counts.update(done=len(found.groups), skipped=0, failed=0)
    warnings = [trusted.left_out] if trusted.left_out else []
    warnings += [*trusted.warnings, *([index.warning] if index.missing else [])]
    if found.silent:
        warnings.append(
            f"{len(found.silent)} failures have no vectors and are in no group; run: curator index"
        )
    return StageResult(
        stage=STAGE,
        run_id=run_id,
        done=len(found.groups),
        summary={
            "failures": len(failures),
            "groups": _described(store, found.groups, current),
            "stability": {name: round(value, 3) for name, value in found.stability.items()},
            "silent": len(found.silent),
            "explained_by": current.explained_by,
            "warnings": warnings,
        },
    )


def find_groups(
    store: Store, config: GroupsConfig, current: Current, failures: Sequence[Outcome], index: IndexState
) -> Grouped:
    """Group failures that are indexed."""
    named = [current.class_map.get(name, name) for name in current.model.classes]
    asked = {o.category for o in failures}
    right = [o for o in current.outcomes if o.kind == "TP" and o.category in asked]
    return group_failures(
        failures,
        read_mined(store, current, index),
        named,
        threshold=current.criteria.score,
        apart=config.apart,
        looks=_looks(store, [*_evenly(failures), *_evenly(right)]),
        conditions=_conditions(store, config.condition, failures),
        most=config.most,
        exemplars=config.exemplars,
        seed=config.seed,
    )


def _evenly(outcomes: Sequence[Outcome]) -> list[Outcome]:
    step = max(1, -(-len(outcomes) // LOOKED_AT))
    return list(outcomes[::step])


def _looks(store: Store, outcomes: Sequence[Outcome]) -> dict[int, dict[str, float]]:
    """What the boxes of outcomes look like; an image that cannot be read says nothing."""
    of_image: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        of_image.setdefault(outcome.image_id, []).append(outcome)
    found: dict[int, dict[str, float]] = {}
    with progress("look at failures", len(of_image)) as advance:
        for image in store.images(reader="query", ids=sorted(of_image)):
            own = of_image[image.id]
            try:
                pixels = read_pixels(image.uri, image.sha256)
                measured = look(pixels, [o.box for o in own])
                found |= {o.id or 0: values for o, values in zip(own, measured, strict=True)}
            except (OSError, *ITEM_ERRORS):
                pass
            advance(1)
    return found


def _conditions(store: Store, name: str, failures: Sequence[Outcome]) -> dict[int, str]:
    """The condition of each failure: an attribute of its object, else a tag of its image; "none" is none."""
    if not name:
        return {}
    images = sorted({o.image_id for o in failures})
    tags = store.tags(images, reader="query")
    attributes: Mapping[int, Any] = {
        annotation.id: annotation.attributes.get(name)
        for labels in store.annotations(images, reader="query").values()
        for annotation in labels.annotations
    }
    found = {}
    for outcome in failures:
        value = attributes.get(outcome.annotation_id or 0)
        if value is None and outcome.kind == "FP":
            value = tags.get(outcome.image_id, {}).get(name)
        if value not in (None, "", "none"):
            found[outcome.id or 0] = f"{name} {value}"
    if not found:
        raise InputError(f"groups: no failing image or object has a tag or attribute {name!r}")
    return found


def _described(store: Store, found: Sequence[FailureGroup], current: Current) -> list[dict[str, Any]]:
    known = {outcome.id: outcome for outcome in current.outcomes}
    shown = sorted({known[i].image_id for group in found for i in group.exemplars})
    uris = {image.id: image.uri for image in store.images(reader="query", ids=shown)} if shown else {}
    return [
        {
            "name": group.name,
            "kind": group.kind,
            **group.told,
            "outcomes": list(group.outcome_ids),
            "exemplars": [
                {
                    "outcome": i,
                    "image": known[i].image_id,
                    "uri": uris.get(known[i].image_id, ""),
                    "box": list(known[i].box),
                }
                for i in group.exemplars
            ],
        }
        for group in found
    ]
