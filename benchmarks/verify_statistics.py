"""Do the intervals of `verify` hold the truth, and how often does it call nothing a difference?

    python benchmarks/verify_statistics.py [--runs 500] [--out FILE.json]

Simulated holdouts with known truth, through the product's own code (`curator.prove.statistics`). In each run
a base and two arms with S training seeds are simulated on I images:

    every image has a difficulty, every object one of its own: what the base misses are the difficult ones
    an arm finds an object where its skill + the training seed's luck + noise of (object, seed) exceed the
    difficulty; false positives come likewise, by image; scores are what that margin gives
    video: images of one video share half of their difficulty and are drawn together

Truth of a figure: the mean over 4,000 images of the same source and 24 seeds that spread evenly; 0 where
skills are equal. Judged:

    coverage   share of runs whose 95% interval of the difference (arm - arm) holds the truth: 92 to 97% for
               5 seeds; 3 seeds are shown
    null       share of runs in which two arms of equal skill are told apart at 5%: at most 7%
    power      share of runs in which a difference as large as the smallest that is printed before training is
               told from nothing: at least 80%

Every figure is judged as `verify` prints it, in the reading that says least for the arm.

Rule, written before any figure was looked at: the form of the interval is chosen on the sources "images" and
"luck" with --choose (runs of their own); the sources "small", "video" and "crowded" are reported.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from environment import machine, versions
from scipy.stats import norm

from curator.prove.readings import Base, Matched, Objects
from curator.prove.statistics import FIGURES, LESS_IS_BETTER, Values, measure, smallest_effect, worse_of

THRESHOLD, FLOOR = 0.5, 0.05
TRUTH_IMAGES, TRUTH_SEEDS = 4_000, 24
DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a holdout comes from.

    Attributes:
        objects: an image has on the average. of_image, luck, noise: standard deviations of what images,
            training seeds, and (object, seed) add. videos: images of one video, 1 for none.
    """

    images: int
    objects: float = 4.0
    of_image: float = 0.7
    luck: float = 0.1
    noise: float = 0.6
    videos: int = 1


SOURCES = {
    "images": Source(images=100),
    "luck": Source(images=100, luck=0.35),
    "small": Source(images=60, luck=0.15),
    "video": Source(images=120, videos=4, luck=0.15),
    "crowded": Source(images=70, objects=12.0, of_image=1.0, luck=0.1),
}
CHOSEN_ON = ("images", "luck")


def scores(margin: np.ndarray) -> np.ndarray:
    """A margin as a score."""
    return 1 / (1 + np.exp(-2 * margin))


@dataclass
class Scene:
    """One drawn holdout: what does not depend on the trained network."""

    source: Source
    rng: np.random.Generator

    def __post_init__(self) -> None:
        s, rng = self.source, self.rng
        video = np.arange(s.images) // s.videos
        shared = rng.normal(size=video.max() + 1)[video] if s.videos > 1 else 0.0
        own = rng.normal(size=s.images)
        level = s.of_image * (np.sqrt(0.5) * (shared + own) if s.videos > 1 else own)
        self.cluster = [f"v{v}" for v in video]
        counts = rng.poisson(s.objects, s.images)
        self.image = np.repeat(np.arange(s.images), counts)
        self.difficulty = level[self.image] + rng.normal(size=len(self.image))
        self.places = np.repeat(np.arange(s.images), rng.poisson(2.0, s.images))  # where false ones may come
        self.lure = level[self.places] * 0.5 + rng.normal(size=len(self.places)) - 0.6

    def network(self, skill: float, rng: np.random.Generator) -> Matched:
        """A trained network: where it finds objects, and its false positives."""
        s = self.source
        margin = skill - self.difficulty + s.noise * rng.normal(size=len(self.image))
        found_at = np.where(scores(margin) >= FLOOR, scores(margin), -1.0)
        false = scores(self.lure - 0.5 * skill + s.noise * rng.normal(size=len(self.places)))
        kept = np.flatnonzero(false >= FLOOR)
        boxes = np.tile(np.array([0.0, 0.0, 10.0, 10.0]), (len(kept), 1)) + 40.0 * kept[:, None]
        return Matched(found_at, self.places[kept], np.zeros(len(kept), np.int64), false[kept], boxes)

    def base(self, rng: np.random.Generator) -> Base:
        """The base and its objects."""
        count = len(self.image)
        matched = self.network(0.3, rng)
        objects = Objects(
            self.image,
            np.zeros(count, np.int64),
            np.full(count, ""),
            np.full(count, ""),
            np.ones(count, bool),
        )
        blank = np.full(len(matched.scores), "")
        return Base(objects, matched, THRESHOLD, self.source.images, blank, blank, ("object",))


