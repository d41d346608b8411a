"""Names of groups of failures: what of their members differs from what is found.

In: groups of failures, the successes, what the detector offered, measures of pixels, tags. Out: one name per
group, "missed Car or Van, small, dark, seen as Truck (23)", and the counts behind it.

A word is used where a group differs from the successes of its classes (its median lies beyond their outer
tenth), or where most of its members share something; so every bound is the user's own data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import Mined
from curator.query.wording import decimal, place
from store.records import Outcome

CLASSES = 0.8  # share of the members that the classes in a name cover; two at most
MOST_OF = 0.6  # share of members that make a cause, a tag or a place the group's
OFTEN = 1 / 3  # share of members on which another class is seen
OUTER = 0.1  # of the successes on either side
FEWEST = 5  # successes to compare with
LOOKS = {  # measure -> words for less and for more
    "brightness": ("dark", "bright"),
    "contrast": ("pale", "contrasty"),
    "colour": ("colourless", "colourful"),
}
CAUSES = {
    "miss": "not seen",
    "under-threshold": "nearly seen",
    "mislocalised": "badly placed",
    "suppressed": "suppressed by a neighbour",
    "background": "on background",
    "localisation": "badly placed",
    "duplicate": "found twice",
    "both": "badly placed on another class",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What names are made from.

    Attributes:
        failures: (N,). seen: (N,) per failure the best score of every class that the detector offers there.
        threshold: score from which that is a detection.
    """

    failures: Sequence[Outcome]
    successes: Sequence[Outcome]
    seen: Sequence[Mapping[str, float]]
    threshold: float
    mined: Mined


def named(
    groups: Sequence[NDArray[np.int64]],
    facts: Facts,
    looks: Mapping[int, Mapping[str, float]],
    conditions: Mapping[int, str],
) -> tuple[list[str], list[dict[str, Any]]]:
    """Unique names, and what is told of each group.

    Args:
        groups: places of the members among the failures, each at least one.
        looks: outcome id (failures and successes) -> measure -> value. conditions: outcome id -> tag.
    """
    sizes = {
        int(image): size
        for image, size in zip(facts.mined.offered.image_ids, facts.mined.offered.sizes, strict=True)
    }
    names: list[str] = []
    told: list[dict[str, Any]] = []
    for places in groups:
        members = [facts.failures[i] for i in places]
        classes = Counter(o.category for o in members)
        of_classes = [o for o in facts.successes if o.category in classes]
        seen_as = _seen_as(members, [facts.seen[i] for i in places], facts.threshold)
        words = [
            *_size(members, of_classes),
            *_looks(members, of_classes, looks),
            *_where(members, of_classes, sizes),
            *_evidence(members, seen_as),
            *_condition(members, conditions),
        ]
        way = "missed" if members[0].kind == "FN" else "false"
        names.append(", ".join([f"{way} {_classes(classes)}", *words]))
        told.append(
            {
                "failures": len(members),
                "images": len({o.image_id for o in members}),
                "classes": dict(classes.most_common()),
                "causes": dict(Counter(o.cause for o in members if o.cause).most_common()),
                "seen_as": dict(seen_as.most_common()),
                "conditions": dict(
                    Counter(conditions[o.id or 0] for o in members if (o.id or 0) in conditions).most_common()
                ),
                "side": round(float(np.median(_sides(members))), 1),
                "score": round(float(np.median([o.score for o in members])), 3),
            }
        )
    return _unique(names), told


def _classes(counts: Counter[str]) -> str:
    total = counts.total()
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    for names in (ranked[:1], ranked[:2]):
        if sum(counts[name] for name in names) >= CLASSES * total:
            return " or ".join(names)
    return "objects"


def _sides(outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    boxes = np.array([o.box for o in outcomes], np.float64).reshape(-1, 4)
    return np.asarray(np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).prod(1)))


