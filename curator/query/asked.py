"""What is asked, and what the mined images show of it.

In: outcomes and the boxes that mined images offer. Out: `Asked` (one kind of failure of one class) and
`Mined` (boxes with the failures and successes among them), which every ranking method learns from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from curator.boxes import iou
from store.records import BoxRows, Floats, Ints, Outcome

Kind = Literal["FN", "FP"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One kind of failure of one class: what one model is fitted for.

    Attributes:
        categories: the data set's class; several where each has too few failures to ask alone.
        labels: the detector's classes that mean them. threshold: score from which a candidate is a detection.
        causes: of the failures that ask; () asks for all.
    """

    kind: Kind
    categories: tuple[str, ...]
    labels: tuple[int, ...]
    threshold: float
    causes: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        """The class for people: "Car", "14 classes"."""
        return self.categories[0] if len(self.categories) == 1 else f"{len(self.categories)} classes"

    @property
    def name(self) -> str:
        """For people, and the name of its group of hits: "FN Car", "FN:miss Car"."""
        return f"{self.kind}{':' + self.causes[0] if len(self.causes) == 1 else ''} {self.category}"

    def matches(self, outcome: Outcome) -> bool:
        """True for the failures that it names."""
        return (
            outcome.kind == self.kind
            and outcome.category in self.categories
            and (not self.causes or outcome.cause in self.causes)
        )


def asked_of(
    failures: Sequence[Outcome],
    classes: Sequence[str],
    class_map: Mapping[str, str],
    threshold: float,
    *,
    fewest: int = 5,
    most: int = 12,
) -> list[Asked]:
    """What failures ask: one `Asked` per kind and class, by falling number.

    Classes with fewer than `fewest` failures of a kind, and those beyond the `most` most frequent, ask
    together.

    Args:
        failures: those asked for; other causes than theirs are not.
        classes: the detector's. class_map: detector class -> data-set class.
    """
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(classes):
        labels.setdefault(class_map.get(name, name), []).append(label)
    result = []
    for kind in KINDS:
        own = [outcome for outcome in failures if outcome.kind == kind]
        counts = Counter(outcome.category for outcome in own)
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        alone = [name for name in ranked if counts[name] >= fewest][:most]
        rest = [name for name in ranked if name not in alone]
        for names in [*([name] for name in alone), *([sorted(rest)] if rest else [])]:
            result.append(
                Asked(
                    kind=kind,
                    categories=tuple(names),
                    labels=tuple(sorted(label for name in names for label in labels.get(name, ()))),
                    threshold=threshold,
                    causes=tuple(sorted({o.cause for o in own if o.category in names and o.cause})),
                )
            )
    return result


@dataclass(frozen=True, kw_only=True)
class Mined:
    """The mined images: what they offer, and what is known of it.

    Attributes:
        offered: boxes that a pool image would offer too. image_ids: all mined images, also those that offer
            nothing.
        outcomes: boxes of failures and successes with vectors. culprits: regions that explanations blame,
            with `outcome_ids` of the failures.
        known: outcome id -> the outcome.
        units: image id -> what must not be torn apart by a split into folds (a video, say); an image alone
            where it is missing.
        partly: images of which only some failures are known (people's feedback) -> the questions, by
            `Asked.name`, for which their other boxes are known to show no such failure.
        listed: images whose labels do not speak of all classes -> those that they speak of.
    """

    offered: BoxRows
    image_ids: Ints
    outcomes: BoxRows
    culprits: BoxRows | None
    known: Mapping[int, Outcome]
    units: Mapping[int, str]
    partly: Mapping[int, frozenset[str]] = field(default_factory=dict)
    listed: Mapping[int, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def unit_names(self) -> list[str]:
        """The unit of each of `image_ids`."""
        return [self.units.get(int(i), f"image {i}") for i in self.image_ids]

    def only(self, image_ids: Ints) -> Mined:
        """What some of the images show."""
        kept = set(image_ids.tolist())
        blamed = self.culprits
        return Mined(
            offered=self.offered.take(np.isin(self.offered.image_ids, image_ids)),
            image_ids=self.image_ids[np.isin(self.image_ids, image_ids)],
            outcomes=self.outcomes.take(np.isin(self.outcomes.image_ids, image_ids)),
            culprits=None if blamed is None else blamed.take(np.isin(blamed.image_ids, image_ids)),
            known={i: outcome for i, outcome in self.known.items() if outcome.image_id in kept},
            units=self.units,
            partly=self.partly,
            listed=self.listed,
        )

    def silent(self, asked: Asked, image_ids: Ints) -> NDArray[np.bool_]:
        """(N,) True for rows of images whose boxes may show such failures that nobody has named."""
        silent = [image for image, names in self.partly.items() if asked.name not in names]
        return np.isin(image_ids, np.array(silent + self.unlisted(asked), np.int64))

    def unlisted(self, asked: Asked) -> list[int]:
        """Images whose labels do not speak of all the asked classes: what fails there is not known."""
        wanted = set(asked.categories)
        return [image for image, names in self.listed.items() if not wanted <= names]

    def asking(self, asked: Asked) -> BoxRows:
        """Boxes of the failures that ask."""
        return self.rows_of([i for i, outcome in self.known.items() if asked.matches(outcome)])

    def rows_of(self, outcome_ids: Sequence[int]) -> BoxRows:
        """Boxes of some outcomes."""
        return self.outcomes.take(np.isin(self.outcomes.outcome_ids, np.array(list(outcome_ids), np.int64)))

    @cached_property
    def outcome_kinds(self) -> NDArray[np.str_]:
        """Kind of each row of `outcomes`."""
        return np.array([self.known[int(i)].kind for i in self.outcomes.outcome_ids], dtype="U2")


def main_view(views: Iterable[str]) -> str:
    """The view of what lies in a box: "object", or the first."""
    known = list(views)
    return "object" if "object" in known else known[0]


@dataclass(frozen=True, slots=True)
class Images:
    """Which rows belong to which image.

    Attributes:
        ids: (M,) in order of appearance. starts, counts: (M,). places: (N,) place in `ids` of every row.
    """

    ids: Ints
    starts: Ints
    counts: Ints
    places: Ints

    @classmethod
    def of(cls, image_ids: Ints) -> Images:
        """Of adjacent rows."""
        if not len(image_ids):
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, nothing, nothing)
        starts = np.flatnonzero(np.concatenate([[True], image_ids[1:] != image_ids[:-1]]))
        counts = np.diff([*starts, len(image_ids)])
        return cls(
            image_ids[starts], starts, counts.astype(np.int64), np.repeat(np.arange(len(starts)), counts)
        )

    def sums(self, values: NDArray[np.floating]) -> Floats:
        """Sums over the rows (N,) of each image -> (M,)."""
        return np.asarray(np.bincount(self.places, weights=values, minlength=len(self.ids)))

    def best(self, values: NDArray[np.floating]) -> Ints:
        """The row of the highest value (N,) of each image -> (M,); the first of equals."""
        order = np.lexsort((np.arange(len(values)), -values, self.places))
        return np.asarray(order[self.starts])


