"""What people say of hits, as something to learn from: an accepted hit is a failure of the asked kind at its
box, a rejected image shows none, an image labelled since shows what its diagnosis says.

In: `Mined`, `Feedback`, outcomes of labelled images. Out: `Mined` with these images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curator.boxes import iou
from curator.query.asked import Asked, Images, Mined, appended
from curator.query.predictor import POSITIVE
from store.records import BoxRows, Feedback, Hit, Outcome, TargetRecord

ACCEPTED, LABELLED = "accepted", "labelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is known of pool images.

    Attributes:
        feedback: of hits. labelled: image id -> outcomes of an image that has labels now.
    """

    feedback: tuple[Feedback, ...] = ()
    labelled: Mapping[int, Sequence[Outcome]]


def asks(asked: Asked, group: str) -> bool:
    """True where a group of hits ("FN Car/2") is of a question ("FN Car")."""
    name, slash, number = group.rpartition("/")
    return group == asked.name or (bool(slash) and name == asked.name and number.isdigit())


def unmarked(reason: str) -> str:
    """A hit's reason without what people said of it."""
    return reason.removeprefix(f"{ACCEPTED}: ").removeprefix(f"{LABELLED}: ").removeprefix(ACCEPTED)


def marked(hit: Hit, mark: str) -> Hit:
    """A hit whose reason says that it was accepted or labelled."""
    plain = unmarked(hit.reason)
    return replace(hit, reason=f"{mark}: {plain}" if plain else mark)


def taught(mined: Mined, offered: BoxRows, said: Said, questions: Sequence[Asked]) -> Mined:
    """The mined images together with those of which people said something.

    Args:
        mined: what was diagnosed. offered: what the images of `said` offer, complete by image.
        questions: what is asked now; feedback on hits of another question teaches nothing.
    """
    images = Images.of(offered.image_ids)
    place = {int(image): i for i, image in enumerate(images.ids)}
    known: dict[int, Outcome] = {}
    partly: dict[int, frozenset[str]] = {}

    def learn(outcome: Outcome) -> None:
        number = -2 - len(known)  # stored outcomes count from 1, and -1 is none
        known[number] = replace(outcome, id=number)

    for own in said.feedback:
        question = next((q for q in questions if asks(q, own.group)), None)
        if question is None or own.image_id not in place or own.image_id in said.labelled:
            continue
        partly[own.image_id] = frozenset() if own.accepted else frozenset({question.name})
        if own.accepted:
            learn(_failure(question, own))
    for image, outcomes in said.labelled.items():
        if image in place:
            for outcome in outcomes:
                learn(outcome)
    rows, ids = [], []
    for number, outcome in known.items():
        i = place[outcome.image_id]
        part = np.arange(images.starts[i], images.starts[i] + images.counts[i])
        overlap = iou(offered.boxes[part], np.array([outcome.box], np.float32))[:, 0]
        if overlap.max() >= POSITIVE:
            rows.append(int(part[overlap.argmax()]))
            ids.append(number)
    shown = offered.take(np.array(rows, np.int64))
    used = np.array(sorted({*partly, *(i for i in said.labelled if i in place)}), np.int64)
    return replace(
        mined,
        offered=appended(mined.offered, offered.take(np.isin(offered.image_ids, used))),
        image_ids=np.union1d(mined.image_ids, used),
        outcomes=appended(mined.outcomes, replace(shown, outcome_ids=np.array(ids, np.int64))),
        known={**mined.known, **known},
        partly=partly,
    )


def _failure(asked: Asked, own: Feedback) -> Outcome:
    """The failure that an accepted hit shows."""
    label = asked.labels[0] if asked.labels else 0
    return Outcome(
        image_id=own.image_id,
        model_id=0,
        kind=asked.kind,
        cause=asked.causes[0] if asked.causes else None,
        category=asked.categories[0],
        box=own.box,
        score=0.0,
        iou=0.0,
        target=TargetRecord(candidate=0, label=label, rule="best-iou", score=0.0, iou=0.0),
    )
