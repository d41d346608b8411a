"""What verify prints of its trials: means over the seeds, and intervals where there are several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from curator.bootstrap import bootstrap_interval
from curator.prove.trial_tables import fix_rates, quality_table, summarise, trial_table
from store.records import Trial

BASE = {"missed": 9, "false": 4, "found": 20, "ap50": 0.5}


def trial(number: int, arm: str, seed: int, fixed: float | None, false_fixed: float | None = 0.5) -> Trial:
    rates: dict[str, Any] = {"fn": fixed, "fp": false_fixed, "broken": 0.1}
    worse = {kind: {"n": 9, "rate": rate} for kind, rate in rates.items()}
    metrics = {
        "worse": {**worse, "new_false_per_image": 0.2},
        "ap50": 0.6,
        "n_added": 7,
        "base": BASE,
        "unscored_conditions": [],
    }
    return Trial(id=number, verification="v", arm=arm, seed=seed, metrics=metrics, key=f"{number}")


def test_intervals_are_drawn_over_the_seeds() -> None:
    trials = [trial(i, "query", i, value) for i, value in enumerate((0.2, 0.4, 0.6))]
    expected = bootstrap_interval([0.2, 0.4, 0.6])
    figures = summarise(trials)["arms"]["query"]
    assert figures["seeds"] == [0, 1, 2]
    assert figures["fn_fixed"] == expected.plain()
    assert 0.2 <= expected.low < 0.4 < expected.high <= 0.6
    row = trial_table(trials)[1][1]
    assert row[3] == f"0.400 [{expected.low:.3f}, {expected.high:.3f}]"


def test_the_quality_of_detectors_has_students_interval() -> None:
    trials = [
        replace(one, metrics={**one.metrics, "ap": ap, "ar": 0.5, "calibration_error": None})
        for one, ap in zip([trial(i, "query", i, 0.4) for i in range(3)], (0.2, 0.3, 0.4), strict=True)
    ]
    older = trial(9, "nothing", 0, 0.1)
    columns, rows = quality_table([older, *trials])
    assert columns == ("arm", "AP", "AR", "calibration error")
    assert [row[0] for row in rows] == ["base", "nothing", "query"]
    reach = 4.3027 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert rows[2][1] == f"0.300 [{0.3 - reach:.3f}, {0.3 + reach:.3f}]"
    assert rows[1][1] == "-"
    assert rows[2][3] == "-"
    assert quality_table([older])[1] == []


def test_one_seed_has_no_interval() -> None:
    figures = summarise([trial(1, "query", 0, 0.4)])["arms"]["query"]
    assert figures["fn_fixed"] == {"mean": 0.4, "low": None, "high": None}
    assert trial_table([trial(1, "query", 0, 0.4)])[1][1][3] == "0.400"


def test_a_figure_that_a_trial_lacks_is_left_out() -> None:
    trials = [trial(1, "query", 0, 0.4, None), trial(2, "query", 1, None, None)]
    figures = summarise(trials)["arms"]["query"]
    assert figures["fp_fixed"] is None
    assert figures["fn_fixed"] == {"mean": 0.4, "low": None, "high": None}
    assert trial_table(trials)[1][1][3:5] == ("0.400", "-")
    assert fix_rates(trials) == {"query": [0.4]}


def test_a_seed_that_was_tried_again_counts_once() -> None:
    trials = [trial(1, "query", 0, 0.9), trial(3, "query", 0, 0.4), trial(2, "random", 0, 0.1)]
    arms = summarise(trials)["arms"]
    assert list(arms) == ["random", "query"]
    assert arms["query"]["fn_fixed"]["mean"] == pytest.approx(0.4)


def test_trials_of_older_versions_are_read() -> None:
    old = trial(1, "query", 0, 0.4)
    metrics = {name: value for name, value in old.metrics.items() if name != "unscored_conditions"}
    found = summarise([replace(old, metrics={**metrics, "unscored_gaps": ["post (FN: 3)"]})])
    assert found["unscored_conditions"] == []
    assert found["arms"]["query"]["fn_fixed"]["mean"] == 0.4
