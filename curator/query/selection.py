"""From expected failures to a selection: a budget, spent where it brings most, evenly over groups if wanted.

In: per pool image the failures that a predictor expects there, by group, and the objects that its annotator
would have to draw. Out: `Choice`: the images taken, in order, with warnings; `as_hits` tells why in words.

Greedy maximisation of a concave utility of what the chosen images S are expected to hold:

    F(S) = sum_g w_g u(x_g),   x_g = sum_{i in S} e_ig,   u(x) = s/d log(1 + d x / s),   u(x) = x for d = 0

    symbol   code       meaning
    e_ig     expected   failures of group g that image i is expected to hold
    w_g      weights    what a group counts
    s        scale      what each group would hold, were the plain ranking's yield shared evenly
    d        strength   of diversity: at d = 1 a group that holds s counts half for its next failure

The logarithm, not a root: where groups compete for a budget, the maximum of sum w log x gives each the share
w of it, whatever its yield (proportional fairness: Kelly, Maulloo and Tan 1998), so that a rare cause is not
starved by a frequent one; the 1 keeps a group that the pool does not hold from asking for everything. F is
monotone and submodular: greedy reaches 1 - 1/e of the best (Nemhauser, Wolsey and Fisher 1978), and a gain
computed earlier bounds a gain now, so that only a block of the best images is computed anew at every step
(Minoux 1978). With one group, or d = 0, greedy is the plain ranking. A budget of boxes is spent by gain per
box (Leskovec et al., KDD 2007).

Deterministic: ties go to the smaller image id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError
from curator.query.wording import Shown, reason
from store.records import BoxRows, Hit, Ints

Array = NDArray[np.float64]
BLOCK = 1024  # images whose gains are computed anew at every step
CHECKED = 256  # images asked about leaks at a time

Refusals = Callable[[Sequence[int]], Mapping[int, object]]
"""Those of the image ids that must not be selected, each with the reason in words."""
Duplicates = Callable[[Sequence[int], Sequence[int]], Mapping[int, int]]
"""(image ids, among) -> for each that nearly equals one of `among`, that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the pool answers; row i of every array is image i.

    Attributes:
        groups: names of the G groups that ask.
        image_ids: (M,). expected: (M, G) failures of each group that it is expected to hold, 0 or more.
        objects: (M,) boxes that its annotator is expected to draw, at least 1 (`expected_objects`); None: 1.
    """

    groups: tuple[str, ...]
    image_ids: Ints
    expected: NDArray[np.floating]
    objects: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.image_ids), len(self.groups))
        if self.expected.shape != shape:
            raise ValueError(f"expected failures {shape} of images and groups, got {self.expected.shape}")
        if not (np.isfinite(self.expected).all() and (self.expected >= 0).all()):
            raise ValueError("expected failures that are finite and 0 or more, got others")
        if self.objects is not None and self.objects.shape != shape[:1]:
            raise ValueError(f"expected objects {shape[:1]}, got {self.objects.shape}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """An image that was taken.

    Attributes:
        group: that which it was taken for: of its quota, else the one that gains most.
        expected: failures of all groups together. objects: boxes to draw.
    """

    image_id: int
    group: str
    expected: float
    objects: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was taken, in order.

    Attributes:
        held: per group, the failures that all of it is expected to hold.
        warnings: for people. refused: reason -> number of images that would have been taken but for it.
    """

    picks: tuple[Pick, ...]
    held: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)


def expected_objects(rows: BoxRows, score_threshold: float) -> tuple[Ints, Array]:
    """What labelling costs: (image ids (M,), candidates at or above the detector's threshold (M,), at least
    1)."""
    images, place = np.unique(rows.image_ids, return_inverse=True)
    seen = (rows.labels[:, 0] >= 0) & (rows.scores[:, 0] >= score_threshold)
    return images, np.maximum(np.bincount(place, weights=seen, minlength=len(images)), 1.0)


def nearer_to(
    image_ids: Ints, vectors: NDArray[np.floating], unlike: NDArray[np.floating], like: NDArray[np.floating]
) -> dict[int, str]:
    """Images to pass over, "not like these": the box that answers for them is nearer, by cosine, to one of
    `unlike` than to any of `like`.

    Args:
        image_ids: (M,). vectors: (M, D) of the box that answers.
        unlike: (U, D) of what is not wanted. like: (F, D) of the failures.
    """

    def best(examples: NDArray[np.floating]) -> Array:
        if not len(examples):
            return np.full(len(vectors), -np.inf)
        length = np.maximum(np.linalg.norm(examples, axis=1), 1e-12)
        return np.asarray((vectors @ (examples / length[:, None]).T).max(1), dtype=np.float64)

    refused = image_ids[best(unlike) > best(like)]
    return {int(i): "like what is not wanted" for i in refused}


