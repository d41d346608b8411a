"""Groups: failures that look, lie and are seen alike, with a name that a person understands.

In: failures with the vectors of their boxes, the successes beside them, what the mined images offer. Out:
`Grouped`: groups with names, exemplars and counts. Which failures have a common cause, nobody says; they are
clustered by what the model and the box say, each number relative to the successes of the failure's class:

    vectors    components of the object and context views, less the mean of the class's successes, so that
               the class itself (which every cause can meet) does not make the groups
    size       logarithm of the box's side, in the successes' deviations; counts `SIZE` times
    evidence   log-odds of the own class and of the best other class that the detector offers there, by 3

The features' first principal components are fitted by mixtures of K Gaussians with diagonal covariance, each
started from Ward's K clusters (Fraley and Raftery, JASA 2002), K = 1, 2, ... Of the K whose groups come back
in other samples of the failures (mean adjusted Rand index between pairs of subsamples at least `STABLE`;
Ben-Hur, Elisseeff and Guyon 2002) that with the smallest integrated completed likelihood is taken (Biernacki,
Celeux and Govaert, PAMI 2000): BIC that also asks for groups which do not overlap,

    ICL(K) = -2 log L + p(K) log n + 2 sum_i sum_k -t_ik log t_ik,   t_ik the probability of group k

A smaller K within `DECISIVE` of it is preferred: more groups need very strong evidence (Raftery 1995).
Misses, false positives on background and those at an object are never in one group. Culprit regions are not
among the features: on one rendering of the example, with wider vectors, they made the groups worse; that was
a look, not a benchmark. `COMPONENTS`, `STABLE`, `SIZE` and `EVIDENCE` were set on three renderings of the
example and on no photographs; benchmarks/query_groups.py draws others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curator.query.asked import KINDS, Kind, Mined, overlaps
from curator.query.evidence import log_odds
from curator.query.group_names import Facts, named
from store.records import Ints, Outcome

Array = NDArray[np.float64]

COMPONENTS = 12  # principal components of the features
MOST = 12  # groups of a kind
FEWEST = 5  # failures a group, on average
SAMPLE = 2000  # failures that mixtures are fitted to; the others are given to the likeliest group
SIZE, EVIDENCE = 2.0, 1 / 3  # weights of these features
FLOOR = 0.05  # least variance of a feature in a group
SEEN = 0.4  # IoU from which a candidate says something about a box
STABLE = 0.85  # agreement of subsamples from which groups count as found
DECISIVE = 10.0  # difference of the criterion that is very strong evidence
PAIRS, SHARE = 6, 0.8  # of subsamples


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Failures of one group.

    Attributes:
        name: unique, e.g. "missed Car, small, not seen". kind: "FN" or "FP".
        outcome_ids: by falling likeness to the middle. exemplars: the first of them, on different images.
        told: plain JSON for people: classes, causes, what else was seen there, conditions, median side in
            pixels.
    """

    name: str
    kind: Kind
    outcome_ids: tuple[int, ...]
    exemplars: tuple[int, ...]
    told: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.outcome_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """All groups, by falling number of failures.

    Attributes:
        stability: what is clustered apart (e.g. "FN", "FP:background") -> mean adjusted Rand index between
            subsamples; 1 where there is one group.
        criterion: the same -> ICL by number of groups.
        silent: outcome ids without vectors, in no group.
    """

    groups: tuple[FailureGroup, ...]
    stability: Mapping[str, float]
    criterion: Mapping[str, Mapping[int, float]]
    silent: tuple[int, ...] = ()

    @property
    def place(self) -> dict[int, int]:
        """Outcome id -> place of its group."""
        return {i: g for g, group in enumerate(self.groups) for i in group.outcome_ids}


