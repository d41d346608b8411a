"""Builds `Current` from the Store; the one place that says which model, class map and explanation count.

    the model      of the current diagnosis, not the newest that ran
    the class map  what a command names, else the diagnosis' where it diagnosed a detector of these classes
    explained by   the newest explain run of this model that was not `--aside`: its configuration
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curator.diagnose.causes import Criteria
from curator.diagnose.current import Culprit, Current, Explanation
from curator.errors import InputError
from curator.matching import ClassMap
from store.keys import content_key
from store.records import ModelRecord, Region, Role, RunRecord

if TYPE_CHECKING:
    from store.store import Store


def read_current(store: Store, stage: str, detector: str | None = None) -> Current:
    """What is diagnosed and explained now.

    Args:
        stage: who asks, for the message.
        detector: the spec that a command names; None means the diagnosed one.
    Raises:
        InputError: nothing is diagnosed, or another detector is.
    """
    found = find_current(store)
    if found is None or not found.outcomes or detector not in (None, found.model.spec):
        of = "" if detector is None else f" of {detector}"
        instead = "none" if found is None or not found.outcomes else f"that of {found.model.spec}"
        option = "" if detector is None else f" with --detector '{detector}'"
        before = "" if store.models() else ", after curator detect"
        raise InputError(
            f"{stage}: expected a stored diagnosis{of}, found {instead}; "
            f"run curator diagnose first{option}{before}"
        )
    return found


def find_current(store: Store) -> Current | None:
    """What is diagnosed and explained now; None where nothing is."""
    run = store.current_run("diagnose")
    if run is None:
        return None
    outcomes = tuple(store.outcomes())
    number = run.facts.get("model", outcomes[0].model_id if outcomes else None)
    if number is None:
        return None
    model = store.model(int(number))  # of equal weights the spec that the diagnosis named
    explained = store.current_run("explain", scope=model.fingerprint)
    attributions = (
        {}
        if explained is None
        else {
            found.outcome_id: found for found in store.attribution_keys(config_key=explained.config_key)
        }
    )
    return Current(
        model=model,
        class_map=_class_map(store, run, model),
        criteria=_criteria(run),
        detections_key=run.facts.get("detections_key"),
        outcomes=outcomes,
        explanation=_explanation(explained) if explained is not None and attributions else None,
        attributions=attributions,
    )


def detected(store: Store, spec: str | None, role: Role = "mine") -> tuple[ModelRecord, str | None]:
    """The model that was last run over the images of a role, or that `spec` names, and the configuration of
    its detections (None where the run is not recorded).

    Raises:
        InputError: no such model; names `curator detect`.
    """
    models = {(model.spec, model.fingerprint): model for model in store.models()}
    for run in store.runs(stage="detect"):
        named = str(run.config.get("detector", ""))
        wanted = not run.aside and run.status != "failed" and role in run.config.get("roles", ())
        if wanted and spec in (None, named) and run.models and (named, run.models[0]) in models:
            return models[named, run.models[0]], run.config_key
    for model in models.values():
        if spec in (None, model.spec):
            return model, None
    wanted_by = f"by {spec}" if spec else "by any detector"
    raise InputError(
        f"no detections {wanted_by} in this workspace; run `curator detect --detector {spec or 'SPEC'}` first"
    )


def working_model(store: Store) -> ModelRecord | None:
    """The model for what needs no diagnosis: the diagnosed one, else the last that ran; None without any."""
    current = find_current(store)
    if current is not None:
        return current.model
    ran = [run for run in store.runs(stage="detect") if run.models and run.status != "failed"]
    models = store.models()
    by_weights = [m for run in ran[:1] for m in models if m.fingerprint == run.models[0]]
    return next(iter([*by_weights, *models]), None)


def working_spec(store: Store, spec: str | None) -> str:
    """What a command names, else the spec of `working_model`.

    Raises:
        InputError: there is none.
    """
    if spec is not None:
        return spec
    found = working_model(store)
    if found is None:
        raise InputError("no detector has run in this workspace; run `curator detect --detector SPEC` first")
    return found.spec


def class_map(
    store: Store, classes: Sequence[str], named: Mapping[str, str], current: Current | None = None
) -> ClassMap:
    """How a detector's classes map to the data set's: as a command names it, else as the diagnosis of a
    detector with these classes did, else by equal names.

    Raises:
        InputError: `named` names a class that is not there.
    """
    current = current or (find_current(store) if not named else None)
    known = current is not None and tuple(classes) == current.model.classes
    chosen = named or (current.class_map if known and current is not None else {})
    return ClassMap.resolve(tuple(classes), [category.name for category in store.categories()], chosen)


def culprits(store: Store, current: Current) -> dict[int, Culprit]:
    """What is to blame, by outcome id: the culprit regions of the current attributions, where there are
    any."""
    ids = [found.id for found in current.attributions.values() if found.evidence]
    parts: dict[int, list[Region]] = {}
    for region in store.regions(attribution_ids=ids):
        if region.kind == "culprit":
            parts.setdefault(region.outcome_id, []).append(region)
    found = {}
    for outcome_id, regions in parts.items():
        segmentation = current.attributions[outcome_id].segmentation_id
        if segmentation is not None:
            ranked = sorted(regions, key=lambda region: (-region.weight, region.segments))
            found[outcome_id] = Culprit(
                attribution_id=ranked[0].attribution_id,
                segmentation_id=segmentation,
                parts=tuple(region.segments for region in ranked),
                boxes=tuple(region.box for region in ranked),
                key=content_key("culprit", [region.key for region in ranked]),
            )
    return found


def _class_map(store: Store, run: RunRecord, model: ModelRecord) -> dict[str, str]:
    if "class_map" in run.facts:  # classes may have been removed with the last images that named them
        there = {category.name for category in store.categories()}
        return {label: name for label, name in run.facts["class_map"].items() if name in there}
    named = run.config.get("class_map", {})  # a diagnosis of before schema 0002
    classes = ClassMap.resolve(model.classes, [c.name for c in store.categories()], named)
    return mapped(model.classes, classes)


def mapped(names: Sequence[str], classes: ClassMap) -> dict[str, str]:
    """Detector class -> data-set class of all that are mapped."""
    return {names[label]: classes.categories[c] for label, c in enumerate(classes.of_label) if c >= 0}


def _criteria(run: RunRecord) -> Criteria:
    config: Mapping[str, Any] = run.config
    low = run.facts.get("low_score", config.get("low_score"))
    return Criteria(
        score=config.get("score_threshold", 0.5),
        iou=config.get("iou_threshold", 0.5),
        background_iou=config.get("background_iou", 0.1),
        low_score=low or 0.0,
    )


def _explanation(run: RunRecord) -> Explanation:
    config: Mapping[str, Any] = run.config
    method = str(config.get("method", "?"))
    parts = [method]
    parts += [f"{config[name]} {name}" for name in ("samples", "segments") if name in config]
    parts += [f"{name} {config[name]}" for name in ("target", "fill", "precision") if name in config]
    stopped = ", interrupted" if run.status == "interrupted" else ""
    return Explanation(
        run_id=run.id,
        config_key=run.config_key,
        method=method,
        described=f"{', '.join(parts)} (run {run.id}{stopped})",
    )