def differences(
    source: Source,
    luck: Sequence[Sequence[float]],
    gain: float,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> tuple[dict[str, dict[str, Values]], list[int]]:
    """One run: the differences of two arms, and what the base misses by image.

    Args:
        luck: (2, S) of the arms' training seeds, in standard deviations.
    """
    scene = Scene(source, rng)
    base = scene.base(rng)
    arms = [
        [scene.network(0.5 + g + source.luck * own, rng) for own in of_arm]
        for g, of_arm in zip((0.0, gain), luck, strict=True)
    ]
    plain, better = (
        measure([base] * len(trials), trials, scene.cluster, floor=FLOOR, draws=draws) for trials in arms
    )
    found = {f: {r: better[f][r] - plain[f][r] for r in better[f]} for f in FIGURES}
    missed = np.bincount(scene.image[base.matched.found_at < THRESHOLD], minlength=source.images)
    return found, missed.tolist()


def truth(source: Source, gain: float) -> dict[str, float]:
    """The figures' differences on a holdout so large that they do not vary."""
    big = replace(source, images=TRUTH_IMAGES)
    even = norm.ppf((np.arange(TRUTH_SEEDS) + 0.5) / TRUTH_SEEDS)  # luck, evenly over its distribution
    found, _ = differences(big, (even, even), gain, np.random.default_rng(99), draws=2)
    if gain == 0:
        return dict.fromkeys(found, 0.0)
    worst = {f: max if f in LESS_IS_BETTER else min for f in FIGURES}
    return {f: worst[f](float(v.point.mean()) for v in found[f].values()) for f in FIGURES}


def judge(name: str, seeds: int, gain: float, runs: int, first: int) -> dict[str, Any]:
    """Coverage and calls of one setting, by figure, in the reading that says least."""
    source = SOURCES[name]
    expected = truth(source, gain)
    held: dict[str, list[bool]] = {figure: [] for figure in expected}
    called: dict[str, list[bool]] = {figure: [] for figure in expected}
    smallest = []
    for run in range(runs):
        rng = np.random.default_rng([first, run])
        found, missed = differences(source, rng.normal(size=(2, seeds)), gain, rng)
        smallest.append(smallest_effect(missed))
        for figure, values in found.items():
            e = worse_of(figure, values)
            held[figure].append(bool(e.low <= expected[figure] <= e.high))
            called[figure].append(bool(e.p <= 0.05))
    return {
        "source": name,
        "seeds": seeds,
        "gain": gain,
        "truth": expected,
        "coverage": {figure: float(np.mean(v)) for figure, v in held.items()},
        "called": {figure: float(np.mean(v)) for figure, v in called.items()},
        "smallest_effect": float(np.mean(smallest)),
    }


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--choose", action="store_true", help="the sources on which the form was chosen")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start, rows, claims = time.perf_counter(), [], []
    for name in CHOSEN_ON if arguments.choose else [n for n in SOURCES if n not in CHOSEN_ON]:
        for seeds in arguments.seeds:
            for gain in (0.0, 0.3):
                row = judge(name, seeds, gain, arguments.runs, 1 if arguments.choose else 2)
                rows.append(row)
                cover, call = row["coverage"].values(), row["called"].values()
                print(
                    f"{name:8s} {seeds} seeds, gain {gain}: coverage {np.mean(list(cover)):.3f} "
                    f"({min(cover):.3f} to {max(cover):.3f}), called {np.mean(list(call)):.3f} "
                    f"({min(call):.3f} to {max(call):.3f}), truth of fn_fixed "
                    f"{row['truth']['fn_fixed']:.3f}, smallest effect {row['smallest_effect']:.3f}",
                    flush=True,
                )
                if seeds == 5:
                    for what, value in (("mean", float(np.mean(list(cover)))), ("worst figure", min(cover))):
                        claim = f"{name}, gain {gain}: coverage, {what}"
                        claims.append({"claim": claim, "value": value, "ok": 0.92 <= value <= 0.97})
                    if gain > 0:
                        large = gain * row["smallest_effect"] / row["truth"]["fn_fixed"]
                        found = judge(name, seeds, large, arguments.runs, 3)
                        power = found["called"]["fn_fixed"]
                        rows.append(found)
                        claim = f"{name}: a difference of {found['truth']['fn_fixed']:.2f} is found"
                        claims.append({"claim": claim, "value": power, "ok": power >= 0.8})
                    else:
                        most = max(call)
                        claim = f"{name}: null called real, worst figure"
                        claims.append({"claim": claim, "value": most, "ok": most <= 0.07})
    for claim in claims:
        print("ok  " if claim["ok"] else "MISS", claim["claim"], f"{claim['value']:.3f}")
    if arguments.out:
        found = {
            "runs": arguments.runs,
            "claims": claims,
            "rows": rows,
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "versions": versions(),
        }
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