def group_failures(
    failures: Sequence[Outcome],
    mined: Mined,
    classes: Sequence[str],
    *,
    threshold: float,
    apart: Sequence[str] = ("kind",),
    views: Sequence[str] = ("object", "context"),
    looks: Mapping[int, Mapping[str, float]] | None = None,
    conditions: Mapping[int, str] | None = None,
    most: int = MOST,
    exemplars: int = 3,
    seed: int = 0,
) -> Grouped:
    """Cluster failures.

    Args:
        failures: stored outcomes; successes among them are left out.
        mined: what the mined images offer, and the boxes of all outcomes with vectors.
        classes: the detector's, in the data set's words. threshold: score from which a candidate counts.
        apart: what is clustered apart; kinds always are.
        views: those of `views` that the boxes have.
        looks: outcome id -> named measures of its pixels (`curator.query.looks`), for the names alone.
        conditions: outcome id -> what its image or object is tagged with, for the names alone.
        most: groups of what is clustered apart.
    """
    known = {int(i): row for row, i in enumerate(mined.outcomes.outcome_ids)}
    own = [o for o in failures if o.kind != "TP" and o.id in known]
    silent = tuple(o.id or 0 for o in failures if o.kind != "TP" and o.id not in known)
    right = [o for o in mined.known.values() if o.kind == "TP" and o.id in known]
    if not own:
        return Grouped(groups=(), stability={}, criterion={}, silent=silent)
    seen = _seen(own, mined, classes)
    features = _features(own, right, mined, known, views, seen)
    facts = Facts(failures=own, successes=right, seen=seen, threshold=threshold, mined=mined)
    found: list[tuple[NDArray[np.int64], Array]] = []
    stability, criterion = {}, {}
    for name, places in _apart(own, apart):
        points = principal(features[places], COMPONENTS)
        labels, criterion[name], stability[name] = clusters(points, most=most, seed=seed)
        for k in range(int(labels.max()) + 1):
            inside = np.flatnonzero(labels == k)
            distance = np.linalg.norm(points[inside] - points[inside].mean(0), axis=1)
            order = np.argsort(distance, kind="stable")
            found.append((places[inside[order]], distance[order]))
    found.sort(key=lambda part: (-len(part[0]), own[part[0][0]].id or 0))
    names, told = named([places for places, _ in found], facts, looks or {}, conditions or {})
    groups = tuple(
        FailureGroup(
            name=name,
            kind="FN" if own[places[0]].kind == "FN" else "FP",
            outcome_ids=tuple(own[i].id or 0 for i in places),
            exemplars=_exemplars([own[i] for i in places], exemplars),
            told=facts_told,
        )
        for name, facts_told, (places, _) in zip(names, told, found, strict=True)
    )
    return Grouped(groups=groups, stability=stability, criterion=criterion, silent=silent)


def _apart(own: Sequence[Outcome], apart: Sequence[str]) -> list[tuple[str, NDArray[np.int64]]]:
    """What is clustered apart, with places of its failures, by name."""
    parts: dict[str, list[int]] = {}
    for kind in KINDS:
        for place, outcome in enumerate(own):
            if outcome.kind != kind:
                continue
            where = {"FN": "", "FP": ":background" if outcome.cause == "background" else ":at an object"}[
                kind
            ]
            cause = f":{outcome.cause}" if "cause" in apart else where
            category = f" {outcome.category}" if "class" in apart else ""
            parts.setdefault(kind + cause + category, []).append(place)
    return [(name, np.array(places, np.int64)) for name, places in parts.items()]


def _exemplars(outcomes: Sequence[Outcome], count: int) -> tuple[int, ...]:
    first: dict[int, int] = {}
    for outcome in outcomes:
        first.setdefault(outcome.image_id, outcome.id or 0)
    return tuple(list(first.values())[:count])


# ---------------------------------------------------------------- features


def _seen(own: Sequence[Outcome], mined: Mined, classes: Sequence[str]) -> list[dict[str, float]]:
    """Per failure, the best score of every class that candidates on its place have."""
    rows = mined.offered
    seen: list[dict[str, float]] = [{} for _ in own]
    images = np.array([o.image_id for o in own], np.int64)
    boxes = np.array([o.box for o in own], np.float32).reshape(-1, 4)
    for place in range(len(own)):
        here = np.flatnonzero(rows.image_ids == images[place])
        here = here[rows.labels[here, 0] >= 0]
        near, _ = overlaps(rows.take(here), images[place : place + 1], boxes[place : place + 1])
        for row in here[near >= SEEN]:
            for label, score in zip(rows.labels[row], rows.scores[row], strict=True):
                if label >= 0:
                    name = classes[int(label)]
                    seen[place][name] = max(seen[place].get(name, 0.0), float(score))
    return seen


def _features(
    own: Sequence[Outcome],
    right: Sequence[Outcome],
    mined: Mined,
    known: Mapping[int, int],
    views: Sequence[str],
    seen: Sequence[Mapping[str, float]],
) -> Array:
    """Features (N, F) of failures."""
    rows = mined.outcomes
    here = np.array([known[o.id or 0] for o in own])
    there = np.array([known[o.id or 0] for o in right], np.int64)
    category = np.array([o.category for o in own])
    of_right = np.array([o.category for o in right])
    blocks: list[Array] = []
    for view in views:
        if view in rows.views:
            values = rows.components(view).astype(np.float64)
            blocks.append(_relative(values[here], values[there], category, of_right))
    side, of_successes = log_sides(own)[:, None], log_sides(right)[:, None]
    spread = of_successes.std() if len(right) > 1 else side.std()
    blocks.append(SIZE * _relative(side, of_successes, category, of_right) / max(float(spread), 1e-3))
    said = [
        (scores.get(o.category, 0.0), max((s for c, s in scores.items() if c != o.category), default=0.0))
        for o, scores in zip(own, seen, strict=True)
    ]
    blocks.append(EVIDENCE * log_odds(np.array(said)).astype(np.float64))
    return np.concatenate(blocks, axis=1)


