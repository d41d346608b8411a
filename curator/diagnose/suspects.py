"""Which labels are more likely wrong than the detector: a probability for each label, and for each detection
without one.

In: `Looked` images. Out: `Judged` images. How:

    f_k(x)   evidence of labels that suffered mistake k, made on purpose in these images (`suspect_mistakes`)
    f(x)     evidence of the labels as they are
    r_k(x)   = f_k(x) / f(x), by penalised logistic regression of the first against the second on four fifths
             of the images, for the last fifth; scaled by one line over all of them (Platt, 1999), since the
             penalty keeps it too near to one
    odds     of mistake k at x = pi_k r_k(x)

This is learning from positive and unlabelled examples (Elkan and Noto, KDD 2008): f holds a share pi_k of
such mistakes already, and taking it for sound is the careful side: where nothing but mistakes looks like x,
f = pi_k f_k, and the odds would be even, were r_k exact.

pi_k is told by the user (`rate`), or bounded from the data: no more mistakes of kind k can be there than the
labels that look like one allow,

    pi_k  <=  min over t of  #{x: r_k(x) >= t} / (labels x share of made mistakes with r_k >= t)

(Blanchard, Lee and Scott, JMLR 11, 2010), as far as true mistakes are like those that are made here. Failures
that a detector makes for reasons of its own look like mistakes too, so the bounds are drawn to their median.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from curator.boxes import iou
from curator.diagnose.suspect_evidence import (
    LABEL_COLUMNS,
    MATCH,
    PLACE_COLUMNS,
    Evidence,
    Looked,
    Successes,
    evidence,
)
from curator.diagnose.suspect_mistakes import MISTAKES, Mistake, Mistaken, mistaken
from curator.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MISSING = MISTAKES[0]
OF_LABELS: tuple[Mistake, ...] = MISTAKES[1:]
FOLDS = 5
FLOOR = 0.1  # score of a detection that may show a missing label
MADE_RATE = 0.1  # share of labels that a mistake is made of in one draw
WANTED = 300  # mistakes of each kind that are made, at least
DRAWS = 30  # at most
FEWEST = 5  # made mistakes of a kind that can be learned from
MOST = 0.7  # quantile of the made mistakes up to which the bound looks: true ones are not all so plain
STRENGTH = 0.03  # inverse penalty of the models' weights
LOOSE = 1e3  # the same of the line that scales


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedImage:
    """What one image's labels are worth.

    Attributes:
        evidence: what it rests on. labels: (L, 4) probability of each kind of `OF_LABELS`, by
            `evidence.label_index`; sums to at most 1. places: (P,) probability that a label is missing there.
    """

    evidence: Evidence
    labels: Floats
    places: Floats

    @property
    def any(self) -> float:
        """Probability that something is wrong with the image's labels, were they independent."""
        sound = np.log1p(-np.minimum(self.labels.sum(1), 1 - 1e-9)).sum()
        sound += np.log1p(-np.minimum(self.places, 1 - 1e-9)).sum()
        return float(-np.expm1(sound))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All images, and what the judgement rests on.

    Attributes:
        rates: mistake -> share of the labels that are taken to suffer it. bounds: the upper bounds.
        made: mistake -> number made on purpose; kinds with too few are not judged.
    """

    images: tuple[JudgedImage, ...]
    rates: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)


@dataclass
class _Examples:
    """Evidence (n, F) with the image of each row, and how many mistakes stand behind it."""

    rows: Floats
    image: Ints
    tried: Ints  # image of every mistake of the kind that was made, seen or not


def judge(
    images: Sequence[Looked],
    classes: int,
    *,
    floor: float = FLOOR,
    rate: float | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Judged:
    """Judge every label and every unmatched detection of `floor` or more.

    Args:
        classes: K. rate: share of the labels that are wrong, None to bound it from the data.
        advance: called with the number of images that were looked at since the last call.
    Raises:
        InputError: there is no label, or the detector has no success: then nothing tells whose failure it is.
    """
    if all(image.result.truth.ignored.all() for image in images):
        raise InputError("suspects: expected labelled objects in the mined images, found none")
    known = Successes.of(images, classes)
    if not any(map(len, known.scores)):
        raise InputError(
            "suspects: the detector finds none of the labelled objects, so its failures say nothing of the "
            "labels; train it on such images first, or check the class map (curator diagnose --map)"
        )
    plain = []
    for image in images:
        plain.append(evidence(image, known, floor=floor))
        advance(1)
    examples = _made(images, classes, known, floor, seed)
    folds = np.array([_fold(image.name, seed) for image in images], np.int64)
    labels, of_label = _stacked([e.labels for e in plain])
    places, of_place = _stacked([e.places for e in plain])
    total = len(labels)
    ratios: dict[str, Floats] = {}
    bounds: dict[str, float] = {}
    for kind in MISTAKES:
        rows, owner = (places, of_place) if kind == MISSING else (labels, of_label)
        ratios[kind], own = _ratios(rows, owner, examples[kind], folds, total)
        bounds[kind] = _bound(ratios[kind], own, len(examples[kind].tried), total)
    rates = _rates(bounds, rate)
    odds = {kind: rates[kind] * ratios[kind] for kind in MISTAKES}
    of_kind = np.stack([odds[kind] for kind in OF_LABELS], axis=1)
    of_kind = of_kind / (1 + of_kind.sum(1, keepdims=True))  # a label suffers one mistake at most
    ends = np.arange(1, len(plain))
    kinds_of = np.split(of_kind, np.searchsorted(of_label, ends))  # rows come image by image
    places_of = np.split(odds[MISSING] / (1 + odds[MISSING]), np.searchsorted(of_place, ends))
    return Judged(
        images=tuple(
            JudgedImage(evidence=e, labels=kinds_of[i], places=places_of[i]) for i, e in enumerate(plain)
        ),
        rates=rates,
        bounds=bounds,
        made={kind: len(examples[kind].tried) for kind in MISTAKES},
    )


def _fold(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"fold/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % FOLDS


def _stacked(parts: Sequence[Floats]) -> tuple[Floats, Ints]:
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _made(
    images: Sequence[Looked], classes: int, known: Successes, floor: float, seed: int
) -> dict[str, _Examples]:
    """Evidence of mistakes made on purpose."""
    rows: dict[str, list[Floats]] = {kind: [] for kind in MISTAKES}
    owner: dict[str, list[int]] = {kind: [] for kind in MISTAKES}
    tried: dict[str, list[int]] = {kind: [] for kind in MISTAKES}
    for number in range(DRAWS):
        for one in mistaken(images, classes, rate=MADE_RATE, seed=seed * DRAWS + number):
            if min((len(own) for own in tried.values() if own), default=0) >= WANTED:
                break  # a kind that cannot be made, such as another class where there is one, waits for none
            found = evidence(one.image, known, floor=floor)
            for made in one.made:
                tried[made.kind].append(one.number)
                row = _row(one, images[one.number], found, made.kind, made.label)
                if row is not None:
                    rows[made.kind].append(row)
                    owner[made.kind].append(one.number)
    return {
        kind: _Examples(
            np.array(rows[kind], np.float64).reshape(-1, len(columns)),
            np.array(owner[kind], np.int64),
            np.array(tried[kind], np.int64),
        )
        for kind in MISTAKES
        for columns in (PLACE_COLUMNS if kind == MISSING else LABEL_COLUMNS,)
    }


def _row(one: Mistaken, before: Looked, found: Evidence, kind: str, label: int) -> Floats | None:
    """The evidence of one mistake; None for a dropped label that no unmatched detection shows."""
    if kind != MISSING:
        return np.asarray(found.labels[np.flatnonzero(found.label_index == label)[0]])
    shown = shows(before.result.truth.boxes[label], int(before.result.truth.classes[label]), one.image, found)
    return None if shown is None else np.asarray(found.places[shown])


def shows(box: NDArray[np.floating], label: int, image: Looked, found: Evidence) -> int | None:
    """The row of `found.places` that shows an object: the surest unmatched detection of its class on it."""
    r = image.result
    own = found.place_index
    on = (r.classes[own] == label) & (iou(r.boxes[own], box[None])[:, 0] >= MATCH)
    return int(np.flatnonzero(on)[np.argmax(r.scores[own][on])]) if on.any() else None


def _ratios(rows: Floats, owner: Ints, made: _Examples, folds: Ints, total: int) -> tuple[Floats, Floats]:
    """r_k of the rows as they are (n,) and of the made mistakes (m,): how many more there would be of such
    a row, were the mistake made of every label."""
    plain, own = np.zeros(len(rows)), np.zeros(len(made.rows))
    for fold in range(FOLDS):
        there, mine = folds[owner] == fold, folds[made.image] == fold
        if (~mine).sum() < FEWEST or not (~there).any():
            continue
        model = _model()
        model.fit(
            np.concatenate([rows[~there], made.rows[~mine]]),
            np.repeat([0, 1], [(~there).sum(), (~mine).sum()]),
        )
        for value, of, at in ((plain, rows, there), (own, made.rows, mine)):
            if at.any():
                value[at] = model.decision_function(of[at])
    return _scaled(plain, own, total, len(made.tried))


def _scaled(plain: Floats, own: Floats, total: int, tried: int) -> tuple[Floats, Floats]:
    """Ratios (n,) and (m,) from log-odds out of fold; at most as large as they are where a single mistake
    among all labels looks so."""
    if len(own) < FEWEST or not len(plain):
        return np.zeros(len(plain)), np.zeros(len(own))
    line = LogisticRegression(C=LOOSE, max_iter=1000)
    line.fit(np.concatenate([plain, own])[:, None], np.repeat([0, 1], [len(plain), len(own)]))
    first, second = (np.minimum(line.decision_function(value[:, None]), 30) for value in (plain, own))
    scale = total / tried
    return np.minimum(np.exp(first) * scale, total), np.minimum(np.exp(second) * scale, total)


class Bent(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Each column twice: as it is, and what of it lies above its median; so a line may bend there."""

    def fit(self, rows: Floats, y: Ints | None = None) -> Bent:
        """Remember the medians (F,) of rows (n, F)."""
        self.medians_ = np.median(rows, axis=0)
        return self

    def transform(self, rows: Floats) -> Floats:
        """(n, F) -> (n, 2 F)."""
        return np.concatenate([rows, np.maximum(rows - self.medians_, 0)], axis=1)


def _model() -> Pipeline:
    return make_pipeline(Bent(), StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))


def _bound(plain: Floats, own: Floats, tried: int, total: int) -> float:
    """The largest share of mistakes that the data allow."""
    if len(own) < FEWEST or not total:
        return 0.0
    levels = np.quantile(own, np.linspace(0.1, MOST, 13))
    seen = np.array([(plain >= t).sum() for t in levels], np.float64)
    shown = np.array([(own >= t).sum() for t in levels]) / tried
    return float(min(1.0, ((seen + np.sqrt(seen + 1)) / (total * shown)).min()))


def _rates(bounds: Mapping[str, float], rate: float | None) -> dict[str, float]:
    """The share of labels that suffer each mistake: between its own bound and the median of them, since the
    bound of a mistake that the detector's own failures look like is loose."""
    learned = [bound for bound in bounds.values() if bound]
    middle = float(np.median(learned)) if learned else 0.0
    shares = {kind: float(np.sqrt(bound * middle)) for kind, bound in bounds.items()}
    whole = sum(shares.values())
    factor = rate / whole if rate is not None and whole else 1.0
    return {kind: factor * share for kind, share in shares.items()}
