"""The arms of a verification: which images each one adds to the training set.

In: a `VerifyConfig` and a training seed. Out: `Added` images, the same number for every arm where there are
enough. The labels of pool images are asked for as "oracle": adding an image means paying its annotator. What
equals a holdout image is in no arm.

    nothing    no image                     random     a sample of the whole pool, per seed
    query      the named selection's best   synthesis  the accepted samples of the named batch
    both       half of each                 oracle     pool images that hold the conditions which fail
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.config import require
from curator.errors import InputError
from curator.prove.settings import VerifyConfig
from store.keys import content_key
from store.records import (
    Annotation,
    AnnotationSet,
    Hit,
    ImageRecord,
    NewAnnotation,
    Outcome,
    Sample,
    Selection,
)

if TYPE_CHECKING:
    from store.store import Store

ARMS = ("nothing", "random", "query", "synthesis", "both", "oracle")
FEWEST_OF_A_CONDITION = 3  # mined failures that make a condition one that fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """One added image: a labelled pool image, or a sample (its PNG is a blob)."""

    sha256: str
    annotations: tuple[Annotation | NewAnnotation, ...]
    image: ImageRecord | None = None
    sample: Sample | None = None
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool without leaks, and what the annotator would say. Read as "oracle".

    Attributes:
        conditions: image id -> conditions that it holds; none where the user names no tag.
    """

    images: Mapping[int, ImageRecord]
    labels: Mapping[int, AnnotationSet]
    conditions: Mapping[int, frozenset[str]]


def read_pool(store: Store, condition_tag: str | None = None) -> Pool:
    """Read the pool; images that equal or nearly equal a mined or holdout image are left out.

    Raises:
        InputError: an image of the pool is unlabelled. Labels come by selections, so that what is drawn from
            the labelled part alone is neither random nor the best of the pool.
    """
    ids = store.image_ids(role="pool")
    leaks = set(store.leaks(ids))
    training = set(store.image_ids(role="train"))
    ids = [i for i in ids if i not in leaks and i not in training]
    labels = (
        {i: s for i, s in store.annotations(ids, reader="oracle").items() if s.status == "human"}
        if ids
        else {}
    )
    if not ids or len(labels) < len(ids):
        raise InputError(
            "the arms random and oracle draw from the whole pool and need its labels: expected all of its "
            f"{len(ids)} images labelled, got {len(labels)}; leave random and oracle out of --arms, or label "
            "a selection of `curator query --method random` and verify it as another --selection"
        )
    tags = store.tags(list(labels), reader="oracle")
    images = {image.id: image for image in store.images(reader="oracle", ids=list(labels))}
    conditions = {i: image_conditions(labels[i].annotations, tags.get(i, {}), condition_tag) for i in labels}
    return Pool(images, labels, conditions)


def condition_of(named: Mapping[str, Any], name: str | None) -> str:
    """The condition of an image by its tags.

    Args:
        name: of the tag that tells conditions; None where the user names none.
    Returns:
        "" where it is lacking, empty or "none".
    """
    value = None if name is None else named.get(name)
    return "" if value in (None, "", "none") else str(value)


def object_condition(
    annotation: Annotation | NewAnnotation, tags: Mapping[str, str], name: str | None
) -> str:
    """The condition of an object: its own attribute, be it empty, or its image's tag where it has none."""
    return condition_of(annotation.attributes if name in annotation.attributes else tags, name)