def _beyond(values: Sequence[float], usual: Sequence[float], words: tuple[str, str]) -> list[str]:
    """The word for less or more, where the median of `values` lies in an outer tenth of what is usual."""
    if len(usual) < FEWEST or not len(values):
        return []
    middle = float(np.median(values))
    low, high = np.quantile(usual, [OUTER, 1 - OUTER])
    return [words[0]] if middle < low else [words[1]] if middle > high else []


def _size(members: Sequence[Outcome], right: Sequence[Outcome]) -> list[str]:
    return _beyond(_sides(members).tolist(), _sides(right).tolist(), ("small", "large"))


def _looks(
    members: Sequence[Outcome], right: Sequence[Outcome], looks: Mapping[int, Mapping[str, float]]
) -> list[str]:
    words = []
    for measure, pair in LOOKS.items():
        own, usual = (
            [looks[o.id or 0][measure] for o in some if measure in looks.get(o.id or 0, {})]
            for some in (members, right)
        )
        words += _beyond(own, usual, pair)
    return words


def _where(
    members: Sequence[Outcome], right: Sequence[Outcome], sizes: Mapping[int, NDArray[np.int64]]
) -> list[str]:
    """ "cut by the border", or a third of the image, where most members lie there and few successes do."""

    def cut(outcome: Outcome) -> bool:
        height, width = sizes[outcome.image_id]
        x1, y1, x2, y2 = outcome.box
        return x1 <= 1 or y1 <= 1 or x2 >= width - 1 or y2 >= height - 1

    def third(outcome: Outcome) -> str:
        height, width = sizes[outcome.image_id]
        return place(outcome.box, (int(height), int(width)))

    own, usual = ([o for o in some if o.image_id in sizes] for some in (members, right))
    if not own:
        return []
    if np.mean([cut(o) for o in own]) >= MOST_OF > 2 * np.mean([cut(o) for o in usual] or [False]):
        return ["cut by the border"]
    where, count = Counter(third(o) for o in own).most_common(1)[0]
    if count / len(own) >= MOST_OF > 2 * np.mean([third(o) == where for o in usual] or [False]):
        return [where]
    return []


def _seen_as(
    members: Sequence[Outcome], seen: Sequence[Mapping[str, float]], threshold: float
) -> Counter[str]:
    """How often which other class is what the detector offers most on the member's place."""
    found: Counter[str] = Counter()
    for outcome, scores in zip(members, seen, strict=True):
        others = {name: score for name, score in scores.items() if name != outcome.category}
        best = max(others, key=lambda name: (others[name], name), default=None)
        own = scores.get(outcome.category, 0.0) if outcome.kind == "FN" else 0.0
        if best is not None and others[best] >= max(threshold / 2, own):
            found[best] += 1
    return found


def _evidence(members: Sequence[Outcome], seen_as: Counter[str]) -> list[str]:
    if seen_as and members[0].kind == "FN":
        name, count = seen_as.most_common(1)[0]
        if count >= OFTEN * len(members):
            return [f"seen as {name} ({count})"]
    cause, count = Counter(o.cause or "" for o in members).most_common(1)[0]
    if count < MOST_OF * len(members) or cause not in CAUSES:
        return []
    if cause == "under-threshold":
        return [f"{CAUSES[cause]} ({decimal(float(np.median([o.score for o in members])))})"]
    return [CAUSES[cause]]


def _condition(members: Sequence[Outcome], conditions: Mapping[int, str]) -> list[str]:
    tags = Counter(conditions[o.id or 0] for o in members if (o.id or 0) in conditions)
    if not tags:
        return []
    name, count = tags.most_common(1)[0]
    return [name] if count >= MOST_OF * len(members) else []


def _unique(names: Sequence[str]) -> list[str]:
    """Names with numbers where equal ones would meet."""
    total, met = Counter(names), Counter[str]()
    result = []
    for name in names:
        met[name] += 1
        result.append(name if total[name] == 1 else f"{name} ({met[name]})")
    return result