def choose(
    answers: Answers,
    *,
    budget: int | None = None,
    budget_boxes: float | None = None,
    weights: Mapping[str, float] | None = None,
    strength: float = 1.0,
    quota: Mapping[str, int] | None = None,
    refusals: Sequence[Refusals] = (),
    duplicates: Duplicates = lambda ids, among: {},
) -> Choice:
    """Take images.

    Args:
        budget: number of images. budget_boxes: objects that these may hold together. One of them at least.
        weights: per group, what it counts; default 1.
        strength: of diversity over groups, 0 or more; 0 is the plain ranking.
        quota: per group, images that are taken for it first, by its own ranking, while the pool answers: with
            more than the pool's mean of this group.
        refusals: ids of images that must not be taken (leaks, what is in the training set, what is like what
            is not wanted), asked about those images only that would be.
        duplicates: tells near-duplicates of those taken.
    Raises:
        InputError: no budget, a negative strength, or a quota of an unknown group.
    """
    if (budget is None and budget_boxes is None) or (
        min(1 if budget is None else budget, 1 if budget_boxes is None else budget_boxes) < 1
    ):
        raise InputError(
            f"query: expected a budget of 1 image or box at least, got {budget} images and {budget_boxes} "
            "boxes; give --budget or --budget-boxes"
        )
    if strength < 0:
        raise InputError(f"query: expected a diversity of 0 or more, got {strength}")
    unknown = sorted({*(quota or {}), *(weights or {})} - set(answers.groups))
    if unknown:
        raise InputError(
            f"query: expected quotas and weights of the groups {', '.join(answers.groups)}, "
            f"got {', '.join(unknown)}"
        )
    greedy = _Greedy(
        answers,
        images=len(answers.image_ids) if budget is None else budget,
        boxes=budget_boxes,
        weights=np.array([(weights or {}).get(name, 1.0) for name in answers.groups]),
        strength=strength if len(answers.groups) > 1 else 0.0,
        refusals=refusals,
        duplicates=duplicates,
    )
    short = greedy.spend_quota(quota or {})
    greedy.spend()
    warnings = [
        f"quota: {wanted} images of {name} wanted, {got} taken ({why})" for name, wanted, got, why in short
    ]
    if budget is not None and len(greedy.picks) < budget and (budget_boxes is None or not greedy.full):
        warnings.append(f"the pool answered with {len(greedy.picks)} images where {budget} were asked for")
    if budget is None and greedy.left is not None and not greedy.full:
        spent = (budget_boxes or 0.0) - greedy.left
        warnings.append(f"the pool answered with {spent:.0f} objects where {budget_boxes:.0f} were asked for")
    if greedy.refused:
        why = "; ".join(f"{count}: {said}" for said, count in sorted(greedy.refused.items()))
        warnings.append(f"{greedy.refused.total()} answers refused ({why})")
    if greedy.passed:
        warnings.append(f"{greedy.passed} near-duplicates of chosen images passed over")
    return Choice(
        picks=tuple(greedy.picks),
        held=dict(zip(answers.groups, greedy.held.tolist(), strict=True)),
        warnings=tuple(warnings),
        refused=dict(greedy.refused),
    )


def as_hits(choice: Choice, shown: Mapping[int, Shown]) -> tuple[Hit, ...]:
    """Hits in the order of choice.

    Args:
        shown: image id -> what of the image says why.
    """
    return tuple(_hit(rank, pick, shown[pick.image_id]) for rank, pick in enumerate(choice.picks, start=1))


def _hit(rank: int, pick: Pick, shown: Shown) -> Hit:
    return Hit(
        rank=rank,
        image_id=pick.image_id,
        outcome_id=shown.outcome_id,
        group=pick.group,
        box=shown.box,
        score=pick.expected if shown.score is None else shown.score,
        reason=reason(pick.expected, shown),
    )


