"""What the arms of a verification choose from, read from the Store, and what must be in none of them.

In: a `VerifyConfig`. Out: a plain `ArmContext`. The labels of pool images are asked for as "oracle": adding
an image means paying its annotator. What equals a holdout image is in no arm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.config import require
from curator.data.additions import LeftOut, reasons
from curator.diagnose.run_current import find_current
from curator.diagnose.run_suspects import without_suspects
from curator.errors import InputError
from curator.prove.arms.base import Added, Arm, ArmContext, Cutouts, Labelled, Needs, Pool, place
from curator.prove.arms.selection import SelectionArm
from curator.prove.settings import VerifyConfig
from curator.registry import ARMS
from store.keys import content_key
from store.records import (
    Annotation,
    AnnotationSet,
    Hit,
    NewAnnotation,
    Outcome,
    Role,
    Sample,
    Selection,
)

if TYPE_CHECKING:
    from store.store import Store

SELECTION = "selection:"
FEWEST_OF_A_CONDITION = 3  # mined failures that make a condition one that fails


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFrom:
    """The part of the pool that arms draw from: what the query that they are compared with chose from.

    Attributes:
        images: ids. said: in words.
    """

    images: frozenset[int]
    said: str


def read_pool(store: Store, condition_tag: str | None = None, drawn_from: DrawnFrom | None = None) -> Pool:
    """Read the pool; images that equal or nearly equal a mined or holdout image are left out.

    Args:
        drawn_from: the part that is read; None for all.
    Raises:
        InputError: an image of the pool is unlabelled. Labels come by selections, so that what is drawn from
            the labelled part alone is neither random nor the best of the pool.
    """
    ids = store.image_ids(role="pool")
    leaks = set(store.leaks(ids))
    training = set(store.image_ids(role="train"))
    part = set(ids) if drawn_from is None else drawn_from.images
    ids = [i for i in ids if i in part and i not in leaks and i not in training]
    labels = (
        {i: s for i, s in store.annotations(ids, reader="oracle").items() if s.status == "human"}
        if ids
        else {}
    )
    if not ids or len(labels) < len(ids):
        whole = "the whole pool" if drawn_from is None else drawn_from.said
        raise InputError(
            f"the arms random and oracle draw from {whole} and need its labels: expected all of its "
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


def read_context(
    store: Store,
    config: VerifyConfig,
    arms: Iterable[Arm],
    fails: Callable[[Pool], Mapping[int, Sequence[str]]],
    without: LeftOut,
    drawn_from: DrawnFrom | None = None,
) -> ArmContext:
    """Read what the arms choose from, and no more than they need.

    Args:
        fails: finds the failing groups that pool images hold.
        without: as `left_out` finds it; the pool has no leaks already. drawn_from: the part of the pool that
            arms draw from, None for all.
    Raises:
        InputError: a selected image without annotations, no accepted sample, nothing but leaks, or an
            unlabelled pool.
    """
    needs = [arm.needs(budget) for arm in arms for budget in config.all_budgets]
    samples = max(n.samples for n in needs)
    hits = wanted_hits(needs)
    cutouts = read_cutouts(store, without) if any(n.cutouts for n in needs) else None
    drawn = any(n.pool or n.fails for n in needs)
    pool = read_pool(store, config.condition_tag, drawn_from) if drawn else None
    return ArmContext(
        seed=config.seed,
        hits={
            name: _selected(store, config, name or config.selection, count, without)
            for name, count in hits.items()
        },
        samples=_samples(store, config, samples, without) if samples else (),
        pool=pool,
        fails=fails(pool) if pool is not None and any(n.fails for n in needs) else None,
        cutouts=cutouts,
    )


def read_cutouts(store: Store, without: LeftOut) -> Cutouts:
    """Missed objects of the mined images, and the training images.

    Raises:
        InputError: nothing is diagnosed, or nothing was missed.
    """
    current = find_current(store)
    failures = [o for o in current.outcomes if o.kind == "FN"] if current is not None else []
    if current is not None and failures:
        failures = without_suspects(store, current, failures, keep=False, stage="verify").failures
    missed = {o.annotation_id for o in failures}
    if not missed:
        raise InputError(
            "the arm copy-paste cuts out missed objects: expected some on the mined images, "
            "got none; run `curator diagnose`, or leave it out of --arms"
        )

    def labelled(role: Role, left_out: Collection[int]) -> list[Labelled]:
        images = {i.id: i for i in store.images(reader="verify", role=role) if i.id not in left_out}
        labels = store.annotations(list(images), reader="verify") if images else {}
        known = [Labelled(images[i], s.annotations) for i, s in labels.items() if s.status == "human"]
        return sorted(known, key=lambda one: one.image.sha256)

    mined = labelled("mine", ())
    objects = [(one, a) for one in mined for a in one.annotations if a.id in missed]
    if not objects:
        raise InputError(
            "the arm copy-paste: the missed objects were labelled anew since; run `curator diagnose` again"
        )
    return Cutouts(objects, labelled("train", without.originals))


def wanted_hits(needs: Iterable[Needs]) -> dict[str, int]:
    """Selection -> most hits that any arm uses of it; "" is the verified one."""
    wanted: dict[str, int] = {}
    for need in needs:
        for name, count in need.hits.items():
            wanted[name] = max(wanted.get(name, 0), count)
    return {name: count for name, count in wanted.items() if count}


def put_drawn(
    store: Store, config: VerifyConfig, arm: str, budget: int, seed: int, run_id: int, added: Sequence[Added]
) -> None:
    """Store the pool images that an arm has drawn for a training seed as a selection.

    Args:
        arm: its name in tables.
    """
    drawn = [(a.image, a.group) for a in added if a.image is not None]
    if not drawn:
        return  # pictures of its own
    hits = tuple(
        Hit(
            rank=rank,
            image_id=image.id,
            outcome_id=None,
            group=group,
            score=0.0,
            box=(0.0, 0.0, float(image.width), float(image.height)),
        )
        for rank, (image, group) in enumerate(drawn, start=1)
    )
    store.put_selection(
        run_id,
        Selection(
            name=f"{config.name}-{arm}-{seed}",
            arm=arm,
            hits=hits,
            key=content_key("verify-selection", arm, [(image.sha256, group) for image, group in drawn]),
            config={"budget": budget, "seed": seed, "verification": config.name},
        ),
    )


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
            f"selection {name!r}: expected images that equal no mined or held-out image, got none "
            f"({reasons(without.selected[name])}); select anew with `curator query`"
        )
    return ids


def check_names(
    store: Store, config: VerifyConfig, arms: Iterable[Arm], to_be_made: Collection[str] = ()
) -> None:
    """Refuse names under which nothing is stored, before anything is made or trained.

    Args:
        to_be_made: selections that are still to be made.
    Raises:
        NotFoundError: an unknown selection. InputError: a batch without an accepted sample.
    """
    needs = [arm.needs(budget) for arm in arms for budget in config.all_budgets]
    for name in wanted_hits(needs):
        if (name or config.selection) not in to_be_made:
            store.selection(name or config.selection)
    if any(n.samples for n in needs):
        accepted_samples(store, config.samples)


def accepted_samples(store: Store, name: str) -> list[Sample]:
    """The accepted samples of a batch.

    Raises:
        InputError: there is none.
    """
    accepted = store.samples(name=name, accepted=True)
    if not accepted:
        raise InputError(f"samples {name!r}: no accepted sample; run `curator synthesize` first")
    return accepted


def usable_samples(store: Store, name: str, without: LeftOut) -> list[Sample]:
    """The accepted samples of a batch, those that leak left out.

    Raises:
        InputError: nothing remains.
    """
    accepted = accepted_samples(store, name)
    usable = [sample for sample in accepted if sample.blob not in without.samples[name]]
    if not usable:
        raise InputError(
            f"samples {name!r}: all {len(accepted)} tell of held-out images "
            f"({reasons(without.samples[name])}); synthesize from others"
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


def _selected(
    store: Store, config: VerifyConfig, name: str, budget: int, without: LeftOut
) -> tuple[Added, ...]:
    ids = usable_hits(store, name, without)[:budget]
    labels = store.annotations(ids, reader="verify")
    human_labels(labels, ids, name)
    images = {image.id: image for image in store.images(reader="verify", ids=ids)}
    tags = store.tags(ids, reader="verify")
    conditions = {
        i: image_conditions(labels[i].annotations, tags.get(i, {}), config.condition_tag) for i in ids
    }
    return tuple(Pool(images, labels, conditions).added(i, "") for i in ids)


def _samples(store: Store, config: VerifyConfig, budget: int, without: LeftOut) -> tuple[Added, ...]:
    usable = usable_samples(store, config.samples, without)
    return tuple(Added(sha256=s.blob, annotations=s.annotations, sample=s) for s in usable[:budget])


def load_arms(names: Sequence[str], asked: Mapping[str, str] | None = None) -> dict[str, Arm]:
    """The named arms, each once.

    Args:
        asked: arm -> the selection that answers for it.
    Raises:
        ConfigError: none or an unknown one; names the choices.
    """
    known, answers = sorted(ARMS.names(), key=place), dict(asked or {})
    for name in names:
        if name.startswith(SELECTION) and name != SELECTION:
            answers[name] = name.removeprefix(SELECTION)
    unknown = [name for name in names if name not in known and name not in answers]
    require(
        bool(names) and not unknown,
        f"arms: expected some of {', '.join(known)}, {SELECTION}NAME, image-similarity, "
        f"crop-similarity, or a method of `curator query`, got {', '.join(unknown) or 'none'}",
    )
    return {name: SelectionArm(answers[name]) if name in answers else ARMS.load(name)() for name in names}
