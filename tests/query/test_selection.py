"""Greedy selection by expected failures: budgets, diversity, quotas, refusals, reasons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from curator.errors import InputError
from curator.query.selection import Answers, as_hits, choose, expected_objects, nearer_to
from curator.query.wording import Shown, failed, place, reason
from store.records import BoxRows, ImageBoxes


def answers(expected: Sequence[Sequence[float]], objects: Sequence[float] | None = None) -> Answers:
    values = np.array(expected, np.float32)
    return Answers(
        groups=tuple("abcdef"[: values.shape[1]]),
        image_ids=np.arange(10, 10 + len(values)),
        expected=values,
        objects=None if objects is None else np.array(objects, np.float64),
    )


def ids(choice) -> list[int]:  # type: ignore[no-untyped-def]
    return [pick.image_id for pick in choice.picks]


def utility(expected: np.ndarray, rows: Sequence[int], scale: float, strength: float) -> float:
    return float((np.log1p(strength * expected[list(rows)].sum(0) / scale) * scale / strength).sum())


def test_one_group_is_the_plain_ranking_whatever_the_strength() -> None:
    values = np.random.default_rng(0).uniform(0, 3, (500, 1))
    best = (10 + np.argsort(-values[:, 0], kind="stable")[:40]).tolist()
    assert ids(choose(answers(values), budget=40, strength=5)) == best
    assert ids(choose(answers(values), budget=40, strength=0)) == best


def test_ties_go_to_the_smaller_id_and_what_answers_nothing_is_not_taken() -> None:
    choice = choose(answers([[0], [1], [1], [2], [0]]), budget=4)
    assert ids(choice) == [13, 11, 12]
    assert choice.warnings == ("the pool answered with 3 images where 4 were asked for",)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).gamma(0.3, 1, (3000, 4))
    whole = ids(choose(answers(values), budget=300, strength=3))
    monkeypatch.setattr("curator.query.selection.BLOCK", 37)
    assert ids(choose(answers(values), budget=300, strength=3)) == whole


def test_greedy_comes_near_the_best_of_all_subsets() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).gamma(0.5, 1, (14, 3))
        scale = values[np.argsort(-values.sum(1))[:4]].sum() / 3
        best = max(utility(values, rows, scale, 2) for rows in itertools.combinations(range(14), 4))
        rows = [i - 10 for i in ids(choose(answers(values), budget=4, strength=2))]
        assert utility(values, rows, scale, 2) >= 0.97 * best


def test_diversity_gives_a_rare_group_its_share() -> None:
    rng = np.random.default_rng(2)
    often, rare = np.zeros((400, 2)), np.zeros((40, 2))
    often[:, 0], rare[:, 1] = rng.uniform(1, 2, 400), rng.uniform(0.3, 0.6, 40)
    pool = answers(np.concatenate([often, rare]))
    of_rare = [
        sum(pick.group == "b" for pick in choose(pool, budget=40, strength=strength).picks)
        for strength in (0, 1, 4, 1000)
    ]
    assert of_rare[0] == 0
    assert of_rare == sorted(of_rare)
    assert abs(of_rare[-1] - 20) <= 2  # proportional fairness: equal weights, equal shares
    assert sum(p.group == "b" for p in choose(pool, budget=40, strength=1000, weights={"b": 3}).picks) >= 28


def test_a_quota_is_filled_while_the_pool_answers() -> None:
    values = np.zeros((100, 3))
    values[:60, 0], values[60:64, 1] = 2, 0.2
    choice = choose(answers(values), budget=20, strength=0, quota={"b": 6, "c": 1})
    assert ids(choice)[:4] == [70, 71, 72, 73]
    assert len(choice.picks) == 20
    assert "quota: 6 images of b wanted, 4 taken (the pool answers with no more)" in choice.warnings
    assert "quota: 1 images of c wanted, 0 taken (the pool answers with no more)" in choice.warnings
    spent = choose(answers(values), budget=3, strength=0, quota={"b": 4})
    assert spent.warnings == ("quota: 4 images of b wanted, 3 taken (budget spent)",)


def test_a_budget_of_boxes_is_spent_by_gain_per_box() -> None:
    pool = answers([[5], [2], [2], [2], [1]], [10, 2, 2, 2, 2])
    choice = choose(pool, budget_boxes=7)
    assert ids(choice) == [11, 12, 13]
    assert choice.warnings == ()
    assert sum(pick.objects for pick in choice.picks) <= 7
    assert ids(choose(pool, budget=2, budget_boxes=7)) == [11, 12]
    assert ids(choose(pool, budget=2)) == [10, 11]
    assert "18 objects where 99" in choose(pool, budget_boxes=99).warnings[0]


def test_refused_and_near_duplicates_are_passed_over_with_reasons() -> None:
    asked: list[int] = []

    def leaks(those: Sequence[int]) -> Mapping[int, object]:
        asked.extend(those)
        return {i: "nearly equals a held-out image" for i in those if i < 13}

    choice = choose(
        answers([[30 - i] for i in range(30)]),
        budget=10,
        refusals=[leaks, lambda those: {i: "like what is not wanted" for i in those if i == 15}],
        duplicates=lambda those, among: {i: i - 1 for i in those if i % 2 and i - 1 in among},
    )
    assert ids(choice) == [13, 14, 16, 18, 20, 22, 24, 26, 28, 30]
    assert choice.refused == {"nearly equals a held-out image": 3, "like what is not wanted": 1}
    assert choice.warnings[0] == (
        "4 answers refused (1: like what is not wanted; 3: nearly equals a held-out image)"
    )
    assert choice.warnings[1] == "7 near-duplicates of chosen images passed over"
    assert len(asked) == len(set(asked))


def test_leaks_are_asked_about_near_the_top_only() -> None:
    asked: list[int] = []

    def leaks(those: Sequence[int]) -> Mapping[int, object]:
        asked.extend(those)
        return {}

    values = np.random.default_rng(3).gamma(1, 1, (20000, 3))
    choose(answers(values), budget=50, refusals=[leaks])
    assert 50 <= len(asked) <= 1024


def test_what_is_nearer_to_the_unwanted_is_refused() -> None:
    vectors = np.array([[1, 0], [0.9, 0.5], [0, 1]], np.float32)
    found = nearer_to(np.array([4, 5, 6]), vectors, np.array([[0, 2.0]]), np.array([[3.0, 0]]))
    assert found == {6: "like what is not wanted"}
    assert nearer_to(np.array([4, 5, 6]), vectors, np.zeros((0, 2)), np.array([[3.0, 0]])) == {}


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({}, "--budget"),
        ({"budget": 0}, "--budget"),
        ({"budget": 3, "strength": -1.0}, "diversity"),
        ({"budget": 3, "quota": {"z": 1}}, "got z"),
    ],
)
def test_bad_input_is_told(more: dict, match: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=match):
        choose(answers([[1.0]]), **more)


def test_labelling_cost_counts_confident_candidates() -> None:
    images = [
        ImageBoxes(
            image_id=image,
            key="",
            size=(50, 50),
            boxes=np.zeros((4, 4), np.float32),
            labels=np.tile(np.array([1, -1, -1, -1, -1]), (3, 1)),
            scores=np.array(scores, np.float32)[:, None] * np.eye(5, dtype=np.float32)[0],
            views={},
            image_views={},
        )
        for image, scores in ((7, [0.9, 0.6, 0.4]), (3, [0.1, 0.1, 0.05]))
    ]
    found, objects = expected_objects(BoxRows.of(images), 0.5)
    assert found.tolist() == [3, 7]
    assert objects.tolist() == [1, 2]


def test_reasons_are_sentences() -> None:
    shown = Shown(
        kind="FN",
        category="Car",
        box=(0, 0, 20, 20),
        size=(90, 90),
        seen=(("Truck", 0.44), ("Car", 0.12)),
        outcome_id=12,
    )
    (hit,) = as_hits(choose(answers([[2.06]]), budget=1), {10: shown})
    assert hit.reason == "2.1 missed Car expected: Truck .44 (Car .12) at the upper left, like failure 12"
    assert (hit.rank, hit.image_id, hit.outcome_id, hit.group, hit.score) == (
        1,
        10,
        12,
        "a",
        pytest.approx(2.06),
    )
    window = Shown(kind="FP", category="Car", box=(30, 70, 60, 90), size=(90, 90))
    assert reason(0.5, window) == (
        "0.5 false Car expected: a window at the bottom where the detector offers nothing"
    )
    twice = Shown(
        kind="FN",
        category="Car",
        box=(40, 40, 50, 50),
        size=(90, 90),
        seen=(("Bus", 0.4), ("Car", 0.3), ("Car", 0.1)),  # two of the detector's classes mean Car
    )
    assert reason(0.5, twice) == "0.5 missed Car expected: Bus .40 (Car .30) in the middle"
    assert [failed(kind, "3 classes") for kind in ("FN", "FP")] == [
        "missed objects of 3 classes",
        "false detections of 3 classes",
    ]
    assert place((40, 40, 50, 50), (90, 90)) == "in the middle"
    assert place((80, 40, 90, 50), (90, 90)) == "at the right"
