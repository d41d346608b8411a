"""`query --refine`: keep the hits that people accepted or labelled, drop those that they rejected, learn from
all of these, and fill the budget anew.

In: the stored selection, feedback on its hits (`curator feedback`), labels of chosen images. Out: a
`Refinement`. An image that was added to the training set by now teaches, and leaves the selection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curator.detect.run import DetectWork
from curator.diagnose.current import Current
from curator.diagnose.work import DiagnoseItem, DiagnoseWork
from curator.errors import InputError
from curator.matching import ClassMap
from curator.query.asked import Asked, Mined
from curator.query.feedback import Said, taught
from curator.query.run_indexed import IndexState
from curator.query.selection import Refusals
from curator.query.settings import QueryConfig
from store.errors import NotFoundError
from store.keys import content_key
from store.records import AnnotationSet, Feedback, Hit, ImageRecord, Outcome

if TYPE_CHECKING:
    from store.store import Store

ACCEPTED, LABELLED = "accepted", "labelled"
FLOOR = 0.05  # score from which detections of labelled images are judged, as `curator detect` stores them


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a refined query starts from.

    Attributes:
        feedback: of hits. labelled: chosen images that were labelled, with their labels.
        kept: hits that were accepted or labelled, best first.
        state: content key of all of it.
    """

    feedback: tuple[Feedback, ...]
    labelled: tuple[tuple[ImageRecord, AnnotationSet], ...]
    kept: tuple[Hit, ...]
    state: str

    @property
    def image_ids(self) -> list[int]:
        """All images of which something is known, ascending."""
        return sorted({*(own.image_id for own in self.feedback), *(image.id for image, _ in self.labelled)})

    @property
    def note(self) -> str:
        """A line for people."""
        yes = sum(own.accepted for own in self.feedback)
        no = len(self.feedback) - yes
        return f"learned from {yes} accepted, {no} rejected and {len(self.labelled)} labelled images"


def refinement(store: Store, config: QueryConfig, current: Current) -> Refinement:
    """What people said of the hits of the selection `config.name`.

    Raises:
        InputError: nothing yet, or accepted hits fill the budget.
    """
    said = store.feedback(config.name)
    try:
        hits = {hit.image_id: hit for hit in store.selection(config.name).hits}
    except NotFoundError:
        hits = {}
    train = set(store.image_ids(role="train"))
    judged = {own.image_id: own for own in said}
    leaks = store.leaks(sorted(hits))
    labelled = _labelled(store, sorted({*hits, *(judged.keys() & train)} - set(leaks)))
    if not said and not labelled:
        raise InputError(
            f"query: expected feedback on the hits of {config.name!r}, or labels of them, found none; say "
            f"first: curator feedback {config.name} --accept IDS --reject IDS"
        )
    known = {image.id for image, _ in labelled}
    kept = [
        _marked(hit, ACCEPTED if image in judged else LABELLED)
        for image, hit in hits.items()
        if (judged[image].accepted if image in judged else image in known) and image not in train
    ]
    # What was accepted before another query took this name.
    kept += [_hit(own) for own in said if own.accepted and own.image_id not in {*hits, *train}]
    if len(kept) >= config.budget:
        raise InputError(
            f"query: {len(kept)} accepted or labelled hits of {config.name!r} fill the budget of "
            f"{config.budget}; give a larger --budget"
        )
    return Refinement(
        feedback=tuple(said),
        labelled=tuple(labelled),
        kept=tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)),
        state=content_key(said, [(image.sha256, own.version, own.key) for image, own in labelled]),
    )


def refined(
    store: Store,
    config: QueryConfig,
    current: Current,
    index: IndexState,
    mined: Mined,
    found: Refinement,
    questions: Sequence[Asked],
) -> Mined:
    """The mined images with those of which people said something."""
    names = [category.name for category in store.categories()]
    classes = ClassMap.resolve(current.model.classes, names, dict(current.class_map))
    offered = store.boxes(index.space, "offered", image_ids=found.image_ids)
    shown = _diagnosed(current, classes, found.labelled, config.device)
    return taught(mined, offered, Said(feedback=found.feedback, labelled=shown), questions)


def known_already(store: Store, found: Refinement) -> list[Refusals]:
    """Refuses what nearly equals an image that people judged."""
    judged = found.image_ids

    def near(ids: Sequence[int]) -> Mapping[int, object]:
        return dict.fromkeys(store.near_duplicates(ids, judged), "nearly equals a hit that was judged")

    return [near]


def _marked(hit: Hit, mark: str) -> Hit:
    plain = hit.reason.removeprefix(f"{ACCEPTED}: ").removeprefix(f"{LABELLED}: ")
    return replace(hit, reason=f"{mark}: {plain}" if plain else mark)


def _hit(own: Feedback) -> Hit:
    return Hit(
        rank=0,
        image_id=own.image_id,
        outcome_id=None,
        group=own.group,
        box=own.box,
        score=0.0,
        reason=ACCEPTED,
    )


def _labelled(store: Store, ids: Sequence[int]) -> list[tuple[ImageRecord, AnnotationSet]]:
    """Those of the images that people labelled."""
    labels = {i: own for i, own in store.annotations(ids, reader="query").items() if own.status == "human"}
    return [(image, labels[image.id]) for image in store.images(reader="query", ids=sorted(labels))]


def _diagnosed(
    current: Current, classes: ClassMap, labelled: Sequence[tuple[ImageRecord, AnnotationSet]], device: str
) -> dict[int, Sequence[Outcome]]:
    """Outcomes of labelled images; one that cannot be read teaches nothing."""
    if not labelled:
        return {}
    model, criteria = current.model, current.criteria
    floor = min(FLOOR, criteria.score)
    detecting = DetectWork(model.spec, model.fingerprint, floor, chunk=8, batch_size=8)
    detector = detecting.setup(device)
    answers = detecting.process(detector, [image for image, _ in labelled])
    items = [
        DiagnoseItem(
            image=image,
            annotations=labels.annotations,
            annotation_key=labels.key,
            detections=answer.detections,
            pin=answer.pin,
            detection_key=detecting.key(image),
        )
        for (image, labels), answer in zip(labelled, answers, strict=True)
        if not isinstance(answer, Exception)
    ]
    judging = DiagnoseWork(model.spec, model.id, classes, criteria, detecting.config_key)
    found = judging.process(detector, items)
    return {
        item.image.id: outcomes
        for item, outcomes in zip(items, found, strict=True)
        if not isinstance(outcomes, Exception)
    }
