"""`verify`: prove on the holdout what retraining on the added images fixes and breaks.

In: a trainable detector, the training images, the arms' added images, the holdout. Out: one `Trial` per arm
and seed. Every arm starts from the same weights, takes the same number of steps (programs that train whole
epochs come near it; their batches are told) and adds the same number of images. A finished trial is kept; a
killed training continues from its checkpoint. Images that equal a holdout image are trained on in no arm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curator.data.additions import LeftOut, Refusal, reasons, refused_images
from curator.data.run_additions import left_out
from curator.detect.load import load_detector
from curator.diagnose.causes import Criteria
from curator.diagnose.run_current import class_map, find_current, working_spec
from curator.errors import InputError
from curator.jobs.base import Done, Executor
from curator.jobs.stage import StageResult, recorded_run, run_items
from curator.matching import ClassMap, not_judged
from curator.precision import resolve_precision
from curator.progress import say
from curator.prove.arms.base import Added, Arm, Pool
from curator.prove.fates import pack_holdout, pack_matched
from curator.prove.run_arms import (
    DrawnFrom,
    condition_of,
    failing_conditions,
    load_arms,
    object_condition,
    put_drawn,
    read_context,
    wanted_hits,
)
from curator.prove.run_compared import compare_stored, groups_stored
from curator.prove.run_gallery import put_gallery
from curator.prove.run_oracle import failing_images
from curator.prove.run_stop import Stop, looks_of
from curator.prove.run_trainer import recipe_of, settings_of, usable_trainer
from curator.prove.settings import VerifyConfig
from curator.prove.training_data import TrainingImage
from curator.prove.trial_tables import (
    fix_rates,
    summarise,
    trial_table,
    unchanged,
)
from curator.prove.trials import (
    SCORE_FLOOR,
    STAGE,
    HoldoutImage,
    TrialItem,
    TrialWork,
    can_show,
    short_arms,
)
from curator.tensors import resolve_device
from store.records import Annotation, AnnotationSet, NewAnnotation, Trial

if TYPE_CHECKING:
    from store.store import Store

__all__ = [
    "fix_rates",
    "read_holdout",
    "read_training",
    "training_targets",
    "trial_table",
    "verify",
]


def verify(
    store: Store,
    config: VerifyConfig,
    *,
    asked: Mapping[str, str] | None = None,
    drawn_from: DrawnFrom | None = None,
    executor: Executor | None = None,
) -> StageResult:
    """Train and measure every arm with every seed.

    Args:
        asked: arm that is a query method -> the selection that it answered with.
        drawn_from: the part of the pool that random and oracle draw from; None for all.
    Returns:
        with a summary: "columns" and "rows" of the table, "base" (its figures), "arms" (mean and interval per
        figure), "differences" between arms with "difference_columns", "difference_rows", "difference_note",
        "advice", "notes", "unscored_conditions", "missing_classes", "stopped" (why `stop_early` ended it, if
        it did), "drawn_from" (the part of the pool that arms draw from, in words), "left_out"
        (number of images not trained on,
        because they tell of the holdout; "left_out_by_reason"), "holdout_left_out" (holdout images not
        scored, because they equal or nearly equal mined ones), "warnings".
    Raises:
        InputError: no holdout, no training images, an untrainable detector, an arm without its images, a
            score threshold below `SCORE_FLOOR`, or a condition tag that the holdout lacks.
    """
    arms = load_arms(config.arms, asked)
    check_threshold(config.score_threshold)
    spec = working_spec(store, config.detector)
    detector = load_detector(spec, config.device)
    classes = class_map(store, detector.classes, config.class_map)
    config = replace(config, precision=resolve_precision(config.precision, resolve_device(config.device)))
    trainer = usable_trainer(store, config, detector)
    criteria = Criteria(score=config.score_threshold, iou=config.iou_threshold, low_score=0.0)
    mined = refused_images(store.leaks(store.image_ids(role="holdout"), roles=("mine",)))
    holdout = read_holdout(store, mined, config.condition_tag)
    needs = [arm.needs(budget) for arm in arms.values() for budget in config.all_budgets]
    without = left_out(
        store,
        [name or config.selection for name in wanted_hits(needs)],
        [config.samples] if any(n.samples for n in needs) else [],
    )
    work = TrialWork(
        name=config.name,
        spec=spec,
        fingerprint=detector.fingerprint,
        classes=classes,
        criteria=criteria,
        recipe=recipe_of(config, trainer),
        trainer=settings_of(config),
        identity=trainer.identity(),
        originals=read_training(store, classes, without.originals),
        holdout=holdout,
        checkpoints=str(store.path / "training"),
        condition_tag=config.condition_tag,
    )
    with recorded_run(store, STAGE, config, models=(detector.fingerprint,), scope=config.name) as (
        run_id,
        counts,
    ):
        if drawn_from is not None:
            say(f"verify: arms drawn from {drawn_from.said}")
        items = _items(store, config, arms, spec, classes, run_id, without, drawn_from)
        items.sort(key=lambda item: config.seeds.index(item.seed))  # a table can be read at any time
        unjudged = [f"holdout: {line}" for line in not_judged(classes, (h.labelled for h in holdout))]
        for line in (*unjudged, *(fewer := short_arms(items))):
            say(f"verify: {line}")
        keys = [work.key(item) for item in items]
        store.describe_run(run_id, {"trials": keys})

        stop = Stop(store, config, keys, counts)
        images = [h.image.sha256 for h in holdout], [h.cluster for h in holdout]

        def save(done: Done) -> None:
            kept = {
                "fates": store.put_blob(pack_matched(done.value["fates"])),
                "base_fates": store.put_blob(pack_holdout(done.value["base_fates"], *images)),
            }
            store.put_trial(
                run_id,
                Trial(
                    verification=config.name,
                    arm=done.item.arm,
                    seed=done.item.seed,
                    metrics={**done.value, **kept},
                    key=done.key,
                ),
            )

        result = run_items(
            store,
            run_id,
            counts,
            stage=STAGE,
            work=work,
            items=items,
            save=save,
            describe=lambda item: f"{item.arm} seed {item.seed}",
            device=config.device,
            executor=executor,
            until=stop,
        )
    trials = store.trials(config.name)
    told = _left_out(without, mined)
    told["warnings"] += [*unjudged, *fewer, *unchanged(trials)]
    drawn = "" if drawn_from is None else f"arms drawn from {drawn_from.said}"
    gallery = put_gallery(store, holdout, trials)
    store.describe_run(
        run_id, {"trials": keys, "gallery": gallery, "stopped": stop.said, "drawn_from": drawn}
    )
    present = {a.category for h in holdout for a in h.annotations}
    return replace(
        result,
        summary={
            **summarise(trials, compare_stored(store, trials), groups_stored(store, trials)),
            "can_show": can_show(trials[0].metrics["base"]) if trials else "",
            "stopped": stop.said,
            "drawn_from": drawn,
            "missing_classes": [name for name in classes.missing if name in present],
            **told,
        },
    )


def _left_out(without: LeftOut, mined: Mapping[int, Refusal]) -> dict[str, Any]:
    """What the summary says of images that were neither trained on nor scored."""
    summary = without.summary()
    if mined:
        summary["warnings"].append(f"holdout images not scored ({reasons(mined)})")
    return {**summary, "holdout_left_out": len(mined)}


def check_threshold(score: float) -> None:
    """Refuse a threshold below what the holdout's detections are computed down to.

    Raises:
        InputError: such a threshold.
    """
    if score < SCORE_FLOOR:
        raise InputError(
            f"--score-threshold {score:g}: verify computes the holdout's detections down to {SCORE_FLOOR:g}, "
            f"so what scores lower is unknown to it; give {SCORE_FLOOR:g} or above"
        )


def read_holdout(
    store: Store, without: Mapping[int, Refusal], condition_tag: str | None = None
) -> tuple[HoldoutImage, ...]:
    """The annotated holdout, with its conditions.

    Args:
        without: image ids that are not scored, with the reason.
        condition_tag: the tag of an image, or attribute of an annotation, whose value is its condition.
    Raises:
        InputError: there is none, or nothing in it has such a tag or attribute.
    """
    images = [i for i in store.images(reader="verify", role="holdout") if i.id not in without]
    ids = [image.id for image in images]
    labels = (
        {i: s for i, s in store.annotations(ids, reader="verify").items() if s.status == "human"}
        if ids
        else {}
    )
    if not labels:
        raise InputError(
            "expected annotated images with the role holdout"
            + (f" besides those left out ({reasons(without)})" if without else "")
            + ", got none; add some with `curator add coco PATH --role holdout`"
        )
    tags = store.tags(list(labels), reader="verify")
    groups = {m.image_id: m.group_key for m in store.memberships(list(labels)) if m.role == "holdout"}
    _check_tag(condition_tag, labels, tags)
    return tuple(
        HoldoutImage(
            image=image,
            annotations=labels[image.id].annotations,
            annotation_key=labels[image.id].key,
            conditions=tuple(
                object_condition(a, tags.get(image.id, {}), condition_tag)
                for a in labels[image.id].annotations
            ),
            condition=condition_of(tags.get(image.id, {}), condition_tag),
            cluster=groups.get(image.id) or image.sha256,
            labelled=labels[image.id].classes,
        )
        for image in images
        if image.id in labels
    )


def _check_tag(
    name: str | None, labels: Mapping[int, AnnotationSet], tags: Mapping[int, Mapping[str, str]]
) -> None:
    known = {key for of_image in tags.values() for key in of_image}
    known |= {key for s in labels.values() for a in s.annotations for key in a.attributes}
    if name is not None and name not in known:
        raise InputError(
            f"--condition-tag {name}: expected a tag or attribute of the images with the role holdout, which "
            f"have {', '.join(sorted(known)) or 'none'}"
        )


def read_training(
    store: Store, classes: ClassMap, without: Mapping[int, Refusal]
) -> tuple[TrainingImage, ...]:
    """The original training images in the order of their hashes.

    Args:
        without: image ids to leave out, neither read nor trained on (`LeftOut.originals`), with the reason.
    Raises:
        InputError: there is none.
    """
    images = {
        image.id: image for image in store.images(reader="train", role="train") if image.id not in without
    }
    labels = store.annotations(list(images), reader="train") if images else {}
    if not labels:
        raise InputError(
            "expected annotated images with the role train"
            + (f" besides those left out ({reasons(without)})" if without else "")
            + ", got none; add some with `curator add coco PATH --role train`"
        )
    found = [
        TrainingImage(
            sha256=images[i].sha256, uri=images[i].uri, **training_targets(labels[i].annotations, classes)
        )
        for i in labels
        if labels[i].status == "human"
    ]
    return tuple(sorted(found, key=lambda image: image.sha256))


def training_targets(annotations: Sequence[Annotation | NewAnnotation], classes: ClassMap) -> dict[str, Any]:
    """Boxes and detector labels; crowd boxes and classes that the detector cannot produce are left out."""
    of_category = {
        classes.categories[c]: label for label, c in reversed(list(enumerate(classes.of_label))) if c >= 0
    }
    kept = [a for a in annotations if a.category in of_category and not a.crowd]
    return {"boxes": tuple(a.box for a in kept), "labels": tuple(of_category[a.category] for a in kept)}


def _items(
    store: Store,
    config: VerifyConfig,
    arms: Mapping[str, Arm],
    spec: str,
    classes: ClassMap,
    run_id: int,
    without: LeftOut,
    drawn_from: DrawnFrom | None,
) -> list[TrialItem]:
    fails = lambda pool: _fails(store, config, spec, classes, pool)  # noqa: E731
    context = read_context(store, config, arms.values(), fails, without, drawn_from)
    items = []
    several = len(config.all_budgets) > 1
    for name, arm in arms.items():
        for budget in config.all_budgets if name != "nothing" else config.all_budgets[:1]:
            label = f"{name}@{budget}" if several and name != "nothing" else name
            for seed in dict.fromkeys(config.seeds):
                added = arm.images(context, budget=budget, seed=seed)
                if arm.drawn:
                    put_drawn(store, config, label, budget, seed, run_id, added)
                conditions = Counter(held for image in added for held in image.conditions)
                items.append(
                    TrialItem(
                        arm=label,
                        seed=seed,
                        added=tuple(_training_image(store, image, classes) for image in added),
                        facts={
                            "n_added": len(added),
                            "budget": budget,
                            **({"looks": looks_of(config)} if config.stop_early else {}),
                            "added_by_condition": dict(sorted(conditions.items())),
                        },
                    )
                )
    return items


def _fails(
    store: Store, config: VerifyConfig, spec: str, classes: ClassMap, pool: Pool
) -> Mapping[int, Sequence[str]]:
    current = find_current(store)
    if current is None:
        raise InputError("the oracle arm needs to know what fails; run `curator diagnose` first")
    mined = store.image_ids(role="mine")
    tags = store.tags(mined, reader="diagnose")
    by_annotation = {
        a.id: object_condition(a, tags.get(i, {}), config.condition_tag)
        for i, s in store.annotations(mined, reader="diagnose").items()
        for a in s.annotations
    }
    by_image = {i: condition_of(t, config.condition_tag) for i, t in tags.items()}
    failing = failing_conditions(current.outcomes, by_annotation, by_image)
    return failing_images(config, spec, pool, current.outcomes, failing, classes)


def _training_image(store: Store, added: Added, classes: ClassMap) -> TrainingImage:
    targets = training_targets(added.annotations, classes)
    if added.data:
        return TrainingImage(sha256=added.sha256, data=added.data, **targets)
    if added.sample is not None:
        return TrainingImage(sha256=added.sha256, data=store.blob(added.sha256), **targets)
    assert added.image is not None
    return TrainingImage(sha256=added.sha256, uri=added.image.uri, **targets)