def overlaps(rows: BoxRows, image_ids: Ints, boxes: Floats) -> tuple[Floats, Ints]:
    """Per row the best IoU with a box (K, 4) on the same image, and which of the K (-1: none overlaps)."""
    best, which = np.zeros(len(rows), np.float32), np.full(len(rows), -1, np.int64)
    images = Images.of(rows.image_ids)
    place = {int(image): i for i, image in enumerate(images.ids)}
    own: dict[int, list[int]] = {}
    for k, image in enumerate(image_ids):
        if int(image) in place:
            own.setdefault(place[int(image)], []).append(k)
    for i, members in own.items():
        part = slice(images.starts[i], images.starts[i] + images.counts[i])
        found = iou(rows.boxes[part], boxes[members])
        best[part] = found.max(1)
        which[part] = np.where(best[part] > 0, np.array(members)[found.argmax(1)], -1)
    return best, which


def joined(offered: BoxRows, own: BoxRows) -> BoxRows:
    """Offered boxes with others appended to their images as windows: rows of one image stay adjacent, the
    offered ones first. Rows of `own` on images that offer nothing are left out."""
    images = Images.of(offered.image_ids)
    order = np.argsort(images.ids, kind="stable")
    found = np.searchsorted(images.ids[order], own.image_ids)
    known = (found < len(order)) & (images.ids[order][np.minimum(found, len(order) - 1)] == own.image_ids)
    own, places = own.take(known), order[found[known]]
    both = np.concatenate([images.places, places])
    sort = np.argsort(both, kind="stable")

    def put(name: str) -> NDArray[Any]:
        return np.asarray(np.concatenate([getattr(offered, name), getattr(own, name)])[sort])

    fields = ("image_ids", "sizes", "boxes", "rows", "outcome_ids", "attribution_ids")
    spread = np.concatenate([offered.image_places, offered.image_places[images.starts[places]]])
    return BoxRows(
        **{name: put(name) for name in fields},
        labels=np.concatenate([offered.labels, np.full_like(own.labels, -1)])[sort],
        scores=np.concatenate([offered.scores, np.zeros_like(own.scores)])[sort],
        views={v: np.concatenate([offered.views[v], own.views[v]])[sort] for v in offered.views},
        image_views=offered.image_views,
        image_places=spread[sort],
    )


def appended(first: BoxRows, second: BoxRows) -> BoxRows:
    """The rows of both, one after the other; no image in both."""

    def both(name: str) -> NDArray[Any]:
        return np.asarray(np.concatenate([getattr(first, name), getattr(second, name)]))

    shift = len(next(iter(first.image_views.values()), ()))
    fields = ("image_ids", "sizes", "boxes", "rows", "labels", "scores", "outcome_ids", "attribution_ids")
    return BoxRows(
        **{name: both(name) for name in fields},
        views={v: np.concatenate([first.views[v], second.views[v]]) for v in first.views},
        image_views={
            v: np.concatenate([first.image_views[v], second.image_views[v]]) for v in first.image_views
        },
        image_places=np.concatenate([first.image_places, second.image_places + shift]),
    )
