"""How sure the figures of a verification are: intervals over images and training seeds, of differences too.

In: the base and every trial of the arms over one holdout, matched (`readings`). Out: per figure a mean, an
interval and, for two arms, that of their difference.

A figure is a share over the holdout's objects or false positives, so images (videos, where images share one)
are drawn with replacement and the share is computed anew, threshold and all: the readings that hold the
number of false positives or of found objects fixed find their threshold anew in every replicate. Arms are
drawn together, so that what they share cancels in their difference. Training seeds are the second level.
With three or five of them a percentile of drawn seeds is too narrow, so the variance is put together from its
parts:

    V = v + (u - w)+                 u = s^2 / S,  w = the part of u that the images explain

    symbol   code        meaning
    v        over_images variance over replicates of the mean over the seeds
    s^2      between     variance between the seeds' figures, S of them
    w        explained   mean over the seeds of the variance, over replicates, of what is left of a seed's
                         figure after the mean over the seeds and its own level are taken off, / (S - 1)

and the interval is mean +- t sqrt(V), with Satterthwaite's degrees of freedom for u (S - 1) and v (clusters -
1). One seed alone has no u: its interval speaks of other images only. Where nothing varies, see
`Estimate.within`.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 8; Owen, The pigeonhole bootstrap
(Annals of Applied Statistics 2007), on crossed factors; Satterthwaite (Biometrics 1946); Holm (Scandinavian
Journal of Statistics 1979). How often the intervals hold the truth: benchmarks/verify_statistics.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from curator.prove.readings import Base, Matched, repeated_at

Array = NDArray[np.float64]
DRAWS = 400
_BLOCK = 1 << 23  # numbers held at once
_TAIL = 0.025
FIGURES = ("fn_fixed", "fp_fixed", "broken", "new_false_per_image", "ap50")
LESS_IS_BETTER = ("broken", "new_false_per_image")
UNBOUNDED = ("new_false_per_image",)  # a count per image; the others are shares
READINGS = {
    "fn_fixed": ("fixed", "matched"),
    "broken": ("fixed", "matched"),
    "fp_fixed": ("fixed", "recall"),
    "new_false_per_image": ("fixed", "recall"),
    "ap50": ("any",),
}
"""Figure -> at which thresholds it is read: the base's own, at the base's number of false positives, at its
number of found objects (docs/decisions/0004)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% interval; `p` two-sided against 0. nan where nothing can be said."""

    mean: float
    low: float
    high: float
    p: float

    def within(self, figure: str, clusters: int) -> Estimate:
        """The interval of an arm, cut to what the figure can be: shares in [0, 1], rates from 0.

        Where nothing varies because nothing (or all) of what is counted happened, no replicate can say how
        sure that is. Then the end is exact for `clusters` independent counts: 1 - .025^(1/n) for a share
        (Clopper and Pearson, Biometrika 1934), -ln(.025) / n for a rate (Garwood, Biometrika 1936).
        """
        cut = self._cut(0.0, math.inf if figure in UNBOUNDED else 1.0)
        if clusters < 2 or cut.low < cut.high or cut.mean not in (0.0, 1.0):
            return cut
        if figure in UNBOUNDED:
            return replace(cut, low=0.0, high=-math.log(_TAIL) / clusters) if cut.mean == 0 else cut
        far = _TAIL ** (1 / clusters)
        return replace(cut, low=0.0, high=1 - far) if cut.mean == 0 else replace(cut, low=far, high=1.0)

    def between_arms(self, figure: str) -> Estimate:
        """The interval of a difference of two arms cut to what it can be: one of shares lies in [-1, 1]."""
        return self if figure in UNBOUNDED else self._cut(-1.0, 1.0)

    def _cut(self, least: float, most: float) -> Estimate:
        if not self.low < self.high:  # nan, or no width
            return self
        return replace(self, low=max(self.low, least), high=min(self.high, most))

    def plain(self) -> dict[str, float | None]:
        """Plain JSON, nan as null."""
        figures = {"mean": self.mean, "low": self.low, "high": self.high, "p": self.p}
        return {name: value if math.isfinite(value) else None for name, value in figures.items()}


@dataclass(frozen=True, slots=True)
class Values:
    """A figure in one reading, of the trials of an arm.

    Attributes:
        point: (S,) per seed. drawn: (R, S) in every replicate; nan where a replicate has no such failures.
        clusters: images (or videos) that hold what the figure counts.
    """

    point: Array
    drawn: Array
    clusters: int

    def __sub__(self, other: Values) -> Values:
        clusters = min(self.clusters, other.clusters)
        return Values(self.point - other.point, self.drawn - other.drawn, clusters)

    def among(self, seeds: Sequence[int]) -> Values:
        """Some of the trials, by place."""
        return Values(self.point[list(seeds)], self.drawn[:, list(seeds)], self.clusters)


def weights(cluster: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> tuple[Array, int]:
    """How often each image was drawn, (draws, I), and the number of clusters: whole clusters are drawn."""
    _, place = np.unique(np.asarray(cluster), return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    if not count:
        return np.ones((draws, 0)), 0
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    return drawn[:, place], count


def measure(
    bases: Sequence[Base],
    trials: Sequence[Matched],
    cluster: Sequence[str],
    *,
    floor: float,
    draws: int = DRAWS,
    seed: int = 0,
    missing: Sequence[str] = (),
    figures: Sequence[str] = FIGURES,
) -> dict[str, dict[str, Values]]:
    """Every figure of an arm's trials in every reading: figure -> reading -> `Values`.

    Args:
        bases: of each trial, over the same objects: another device rounds otherwise.
        cluster: per image what it is drawn with. floor: lowest score of the detections.
        missing: categories that the detector cannot produce, left out of AP. figures: which of `FIGURES`.
    """
    drawn, _ = weights(cluster, draws=draws, seed=seed)
    held = _held(bases[0], np.asarray(cluster)) if bases else {}
    every = np.concatenate([np.ones((1, drawn.shape[1])), drawn])  # row 0: the holdout as it is
    found: dict[str, dict[str, list[Array]]] = {f: {r: [] for r in READINGS[f]} for f in figures}
    for base, trial in zip(bases, trials, strict=True):
        for figure, readings in _of_trial(base, trial, every, floor, missing, figures).items():
            for reading, values in readings.items():
                found[figure][reading].append(values)
    return {
        figure: {
            reading: Values(
                np.array([v[0] for v in values]), np.stack([v[1:] for v in values], 1), held[figure]
            )
            for reading, values in readings.items()
        }
        for figure, readings in found.items()
    }


def _held(base: Base, cluster: NDArray[np.str_]) -> dict[str, int]:
    """Figure -> how many clusters hold what it counts."""
    objects = base.objects
    at_base = base.matched.found_at >= base.threshold
    was = base.matched.false_positives(base.threshold)
    image = {
        "fn_fixed": objects.image[objects.counted & ~at_base],
        "broken": objects.image[objects.counted & at_base],
        "fp_fixed": base.matched.image[was],
        "new_false_per_image": np.arange(base.images),
        "ap50": objects.image[objects.counted],
    }
    return {figure: len(np.unique(cluster[numbers])) for figure, numbers in image.items()}


def _of_trial(
    base: Base, trial: Matched, every: Array, floor: float, missing: Sequence[str], figures: Sequence[str]
) -> dict[str, dict[str, Array]]:
    repeated = repeated_at(base, trial)
    width = max(len(base.objects.image), len(base.matched.scores), len(trial.scores))
    parts = [
        _of_rows(base, trial, every[rows], floor, missing, figures, repeated)
        for rows in _blocks(len(every), width)
    ]
    return {
        figure: {reading: np.concatenate([part[figure][reading] for part in parts]) for reading in readings}
        for figure, readings in parts[0].items()
    }


def _of_rows(
    base: Base,
    trial: Matched,
    every: Array,
    floor: float,
    missing: Sequence[str],
    figures: Sequence[str],
    repeated: tuple[Array, NDArray[np.bool_]],
) -> dict[str, dict[str, Array]]:
    """The figures of some of the replicates, which are held at once."""
    objects = base.objects
    at_base = base.matched.found_at >= base.threshold
    missed, kept = np.flatnonzero(objects.counted & ~at_base), np.flatnonzero(objects.counted & at_base)
    was = np.flatnonzero(base.matched.false_positives(base.threshold))
    again, known = repeated
    of_false, of_base = trial.image, base.matched.image[was]
    images = np.maximum(every.sum(1), 1e-12)
    thresholds = {
        "fixed": np.full(len(every), base.threshold),
        "matched": _matched(every, trial, every[:, of_base].sum(1), floor),
        "recall": _recalled(every, objects.image, trial.found_at, objects.counted, kept, floor),
    }
    result: dict[str, dict[str, Array]] = {figure: {} for figure in FIGURES}
    for reading, at in thresholds.items():
        found = trial.found_at[None] >= at[:, None]
        if reading != "recall":
            result["fn_fixed"][reading] = _share(every, objects.image[missed], found[:, missed])
            result["broken"][reading] = _share(every, objects.image[kept], ~found[:, kept])
        if reading != "matched":
            result["fp_fixed"][reading] = _share(every, of_base, again[None] < at[:, None])
            new = (trial.scores[None] >= at[:, None]) & ~known[None]
            result["new_false_per_image"][reading] = (every[:, of_false] * new).sum(1) / images
    if "ap50" in figures:
        result["ap50"]["any"] = _precision(base, trial, every, missing)
    return {figure: result[figure] for figure in figures}


def _share(every: Array, image: NDArray[np.int64], hit: NDArray[np.bool_]) -> Array:
    """(R,) weighted share of those that are hit; nan where there is none."""
    total = every[:, image].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (every[:, image] * hit).sum(1) / total, np.nan)


def _matched(every: Array, trial: Matched, allowed: Array, floor: float) -> Array:
    """Per replicate the lowest threshold with at most `allowed` false positives."""
    used = np.flatnonzero(trial.scores >= floor)
    order = used[np.argsort(-trial.scores[used], kind="stable")]
    if not len(order):
        return np.full(len(every), floor)
    beyond = np.cumsum(every[:, trial.image[order]], 1) > allowed[:, None]
    first = np.nextafter(trial.scores[order][beyond.argmax(1)], 2.0)
    return np.where(beyond.any(1), first, floor)


def _recalled(
    every: Array,
    image: NDArray[np.int64],
    found_at: Array,
    counted: NDArray[np.bool_],
    kept: NDArray[np.int64],
    floor: float,
) -> Array:
    """Per replicate the highest threshold at which as many objects are found as the base finds."""
    wanted = every[:, image[kept]].sum(1)
    used = np.flatnonzero(counted & (found_at >= floor))
    order = used[np.argsort(-found_at[used], kind="stable")]
    if not len(order):
        return np.where(wanted > 0, floor, np.nextafter(1.0, 2.0))
    enough = np.cumsum(every[:, image[order]], 1) >= wanted[:, None]
    at = np.where(enough.any(1), found_at[order][enough.argmax(1)], floor)
    return np.where(wanted > 0, at, np.nextafter(1.0, 2.0))


def _precision(base: Base, trial: Matched, every: Array, missing: Sequence[str]) -> Array:
    """(R,) mean over the classes of the area under the precision envelope."""
    of_class = []
    objects = base.objects
    for number, name in enumerate(base.categories):
        own = np.flatnonzero(objects.counted & (objects.classes == number))
        if not len(own) or name in missing:
            continue
        hit = own[trial.found_at[own] >= 0]
        false = np.flatnonzero(trial.classes == number)
        scores = np.concatenate([trial.found_at[hit], trial.scores[false]])
        image = np.concatenate([objects.image[hit], trial.image[false]])
        true = np.arange(len(scores)) < len(hit)
        order = np.argsort(-scores, kind="stable")
        of_class.append(_area(every, image[order], true[order], every[:, objects.image[own]].sum(1)))
    if not of_class:
        return np.full(len(every), np.nan)
    known = np.array(of_class)
    count = (~np.isnan(known)).sum(0)
    return np.where(count > 0, np.nansum(known, 0) / np.maximum(count, 1), np.nan)


def _area(every: Array, image: NDArray[np.int64], true: NDArray[np.bool_], total: Array) -> Array:
    area = np.empty(len(every))
    for rows in _blocks(len(every), len(image)):
        drawn = every[rows][:, image]
        hits = np.cumsum(drawn * true, 1)
        precision = hits / np.maximum(np.cumsum(drawn, 1), 1e-12)
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            area[rows] = (envelope * drawn * true).sum(1) / total[rows]
    return area


def _blocks(count: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // max(width, 1))
    return (slice(start, start + size) for start in range(0, count, size))


def estimate(values: Values, *, level: float = 0.95) -> Estimate:
    """Mean over the seeds, its interval and p; see the module."""
    usable = ~np.isnan(values.drawn).any(1)
    drawn, S = values.drawn[usable], len(values.point)
    mean = float(values.point.mean()) if S else math.nan
    if not S or math.isnan(mean) or len(drawn) < 2 or values.clusters < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    over_images = float(drawn.mean(1).var(ddof=1))
    variance, freedom = over_images, float(values.clusters - 1)
    if S > 1:
        between = float(values.point.var(ddof=1)) / S
        left = drawn - drawn.mean(1, keepdims=True)
        explained = float(left.var(0, ddof=1).mean()) / (S - 1)
        variance = over_images + max(0.0, between - explained)
        parts = between**2 / (S - 1) if between > explained else 0.0
        total = parts + over_images**2 / (values.clusters - 1)
        freedom = variance**2 / total if total > 0 else freedom
    if variance <= 0:  # nothing varies: too few failures to say how sure a difference is
        return Estimate(mean, mean, mean, 1.0) if mean == 0 else Estimate(mean, math.nan, math.nan, math.nan)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p)


def arm_estimate(figure: str, readings: Mapping[str, Values]) -> Estimate:
    """What an arm reaches, in the reading that speaks least for it, within what the figure can be."""
    clusters = min((values.clusters for values in readings.values()), default=0)
    return worse_of(figure, readings).within(figure, clusters)


def worse_of(figure: str, readings: Mapping[str, Values]) -> Estimate:
    """The reading that speaks least for the arm (or for the first of two arms)."""
    found = [estimate(values) for values in readings.values()]
    sign = 1 if figure in LESS_IS_BETTER else -1
    return max(found, key=lambda e: (sign * e.mean, e.high - e.low))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p: each says at which family-wise error rate its difference would be called real."""
    adjusted, most = {}, 0.0
    known = sorted((name for name in p if not math.isnan(p[name])), key=lambda name: p[name])
    for place, name in enumerate(known):
        most = max(most, min(1.0, (len(known) - place) * p[name]))
        adjusted[name] = most
    return {name: adjusted.get(name, math.nan) for name in p}


def smallest_effect(
    failures: Sequence[int], *, differing: float = 0.25, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest difference of two arms' shares of fixed objects that a holdout can show, before training.

    Failures of one image are taken to go together (the cautious end), and the arms to differ on a share
    `differing` of the failures.

    Args:
        failures: per image (or video) how many objects the base misses; zeros may be left out.
        power: how often such a difference would be found.
    Returns:
        above 0; above 1 where no difference can be shown; nan without failures.
    """
    counts = np.asarray([f for f in failures if f], dtype=np.float64)
    if not len(counts):
        return math.nan
    error = math.sqrt(differing * float((counts**2).sum())) / float(counts.sum())
    z = float(stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power))
    return z * error