class _Greedy:
    """A budget as it is spent.

    Attributes:
        held: (G,) x, what the images taken hold. left: boxes left, None without such a budget.
        refused: reasons and how often. passed: near-duplicates passed over.
        full: True once an image did not fit into what was left of the boxes.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        images: int,
        boxes: float | None,
        weights: Array,
        strength: float,
        refusals: Sequence[Refusals],
        duplicates: Duplicates,
    ) -> None:
        order = np.argsort(answers.image_ids, kind="stable")
        self.groups = answers.groups
        self.ids = answers.image_ids[order]
        self.expected = np.asarray(answers.expected, np.float64)[order]
        counted = np.ones(len(order)) if answers.objects is None else answers.objects[order]
        self.objects = np.maximum(np.asarray(counted, np.float64), 1.0)
        self.cost = np.ones(len(order)) if boxes is None else self.objects
        self.images, self.left = images, boxes
        self.weights, self.strength = weights, strength
        self.refusals, self.duplicates = refusals, duplicates
        self.alive = self.expected.sum(1) > 0
        self.held = np.zeros(len(self.groups))
        self.scale = 1.0
        self.scale = self._even_share()
        self.picks: list[Pick] = []
        self.taken: list[int] = []
        self.refused: Counter[str] = Counter()
        self.passed = 0
        self.full = False
        self._known: dict[int, str] = {}
        self._checked = np.zeros(len(order), bool)

    def _even_share(self) -> float:
        plain = (self.expected @ self.weights) / self.cost
        best = np.argsort(-plain, kind="stable")[: self.images]
        if self.left is not None:
            best = best[np.cumsum(self.cost[best]) <= self.left]
        return max(float(self.expected[best].sum() / max(len(self.groups), 1)), 1e-12)

    def _parts(self, rows: NDArray[np.int64]) -> Array:
        """Gains (n, G) by group of images, w_g (u(x_g + e) - u(x_g))."""
        own = self.expected[rows]
        if not self.strength:
            return np.asarray(own * self.weights)
        reach = self.scale / self.strength
        return np.asarray(np.log1p(own / (reach + self.held)) * reach * self.weights)

    def _gains(self, rows: NDArray[np.int64]) -> Array:
        """Gains (n,) per image, or per box where boxes are what is spent."""
        return np.asarray(self._parts(rows).sum(1) / self.cost[rows])

    @property
    def _open(self) -> bool:
        return len(self.picks) < self.images

    def _usable(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `rows` that are neither taken nor refused and fit into what is left of the boxes."""
        rows = rows[self.alive[rows]]
        if self.left is None:
            return rows
        fits = self.cost[rows] <= self.left
        self.full |= not fits.all()
        return np.asarray(rows[fits])

    def spend(self) -> None:
        """Take the best until the budget is spent or no image answers."""
        bounds = self._gains(np.arange(len(self.ids)))
        order = np.argsort(-bounds, kind="stable")
        seen = 4 * BLOCK  # images whose gains are computed anew: none behind them can come near the best
        while self._open:
            rows = self._usable(order[:seen])
            gains = self._gains(rows)
            rest = bounds[order[seen]] if seen < len(order) else -np.inf
            best = np.argsort(-gains, kind="stable")
            last = gains[best[BLOCK]] if len(best) > BLOCK else -np.inf
            if rest > last:
                seen *= 2
            elif not len(rows):
                return
            else:
                self._spend_block(np.sort(rows[best[:BLOCK]]), float(last))

    def _spend_block(self, block: NDArray[np.int64], bound: float) -> None:
        """Take from a block as long as its best is not below `bound`, the most that any other may gain."""
        first = True
        while self._open:
            block = self._usable(block)
            gains = self._gains(block)
            if not len(block) or (gains.max() < bound and not first):
                return  # compute all gains anew
            first = False
            row = int(block[np.argmax(gains)])
            if not self._checked[row]:
                self._check(block[np.argsort(-gains, kind="stable")])
            self._take(row, self.groups[int(np.argmax(self._parts(np.array([row]))[0]))])

    def spend_quota(self, quota: Mapping[str, int]) -> list[tuple[str, int, int, str]]:
        """Take for each group in rounds what its quota asks for, until its ranking falls to the pool's mean.

        Returns:
            (group, wanted, taken, why) of quotas that were not reached.
        """
        columns = [(name, self.groups.index(name)) for name in self.groups if quota.get(name, 0) > 0]
        means = self.expected.mean(0) if len(self.expected) else np.zeros(len(self.groups))
        got: Counter[str] = Counter()
        dry: set[str] = set()
        while self._open and (waiting := [c for c in columns if got[c[0]] < quota[c[0]] and c[0] not in dry]):
            for name, g in waiting:
                while self._open:
                    rows = self._usable(np.flatnonzero(self.expected[:, g] > means[g]))
                    if not len(rows):
                        dry.add(name)
                        break
                    own = self.expected[rows, g] / self.cost[rows]
                    row = int(rows[np.argmax(own)])
                    if not self._checked[row]:
                        self._check(rows[np.argsort(-own, kind="stable")])
                    if self._take(row, name):
                        got[name] += 1
                        break
        why = {
            name: "the pool answers with no more" if name in dry else "budget spent" for name, _ in columns
        }
        return [(name, quota[name], got[name], why[name]) for name, _ in columns if got[name] < quota[name]]

    def _check(self, rows: NDArray[np.int64]) -> None:
        """Ask about the next images, of those in `rows` that were not asked about yet."""
        asked = rows[~self._checked[rows]][:CHECKED]
        self._checked[asked] = True
        ids = sorted(int(i) for i in self.ids[asked])
        for refusal in self.refusals:
            for image, said in refusal(ids).items():
                self._known.setdefault(image, str(said))

    def _take(self, row: int, group: str) -> bool:
        """Take an image unless something speaks against it."""
        image = int(self.ids[row])
        self.alive[row] = False
        if image in self._known:
            self.refused[self._known[image]] += 1
        elif self.taken and self.duplicates([image], sorted(self.taken)):
            self.passed += 1
        else:
            self.taken.append(image)
            self.held = self.held + self.expected[row]
            if self.left is not None:
                self.left -= float(self.cost[row])
            self.picks.append(
                Pick(
                    image_id=image,
                    group=group,
                    expected=float(self.expected[row].sum()),
                    objects=float(self.objects[row]),
                )
            )
            return True
        return False