def image_conditions(
    annotations: Iterable[Annotation | NewAnnotation], tags: Mapping[str, str], name: str | None
) -> frozenset[str]:
    """All conditions of an image and its objects."""
    found = {condition_of(tags, name), *(object_condition(a, tags, name) for a in annotations)}
    return frozenset(found - {""})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What must not be trained on, because it would tell a detector about the holdout.

    Attributes:
        originals: ids of training images that equal or nearly equal a holdout image.
        selected: per selection, ids that equal or nearly equal a holdout or mined image (`export` leaves out
            the same). samples: per batch, blobs painted on, or after, an image that equals a holdout image.
    """

    originals: frozenset[int]
    selected: Mapping[str, frozenset[int]]
    samples: Mapping[str, frozenset[str]]

    def summary(self) -> dict[str, Any]:
        """Plain JSON: "left_out", the number of images, and "warnings", a line for people where there are."""
        counts = [
            ("of role train", len(self.originals)),
            *((f"of selection {name!r}", len(ids)) for name, ids in self.selected.items()),
            *((f"of samples {name!r}", len(blobs)) for name, blobs in self.samples.items()),
        ]
        total = sum(count for _, count in counts)
        parts = ", ".join(f"{count} {what}" for what, count in counts if count)
        line = f"left out of training, because they equal or nearly equal held-out (or mined) images: {parts}"
        return {"left_out": total, "warnings": [line] if total else []}


def left_out(store: Store, selections: Iterable[str], samples: Iterable[str]) -> LeftOut:
    """Find what the training must leave out; no pixel and no label is read.

    Raises:
        NotFoundError: unknown selection.
    """
    batches = {name: store.samples(name=name, accepted=True) for name in samples}
    sources = {i for batch in batches.values() for sample in batch for i in _sources(sample)}
    bad = holdout_copies(store, sorted(sources))
    return LeftOut(
        originals=holdout_copies(store, store.image_ids(role="train")),
        selected={name: frozenset(store.leaks(list(store.selection(name).image_ids))) for name in selections},
        samples={
            name: frozenset(sample.blob for sample in batch if bad & _sources(sample))
            for name, batch in batches.items()
        },
    )


def holdout_copies(store: Store, ids: Sequence[int]) -> frozenset[int]:
    """Those of `ids` that equal or nearly equal a holdout image.

    `Store.leaks` also names what equals a mined image, which training images may.
    """
    leaks = store.leaks(ids)
    holdout = store.image_ids(role="holdout") if leaks else []
    return frozenset(leaks).intersection(holdout) | frozenset(store.near_duplicates(leaks, holdout))


def _sources(sample: Sample) -> set[int]:
    return {i for i in (sample.scene_image_id, sample.exemplar_image_id) if i is not None}


def added_images(
    store: Store,
    config: VerifyConfig,
    arm: str,
    seed: int,
    run_id: int,
    *,
    pool: Pool | None,
    fails: Mapping[int, Sequence[str]] | None,
    without: LeftOut,
) -> tuple[Added, ...]:
    """The images of one arm, at most `config.budget`; the selections of random and oracle are stored.

    Args:
        pool: needed by random and oracle.
        fails: pool image id -> failing groups that it holds, best first; needed by oracle.
        without: as `left_out` finds it; `pool` has no leaks already.
    Raises:
        InputError: a selected image without annotations, no accepted sample, or nothing but leaks.
    """
    if arm == "nothing":
        return ()
    if arm == "query":
        return _selected(store, config, config.budget, without)
    if arm == "synthesis":
        return _samples(store, config, config.budget, without)
    if arm == "both":
        half = config.budget - config.budget // 2
        return (
            *_selected(store, config, half, without),
            *_samples(store, config, config.budget - half, without),
        )
    assert pool is not None
    rng = np.random.default_rng([config.seed, seed, ARMS.index(arm)])
    if arm == "random":
        chosen = [(i, "random") for i in _shuffled(pool, pool.images, rng)[: config.budget]]
    else:
        assert fails is not None
        chosen = _balanced(pool, fails, config.budget, rng)
    name = f"{config.name}-{arm}-{seed}"
    hits = tuple(
        Hit(
            rank=rank,
            image_id=i,
            outcome_id=None,
            vector_id=None,
            group=group,
            score=0.0,
            box=(0.0, 0.0, float(pool.images[i].width), float(pool.images[i].height)),
        )
        for rank, (i, group) in enumerate(chosen, start=1)
    )
    key = content_key("verify-selection", arm, [(pool.images[i].sha256, group) for i, group in chosen])
    store.put_selection(
        run_id,
        Selection(
            name=name,
            arm=arm,
            hits=hits,
            key=key,
            config={"budget": config.budget, "seed": seed, "verification": config.name},
        ),
    )
    return tuple(_added(pool.images[i], pool.labels[i], pool.conditions[i]) for i, _ in chosen)


def _shuffled(pool: Pool, ids: Iterable[int], rng: np.random.Generator) -> list[int]:
    """Ids in random order that depends on the images alone, not on their database ids."""
    ordered = sorted(ids, key=lambda i: pool.images[i].sha256)
    return [ordered[k] for k in rng.permutation(len(ordered))]


def _balanced(
    pool: Pool, fails: Mapping[int, Sequence[str]], budget: int, rng: np.random.Generator
) -> list[tuple[int, str]]:
    """Turn by turn one image of every failing group; what is wanting is filled at random."""
    queues: dict[str, list[int]] = defaultdict(list)
    for i in _shuffled(pool, fails, rng):
        for group in fails[i]:
            queues[group].append(i)
    chosen: dict[int, str] = {}
    while len(chosen) < budget and queues:
        for group in sorted(queues):
            while queues[group] and queues[group][0] in chosen:
                queues[group].pop(0)
            if not queues[group]:
                del queues[group]
            elif len(chosen) < budget:
                chosen[queues[group].pop(0)] = group
    for i in _shuffled(pool, set(pool.images) - set(chosen), rng)[: budget - len(chosen)]:
        chosen[i] = "random"
    return list(chosen.items())


def failing_conditions(
    outcomes: Sequence[Outcome], by_annotation: Mapping[int, str], by_image: Mapping[int, str]
) -> frozenset[str]:
    """Conditions that make the base fail on the mined images."""
    count = Counter(
        by_annotation.get(o.annotation_id or 0, "") if o.kind == "FN" else by_image.get(o.image_id, "")
        for o in outcomes
        if o.kind != "TP"
    )
    del count[""]
    return frozenset(name for name, n in count.items() if n >= FEWEST_OF_A_CONDITION) or frozenset(count)


def usable_hits(store: Store, name: str, without: LeftOut) -> list[int]:
    """Image ids of a selection in its order, leaks left out.

    Raises:
        InputError: nothing remains.
    """
    ids = [i for i in store.selection(name).image_ids if i not in without.selected[name]]
    if not ids:
        raise InputError(
            f"selection {name!r}: expected images that equal no mined or held-out image, got none; "
            "select anew with `curator query`"
        )
    return ids


def usable_samples(store: Store, name: str, without: LeftOut) -> list[Sample]:
    """The accepted samples of a batch, those made from copies of holdout images left out.

    Raises:
        InputError: nothing remains.
    """
    accepted = store.samples(name=name, accepted=True)
    if not accepted:
        raise InputError(f"samples {name!r}: no accepted sample; run `curator synthesize` first")
    usable = [sample for sample in accepted if sample.blob not in without.samples[name]]
    if not usable:
        raise InputError(
            f"samples {name!r}: all {len(accepted)} are made from images that equal held-out images; "
            "drop those images from the holdout or synthesize from others"
        )
    return usable


def human_labels(labels: Mapping[int, AnnotationSet], ids: Collection[int], name: str) -> None:
    """Refuse selected images that no human has labelled.

    Raises:
        InputError: says how many and what to do.
    """
    bare = sum(i not in labels or labels[i].status != "human" for i in ids)
    if bare:
        raise InputError(
            f"selection {name!r}: {bare} of the {len(ids)} images taken from it have no annotations; "
            "export them (`curator export`), label them and `curator add` the result"
        )


def _selected(store: Store, config: VerifyConfig, budget: int, without: LeftOut) -> tuple[Added, ...]:
    ids = usable_hits(store, config.selection, without)[:budget]
    labels = store.annotations(ids, reader="verify")
    human_labels(labels, ids, config.selection)
    images = {image.id: image for image in store.images(reader="verify", ids=ids)}
    tags = store.tags(ids, reader="verify")
    return tuple(
        _added(
            images[i],
            labels[i],
            image_conditions(labels[i].annotations, tags.get(i, {}), config.condition_tag),
        )
        for i in ids
    )


def _samples(store: Store, config: VerifyConfig, budget: int, without: LeftOut) -> tuple[Added, ...]:
    usable = usable_samples(store, config.samples, without)
    return tuple(Added(sha256=s.blob, annotations=s.annotations, sample=s) for s in usable[:budget])


def _added(image: ImageRecord, labels: AnnotationSet, conditions: frozenset[str]) -> Added:
    return Added(
        sha256=image.sha256,
        annotations=labels.annotations,
        image=image,
        conditions=tuple(sorted(conditions)),
    )


def check_arms(arms: Sequence[str]) -> None:
    """Refuse unknown arms.

    Raises:
        ConfigError: names the choices.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    require(
        bool(arms) and not unknown,
        f"arms: expected some of {', '.join(ARMS)}, got {', '.join(unknown) or 'none'}",
    )
