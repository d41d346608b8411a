"""Coverage: how many of the asked failures does the pool hold, and how sure is that?

In: expected failures of what was scored exactly; a way to score a sample of the rest, with a cheap proxy of
every unit's score; out-of-fold expectations and true failures of mined images. Out: `Coverage`, a number with
an interval.

    N = r T + chance,   T = sum_{retrieved} e_i + sum_h N_h mean_h

    symbol         code          meaning
    e_i            exact         expected failures of a unit (a box or an image) that was scored
    N_h, mean_h    stratified    size of a stratum of the rest and the mean of its sample
    r              Calibration   observed failures per expected one, on mined images not seen in training

Three things are not known. The sample: Var T = sum_h N_h^2 (1 - n_h / N_h) s_h^2 / n_h with Satterthwaite's
degrees of freedom (Cochran, Sampling Techniques, 1977, 5.3 to 5.9); strata hold equal shares of the root of
the proxy, allocation is Neyman's, the proxy's mean and deviation standing for the unknown deviation. The
calibration: the Bayesian bootstrap of r over mined images (Rubin 1981). Chance: a pool that expects m
failures holds m of them with variance phi m, phi estimated from the mined images' residuals (1 for
independent ones). All three are drawn together.

"Absent" means that the upper bound lies below one failure: look elsewhere, or synthesise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.records import Ints

Array = NDArray[np.float64]

STRATA = 8
DRAWS = 2000
CHUNK = 200  # bootstrap draws at a time
LEAST = 2  # sampled of every stratum
Evaluate = Callable[[Ints], NDArray[np.floating]]
"""Places of units -> their expected failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A total that a stratified sample estimates.

    Attributes:
        total: estimate. variance: of it. freedom: its degrees of freedom. units: scored, `of` so many.
    """

    total: float
    variance: float
    freedom: float
    units: int
    of: int

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Of the total, not below 0; Student's t."""
        from scipy.stats import t

        half = float(t.ppf(0.5 + level / 2, max(self.freedom, 1.0))) * float(np.sqrt(self.variance))
        return max(self.total - half, 0.0), self.total + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How expectations compare with the truth on mined images not seen.

    Attributes:
        ratio: observed per expected failure. ratios: (B,) bootstrap draws of it. dispersion: phi.
    """

    ratio: float
    ratios: Array
    dispersion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the pool is expected to hold.

    Attributes:
        expected: number of failures. low, high: interval of the number there is, at `level`.
        exact: expected failures of what was retrieved, of `expected`; the rest is estimated by a sample.
    """

    expected: float
    low: float
    high: float
    level: float
    exact: float

    @property
    def absent(self) -> bool:
        """True where the pool hardly holds one."""
        return self.high < 1

    def sentence(self, what: str) -> str:
        """For people: "the pool holds about 3 [1, 6] missed Car"."""
        about = f"about {_number(self.expected)} [{_number(self.low)}, {_number(self.high)}] {what}"
        return f"the pool holds {about}" + (": synthesise them" if self.absent else "")

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "expected": round(self.expected, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "level": self.level,
            "absent": self.absent,
        }


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


# ---------------------------------------------------------------- the sample


