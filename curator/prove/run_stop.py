"""When `verify` trains no further: the answer is clear or hopeless, or the trainer cannot work.

In: what the trials before the next one say, in the Store and in the run's counts. Out: why it stops, said
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from curator.progress import say
from curator.prove.comparisons import FEWEST_SEEDS, answered
from curator.prove.run_compared import compare_stored
from curator.prove.settings import VerifyConfig
from curator.prove.trials import TrialItem

if TYPE_CHECKING:
    from store.store import Store

HOPELESS = 2  # trainings that failed before any succeeded, of as many arms where there are as many


class Stop:
    """Asked before every trial; `said` holds why it stopped, if it did."""

    def __init__(
        self, store: Store, config: VerifyConfig, keys: Sequence[str], counts: Mapping[str, int]
    ) -> None:
        """
        Args:
            keys: of all trials. counts: the run's, as they stand.
        """
        self.said: list[str] = []
        self._counts, self._trials, self._early = counts, len(keys), config.stop_early
        self._tried: set[str] = set()
        self._arms = min(HOPELESS, len(config.arms))
        self._before = lru_cache(None)(lambda seed: _answered(store, config, seed, keys))

    def __call__(self, item: TrialItem) -> bool:
        """Is this trial, and what comes after it, not to be trained?"""
        if not self.said:
            reason = self._fails() or (self._before(item.seed) if self._early else "")
            if reason:
                say(f"verify: {reason}")
                self.said.append(reason)
        self._tried.add(item.arm)
        return bool(self.said)

    def _fails(self) -> str:
        known = self._counts.get("done", 0) + self._counts.get("skipped", 0)
        failed = self._counts.get("failed", 0)
        if known or failed < HOPELESS or len(self._tried) < self._arms:
            return ""
        return (
            f"stopped after {failed} of {self._trials} trainings, all of which failed; mend the cause below "
            "and give the command again"
        )


def looks_of(config: VerifyConfig) -> int:
    """How often a verification that may stop early looks at most; the last, over all seeds, among them."""
    return max(1, len(dict.fromkeys(config.seeds)) - FEWEST_SEEDS + 1)


def _answered(store: Store, config: VerifyConfig, seed: int, keys: Sequence[str]) -> str:
    """What the seeds before this one answer already; "" where they do not."""
    seeds = tuple(dict.fromkeys(config.seeds))
    before = seeds[: seeds.index(seed)]
    trials = [t for t in store.trials(config.name) if t.seed in before]
    if len(before) < FEWEST_SEEDS or len(trials) * len(seeds) != len(keys) * len(before):
        return ""  # a round is not complete
    compared = compare_stored(store, trials)
    said = compared and answered(compared, trials[0].metrics["base"]["smallest_effect"], looks_of(config))
    return f"stopped after {len(before)} of {len(seeds)} seeds: {said}" if said else ""