def _relative(values: Array, right: Array, category: NDArray[Any], of_right: NDArray[Any]) -> Array:
    """Values (N, D) less the mean of the successes of the same class, or of all where it has fewer than 3."""
    result = values - (right.mean(0) if len(right) else 0.0)
    for name in np.unique(category):
        same = of_right == name
        if len(right) and same.sum() >= 3:
            result[category == name] = values[category == name] - right[same].mean(0)
    return np.asarray(result)


def log_sides(outcomes: Sequence[Outcome]) -> Array:
    """Logarithm (N,) of the geometric mean of a box's sides, pixels."""
    boxes = np.array([o.box for o in outcomes], np.float64).reshape(-1, 4)
    return np.asarray(0.5 * np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)).sum(1))


# ---------------------------------------------------------------- clusters


def principal(features: Array, components: int) -> Array:
    """Scores (N, C) on the first principal components, not rescaled."""
    centred = features - features.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ axes[:components].T)


def clusters(points: Array, *, most: int = MOST, seed: int = 0) -> tuple[Ints, dict[int, float], float]:
    """Cluster points (N, D).

    Returns:
        labels (N,) 0, 1, ... by falling size; the criterion (smaller is better) by number of groups; the
        stability of the number taken.
    """
    sample = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), SAMPLE)).astype(np.int64))]
    mixtures: dict[int, Any] = {}
    scores: dict[int, float] = {}
    for count in range(1, max(1, min(most, len(points) // FEWEST)) + 1):
        mixture = _mixture(sample, count)
        if mixture is not None:
            share = mixture.predict_proba(sample)
            entropy = -float((share * np.log(np.maximum(share, 1e-12))).sum())
            mixtures[count], scores[count] = mixture, float(mixture.bic(sample)) + 2 * entropy
    ranked = sorted(scores, key=lambda count: scores[count])
    agreed = {1: 1.0}
    best = next((k for k in ranked if _stable(agreed, sample, k, seed) >= STABLE), 1)
    fewer = [k for k in sorted(scores) if k <= best and scores[k] <= scores[best] + DECISIVE]
    taken = next((k for k in fewer if _stable(agreed, sample, k, seed) >= STABLE), best)
    if taken not in mixtures:
        return np.zeros(len(points), np.int64), scores, 1.0
    found, labels = np.unique(mixtures[taken].predict_proba(points).argmax(1), return_inverse=True)
    order = np.argsort(-np.bincount(labels, minlength=len(found)), kind="stable")
    return np.argsort(order)[labels].astype(np.int64), scores, agreed[taken]


def _stable(agreed: dict[int, float], points: Array, count: int, seed: int) -> float:
    if count not in agreed:
        agreed[count] = stable(points, count, seed=seed)
    return agreed[count]


def stable(points: Array, count: int, *, seed: int) -> float:
    """How well `count` groups of subsamples agree where both know a point: mean adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score

    if count < 2:
        return 1.0
    draw = np.random.default_rng(seed)
    size = int(SHARE * len(points))
    agreed = []
    for _ in range(PAIRS):
        both = [np.sort(draw.permutation(len(points))[:size]) for _ in range(2)]
        fitted = [_mixture(points[part], count) for part in both]
        shared = np.intersect1d(both[0], both[1])
        if len(shared) and all(mixture is not None for mixture in fitted):
            agreed.append(adjusted_rand_score(*(m.predict_proba(points[shared]).argmax(1) for m in fitted)))
    return float(np.mean(agreed)) if agreed else 0.0


def _mixture(points: Array, count: int) -> Any:
    """A mixture of `count` Gaussians started from Ward's clusters; None where it does not converge."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(points) < 2 or count > len(points):
        return None
    start = fcluster(linkage(points, "ward"), count, "maxclust") - 1
    count = int(start.max()) + 1
    overall = points.var(0)
    inside = [points[start == k] for k in range(count)]
    variances = [(len(own) * own.var(0) + 2 * overall) / (len(own) + 2) + FLOOR for own in inside]
    mixture = GaussianMixture(
        count,
        covariance_type="diag",
        reg_covar=FLOOR,
        weights_init=np.array([len(own) for own in inside]) / len(points),
        means_init=np.array([own.mean(0) for own in inside]),
        precisions_init=1 / np.array(variances),
        max_iter=500,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return mixture.fit(points)
        except ConvergenceWarning:
            return None
