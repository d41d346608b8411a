"""Which failure is painted into which scene: the numbered plans of `synthesize`.

In: the Store and a `SynthesizeConfig`. Out: failures with their culprits' masks, scenes, `SynthesisItem`s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.stats import binomtest

from curator.diagnose.current import Current
from curator.diagnose.groups import group_outcomes
from curator.diagnose.run_current import culprits
from curator.diagnose.run_suspects import without_suspects
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError
from curator.registry import RECIPES
from curator.synthesize.base import Recipe
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import Failure, SceneImage, SynthesisItem
from store.keys import content_key
from store.records import Annotation, ImageRecord, NewAnnotation, Outcome

if TYPE_CHECKING:
    from store.store import Store


def plan_items(
    failures: Sequence[Failure],
    scenes: Sequence[SceneImage],
    config: SynthesizeConfig,
    wanted: Mapping[str, float],
) -> list[SynthesisItem]:
    """Numbered plans: groups by what is wanted of each, within a group the failures in turn, recipes that
    answer them in turn.

    Args:
        wanted: group -> weight (`wanted_of`).
    Raises:
        InputError: no recipe answers any of the failures, or no scene suits.
    """
    recipes: dict[str, Recipe] = {name: RECIPES.load(name)() for name in config.recipes}
    by_group: dict[str, list[Failure]] = defaultdict(list)
    for failure in sorted(failures, key=lambda f: content_key(config.seed, f.outcome.key)):
        by_group[failure.group].append(failure)
    choices: dict[tuple[str, str], tuple[int, ...]] = {}
    queues: dict[str, Iterator[tuple[str, Failure]]] = {}
    for group in sorted(by_group):
        pairs = []
        for name, recipe in recipes.items():
            for turn, failure in enumerate(by_group[group]):
                outcome = failure.outcome
                if outcome.kind not in recipe.kinds or (recipe.causes and outcome.cause not in recipe.causes):
                    continue
                if getattr(recipe, "explained", False) and failure.blamed is None:
                    continue
                if (name, outcome.category) not in choices:
                    choices[name, outcome.category] = tuple(
                        i
                        for i, scene in enumerate(scenes)
                        if recipe.suits(outcome.category, scene.annotations)
                    )
                if choices[name, outcome.category]:
                    pairs.append((turn, name, failure))
        pairs.sort(key=lambda pair: pair[0])
        if pairs:
            queues[group] = cycle([(name, failure) for _, name, failure in pairs])
    if not queues:
        raise InputError(
            f"synthesize: none of the recipes {', '.join(recipes)} answers these failures in these scenes "
            f"(recipes: {', '.join(RECIPES.names())})"
        )
    items = []
    turns = in_turn({group: wanted[group] for group in queues})
    for number in range(config.budget * config.attempts):
        name, failure = next(queues[next(turns)])
        suitable = choices[name, failure.outcome.category]
        rng = np.random.default_rng([config.seed, number])
        drawn = rng.choice(suitable, min(config.scenes, len(suitable)), replace=False)
        items.append(SynthesisItem(number, name, failure, tuple(scenes[i] for i in drawn)))
    return items


def wanted_of(failures: Sequence[Failure], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Group -> what is wanted of it: the share of its class that fails in its way, failures / (objects and
    false positives) of the class, and of that the least that such numbers allow (the lower end of Wilson's
    95% interval, JASA 1927). A rare class that is always missed is wanted more than a frequent one that
    seldom is, whatever their numbers; a single odd failure is hardly wanted.

    Args:
        outcomes: all of the mined images, those found too.
    """
    sizes = Counter(o.category for o in outcomes)
    counts = Counter((f.group, f.outcome.category) for f in failures)
    wanted: dict[str, float] = defaultdict(float)
    for (group, category), count in counts.items():
        share = binomtest(count, max(sizes[category], count))
        wanted[group] += float(share.proportion_ci(method="wilson").low)
    return dict(wanted)


def in_turn(weights: Mapping[str, float]) -> Iterator[str]:
    """Names for ever, each as often as its weight says, as evenly as can be (smooth weighted round robin)."""
    total = sum(weights.values())
    credit = dict.fromkeys(sorted(weights), 0.0)
    while True:
        for name in credit:
            credit[name] += weights[name] / total
        name = max(credit, key=lambda name: (round(credit[name], 9), name))
        credit[name] -= 1
        yield name


