"""`query --refine`: keep the hits that people accepted or labelled, drop those that they rejected, learn from
all of these, and fill the budget anew.

In: the stored selection, feedback on its hits (`curator feedback`), labels of chosen images. Out: a
`Refinement`. An image that was added to the training set by now teaches, and leaves the selection.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curator.detect.load import load_known
from curator.detect.run import DetectWork
from curator.detect.settings import DetectConfig
from curator.diagnose.current import Current
from curator.diagnose.work import DiagnoseItem, DiagnoseWork
from curator.errors import InputError
from curator.matching import ClassMap
from curator.query.asked import Asked, Mined
from curator.query.feedback import ACCEPTED, LABELLED, Said, asks, marked, taught
from curator.query.run_answers import Question
from curator.query.run_indexed import IndexState, listed_apart
from curator.query.selection import Refusals
from curator.query.settings import QueryConfig
from store.errors import NotFoundError
from store.keys import content_key
from store.records import AnnotationSet, Feedback, Hit, ImageRecord, Outcome

if TYPE_CHECKING:
    from store.store import Store



@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a refined query starts from.

    Attributes:
        feedback: of hits that have no labels. labelled: judged or chosen images with their labels, which say
            more. replaced: how many of these were judged too.
        kept: hits that were accepted or labelled, best first.
        judged: all images of which something was said; none of them answers again.
        warnings: for people. state: content key of all of it.
    """

    feedback: tuple[Feedback, ...]
    labelled: tuple[tuple[ImageRecord, AnnotationSet], ...]
    replaced: int
    kept: tuple[Hit, ...]
    judged: tuple[int, ...]
    warnings: tuple[str, ...]
    state: str

    def note(self, method: str, questions: Sequence[Question]) -> str:
        """A line for people: what a method learned from."""
        if not any(getattr(question.scorer, "learns", True) for question in questions):
            return f"{method} learns nothing: accepted and labelled hits are kept, rejected ones stay out"
        asked = [question.asked for question in questions]
        own = [said for said in self.feedback if any(asks(one, said.group) for one in asked)]
        yes, others = sum(said.accepted for said in own), len(self.feedback) - len(own)
        also = f"; {others} judged for other failures teach nothing here" if others else ""
        learned = f"{yes} accepted, {len(own) - yes} rejected and {len(self.labelled)} labelled images"
        if self.replaced:
            many = self.replaced > 1
            also += (
                f"; the labels of {self.replaced} chosen image{'s' * many} replace what was said of "
                f"{'them' if many else 'it'}"
            )
        return f"learned from {learned}{also}"


def refinement(store: Store, config: QueryConfig) -> Refinement:
    """What people said of the hits of the selection `config.name`.

    Raises:
        InputError: nothing yet, or accepted hits fill the budget. NotFoundError: no such selection.
    """
    said = {own.image_id: own for own in store.feedback(config.name)}
    hits: dict[int, Hit] = {}
    before: list[int] = []
    try:
        selection = store.selection(config.name)
        hits = {hit.image_id: hit for hit in selection.hits}
        before = selection.config.get("labelled") or []
    except NotFoundError:
        if not said:
            raise
    judged = sorted({*hits, *said, *before})
    leaks, train = store.leaks(judged), set(store.image_ids(role="train"))
    labelled = _labelled(store, [image for image in judged if image not in leaks])
    if not said and not labelled:
        raise InputError(
            f"query: expected feedback on the hits of {config.name!r}, or labels of them, found none; say "
            f"first: curator feedback {shlex.quote(config.name)} --accept IDS --reject IDS"
        )
    known = {image.id for image, _ in labelled}
    wanted = [i for i in hits if (said[i].accepted if i in said else i in known)]
    wanted += [i for i, own in said.items() if own.accepted and i not in hits]
    kept = [
        marked(hits.get(image) or _hit(said[image]), ACCEPTED if image in said else LABELLED)
        for image in wanted
        if image not in train and image not in leaks
    ]
    warnings = [
        f"{len(images)} accepted or labelled images leave the selection: {why}"
        for images, why in (
            ([i for i in wanted if i in train and i not in leaks], "the training set has them now"),
            ([i for i in wanted if i in leaks], "they equal mined or holdout images now, or nearly"),
        )
        if images
    ]
    if len(kept) >= config.budget:
        raise InputError(
            f"query: {len(kept)} accepted or labelled hits of {config.name!r} fill the budget of "
            f"{config.budget}; give a larger --budget"
        )
    return Refinement(
        feedback=tuple(own for i, own in said.items() if i not in known and i not in leaks),
        labelled=tuple(labelled),
        replaced=len(known & said.keys()),
        kept=tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)),
        judged=tuple(sorted({*said, *known})),
        warnings=tuple(warnings),
        state=content_key(
            list(said.values()),
            [
                (image.sha256, own.version, own.key, *([] if own.classes is None else sorted(own.classes)))
                for image, own in labelled
            ],
            sorted(leaks),
            sorted(set(judged) & train),
        ),
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
    images = {*(own.image_id for own in found.feedback), *(image.id for image, _ in found.labelled)}
    offered = store.boxes(index.space, "offered", image_ids=sorted(images))
    shown = _diagnosed(current, classes, found.labelled, config.device)
    listed = listed_apart(current, (labels for _, labels in found.labelled))
    mined = replace(mined, listed={**mined.listed, **listed})
    return taught(mined, offered, Said(feedback=found.feedback, labelled=shown), questions)


def known_already(store: Store, found: Refinement) -> list[Refusals]:
    """Refuses what nearly equals an image that people judged."""
    judged = found.judged

    def near(ids: Sequence[int]) -> Mapping[int, object]:
        return dict.fromkeys(store.near_duplicates(ids, judged), "nearly equals a hit that was judged")

    return [near]


def _hit(own: Feedback) -> Hit:
    return Hit(
        rank=0,
        image_id=own.image_id,
        outcome_id=None,
        group=own.group,
        box=own.box,
        score=0.0,
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
    floor = min(DetectConfig.score_floor, criteria.score)
    detecting = DetectWork(model.spec, model.fingerprint, floor, chunk=8, batch_size=8)
    detector = load_known(model, device)
    answers = detecting.process(detector, [image for image, _ in labelled])
    items = [
        DiagnoseItem(
            image=image,
            annotations=labels.annotations,
            annotation_key=labels.key,
            labelled=labels.classes,
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