def stratified(
    proxy: NDArray[np.floating], evaluate: Evaluate, *, size: int, strata: int = STRATA, seed: int = 0
) -> Sampled:
    """Estimate the sum of `evaluate` over units from `size` of them.

    Args:
        proxy: (N,) 0 or more, what is known of every unit; the closer to the truth, the narrower the
            interval. Any monotone score serves; one of equal values gives a simple random sample.
    """
    units = len(proxy)
    if units == 0 or size >= units:
        values = np.asarray(evaluate(np.arange(units)), np.float64) if units else np.zeros(0)
        return Sampled(total=float(values.sum()), variance=0.0, freedom=1.0, units=units, of=units)
    known = np.asarray(proxy, np.float64)
    parts = _strata(known, min(strata, max(1, size // (2 * LEAST))))
    counts = _allocated([len(part) for part in parts], [_anticipated(known[part]) for part in parts], size)
    draw = np.random.default_rng(seed)
    chosen = [np.sort(draw.choice(part, n, replace=False)) for part, n in zip(parts, counts, strict=True)]
    values = np.asarray(evaluate(np.concatenate(chosen)), np.float64)
    total = variance = squares = 0.0
    for part, own in zip(parts, np.split(values, np.cumsum(counts)[:-1]), strict=True):
        total += len(part) * float(own.mean())
        if len(own) < len(part):
            of_mean = (1 - len(own) / len(part)) * float(own.var(ddof=1)) / len(own) * len(part) ** 2
            variance += of_mean
            squares += of_mean**2 / (len(own) - 1)
    freedom = variance**2 / squares if squares > 0 else float(size)
    return Sampled(total=total, variance=variance, freedom=freedom, units=len(values), of=units)


def _strata(proxy: Array, count: int) -> list[Ints]:
    """Places of units, in strata of rising proxy that hold equal shares of its square root's sum (between
    equal numbers and equal sums), at least `LEAST` each."""
    order = np.argsort(proxy, kind="stable")
    mass = np.cumsum(np.sqrt(np.maximum(proxy[order], 0)) + 1e-12)
    bounds = np.searchsorted(mass, mass[-1] * np.arange(1, count) / count)
    parts: list[Ints] = []
    start = 0
    for bound in [*bounds.tolist(), len(order)]:
        if bound - start >= LEAST and (len(order) - bound >= LEAST or bound == len(order)):
            parts.append(order[start:bound])
            start = bound
    if start < len(order):
        parts[-1:] = [np.concatenate([*parts[-1:], order[start:]])]
    return parts


def _anticipated(proxy: Array) -> float:
    """Deviation to be expected in a stratum: that of the proxy, and of counts about its mean."""
    return float(np.sqrt(proxy.var() + max(proxy.mean(), 0) ** 2)) + 1e-9


def _allocated(sizes: list[int], deviations: list[float], total: int) -> list[int]:
    """Neyman's allocation: n_h in proportion to N_h S_h, at least `LEAST`, at most N_h; what a full stratum
    cannot take goes to the others."""
    counts = [min(LEAST, size) for size in sizes]
    weight = np.array([n * s for n, s in zip(sizes, deviations, strict=True)])
    open_ = np.ones(len(sizes), bool)
    while True:
        left = total - sum(counts[h] for h in range(len(sizes)) if not open_[h])
        share = left * weight / max(weight[open_].sum(), 1e-300)
        full = [h for h in np.flatnonzero(open_) if share[h] >= sizes[h]]
        if not full:
            break
        for h in full:
            counts[h], open_[h] = sizes[h], False
    for h in np.flatnonzero(open_):
        counts[h] = min(max(counts[h], int(share[h])), sizes[h])
    return counts


# ---------------------------------------------------------------- calibration and the sum of all


def calibrated(
    expected: NDArray[np.floating],
    observed: NDArray[np.floating],
    units: NDArray[Any] | None = None,
    *,
    seed: int = 0,
) -> Calibration:
    """Compare out-of-fold expectations with the truth.

    Args:
        expected, observed: (M,) failures of mined images. units: (M,) what images belong together (a video),
            drawn as one; None: each alone.
    Raises:
        ValueError: nothing is expected at all.
    """
    own, there = np.asarray(expected, np.float64), np.asarray(observed, np.float64)
    if not own.sum() > 0:
        raise ValueError(f"expected out-of-fold expectations above 0, got a sum of {own.sum()}")
    if units is not None:
        _, place = np.unique(units, return_inverse=True)
        own, there = (np.asarray(np.bincount(place, weights=values), np.float64) for values in (own, there))
    ratio = float(there.sum() / own.sum())
    draw = np.random.default_rng(seed)
    ratios = []
    for start in range(0, DRAWS, CHUNK):
        weights = draw.standard_exponential((min(CHUNK, DRAWS - start), len(own)), np.float32)
        ratios.append((weights @ there) / (weights @ own))
    mean = max(ratio, 1e-12) * own
    dispersion = float(((there - mean) ** 2).sum() / mean.sum())
    return Calibration(ratio=ratio, ratios=np.concatenate(ratios), dispersion=max(dispersion, 0.1))


def coverage(
    exact: float,
    rest: Sampled | None,
    calibration: Calibration | None,
    *,
    level: float = 0.9,
    seed: int = 0,
) -> Coverage:
    """What the pool holds.

    Args:
        exact: sum of expected failures of what was retrieved. rest: of what was not; None: nothing.
        calibration: None where one failing image allows none: then chance and the sample alone.
    """
    draw = np.random.default_rng(seed)
    total = np.full(DRAWS, float(exact))
    if rest is not None:
        total += rest.total + np.sqrt(rest.variance) * draw.standard_t(max(rest.freedom, 1.0), DRAWS)
    total = np.maximum(total, exact)
    ratio, dispersion = 1.0, 1.0
    if calibration is not None:
        ratio, dispersion = calibration.ratio, calibration.dispersion
        total = total * draw.choice(calibration.ratios, DRAWS)
    # Gamma: mean m, variance phi m, never below 0.
    there = draw.gamma(np.maximum(total / dispersion, 1e-9), dispersion)
    low, high = np.quantile(there, [0.5 - level / 2, 0.5 + level / 2])
    mean = ratio * (exact + (rest.total if rest is not None else 0.0))
    return Coverage(
        expected=float(mean), low=float(low), high=float(high), level=level, exact=float(ratio * exact)
    )