def mined_failures(store: Store, config: SynthesizeConfig, current: Current) -> list[Failure]:
    """The failures that `config` names, with the masks of what is blamed for them.

    Raises:
        InputError: no failure matches, or all of them look like label errors.
    """
    outcomes = FailureSelector.parse(config.failures).among(current.outcomes)
    if not outcomes:
        raise InputError(
            f"synthesize: no failure matches {config.failures!r}; `curator diagnose` finds and lists them"
        )
    outcomes = without_suspects(store, current, outcomes, keep=False, stage="synthesize").failures
    images = {i.id: i for i in store.images(reader="synthesize", ids=sorted({o.image_id for o in outcomes}))}
    groups = {i: group.name for group in group_outcomes(current.outcomes) for i in group.outcome_ids}
    masks = _masks(store, outcomes, images, current)
    labels = store.annotations(sorted(images), reader="synthesize")
    outlines = {a.id: a.polygon for found in labels.values() for a in found.annotations}

    def neighbours(o: Outcome) -> tuple[NewAnnotation, ...]:
        known = labels[o.image_id].annotations if o.image_id in labels else ()
        return tuple(_new(a) for a in known if a.id != o.annotation_id)

    nothing: tuple[bytes | None, str] = (None, "")
    return [
        Failure(
            outcome=o,
            group=groups[cast(int, o.id)],
            image=images[o.image_id],
            blamed=masks.get(cast(int, o.id), nothing)[0],
            blamed_key=masks.get(cast(int, o.id), nothing)[1],
            polygon=outlines.get(o.annotation_id) if o.annotation_id is not None else None,
            neighbours=neighbours(o),
            labels_key=labels[o.image_id].key if o.image_id in labels else "",
        )
        for o in outcomes
    ]


def _masks(
    store: Store, outcomes: Sequence[Outcome], images: dict[int, ImageRecord], current: Current
) -> dict[int, tuple[bytes, str]]:
    """Per explained outcome the union of its culprit regions in the stored image, packed, and their key."""
    blamed = culprits(store, current)
    known = [o for o in outcomes if o.id in blamed]
    pins = {
        i: found.pin
        for i, found in store.detections(
            current.model.id, sorted({o.image_id for o in known}), config_key=current.detections_key
        ).items()
    }
    masks: dict[int, tuple[bytes, str]] = {}
    labels_id, labels = -1, np.zeros((1, 1), np.uint16)
    for outcome in known:  # by image, whose segments serve all its outcomes
        number = cast(int, outcome.id)
        culprit = blamed[number]
        if culprit.segmentation_id != labels_id:
            labels_id = culprit.segmentation_id
            labels = store.segmentation(labels_id).labels
        if outcome.image_id in pins:
            mask = culprit.mask(labels, images[outcome.image_id], pins[outcome.image_id])
            masks[number] = np.packbits(mask).tobytes(), culprit.key
    return masks


def labelled_scenes(store: Store, config: SynthesizeConfig) -> list[SceneImage]:
    """Human-labelled images of the training set and of the selection.

    Raises:
        InputError: there are none.
    """
    ids = set(store.image_ids(role="train"))
    if config.selection is not None:
        ids |= set(store.selection(config.selection).image_ids)
    scenes = labelled(store, ids)
    if not scenes:
        raise InputError(
            "synthesize: expected labelled images to paint on, got none; add a training set "
            "(curator add coco PATH --role train) or name a --selection with labels"
        )
    return scenes


def labelled(store: Store, ids: Collection[int]) -> list[SceneImage]:
    """Those of the images that people labelled, with their labels."""
    scenes = []
    ordered = sorted(ids)
    for start in range(0, len(ordered), 1000):
        part = ordered[start : start + 1000]
        labels = store.annotations(part, reader="synthesize")
        for image in store.images(reader="synthesize", ids=part):
            found = labels.get(image.id)
            if found is not None and found.status == "human":
                scenes.append(
                    SceneImage(
                        image,
                        tuple(_new(a) for a in found.annotations),
                        found.key,
                    )
                )
    return scenes


def _new(a: Annotation) -> NewAnnotation:
    return NewAnnotation(
        category=a.category, box=a.box, crowd=a.crowd, difficult=a.difficult, polygon=a.polygon
    )
