"""Budget, duplicates, leaks and diversity of a selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from curator.query.rounds import Answer, select, shares


def answers(first: int, count: int, *, vectors: np.ndarray | None = None) -> list[Answer]:
    vectors = np.eye(max(count, 2)) if vectors is None else vectors
    return [
        Answer(
            image_id=first + i,
            score=float(count - i),
            box=(0, 0, 1, 1),
            outcome_id=7,
            vector=vectors[i],
        )
        for i in range(count)
    ]


def nothing(ids: Sequence[int]) -> dict[int, str]:
    return []


def different(ids: Sequence[int], among: Sequence[int]) -> Mapping[int, int]:
    return {}


def test_shares_grow_less_than_weights_and_spend_the_budget() -> None:
    assert shares({"a": 100, "b": 25, "c": 0}, 20) == {"a": 13, "b": 6, "c": 1}
    assert sum(shares({"a": 3, "b": 3, "c": 3}, 100).values()) == 100
    assert shares({"a": 1, "b": 9, "c": 4}, 2) == {"b": 1, "c": 1}
    assert shares({}, 5) == {}


def test_every_group_gets_its_share_and_an_image_is_taken_once() -> None:
    groups = {"big": answers(0, 30), "small": answers(20, 30)}
    hits, warnings = select(groups, {"big": 90, "small": 10}, 20, leaks=nothing, duplicates=different)
    assert len(hits) == len({hit.image_id for hit in hits}) == 20
    assert [hit.rank for hit in hits] == list(range(1, 21))
    assert sum(hit.group == "small" for hit in hits) == shares({"big": 90, "small": 10}, 20)["small"]
    assert {hit.outcome_id for hit in hits} == {7}
    assert warnings == []


def test_a_dry_group_leaves_its_share_and_a_dry_pool_is_told() -> None:
    groups = {"a": answers(0, 3), "b": answers(100, 40)}
    hits, _ = select(groups, {"a": 50, "b": 50}, 30, leaks=nothing, duplicates=different)
    assert len(hits) == 30
    hits, warnings = select(groups, {"a": 50, "b": 50}, 60, leaks=nothing, duplicates=different)
    assert len(hits) == 43
    assert "43 images where 60" in warnings[0]


def test_leaks_are_refused_and_duplicates_passed_over() -> None:
    hits, warnings = select(
        {"a": answers(0, 20)},
        {"a": 1},
        10,
        leaks=lambda ids: {i: "nearly equals a mined image" for i in ids if i < 3},
        duplicates=lambda ids, among: {i: i - 1 for i in ids if i % 2 and i - 1 in among},
        strength=0,
    )
    assert [hit.image_id for hit in hits] == [3, *range(4, 20, 2)]
    assert any("3 answers refused" in w for w in warnings)
    assert any("near-duplicates" in w for w in warnings)


def test_copies_wait_when_diversity_counts() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]])
    ranked, _ = select(
        {"a": answers(0, 4, vectors=vectors)}, {"a": 1}, 2, leaks=nothing, duplicates=different, strength=0
    )
    varied, _ = select(
        {"a": answers(0, 4, vectors=vectors)}, {"a": 1}, 2, leaks=nothing, duplicates=different, strength=5
    )
    assert [h.image_id for h in ranked] == [0, 1]
    assert [h.image_id for h in varied] == [0, 3]


def test_what_a_doubtful_group_cannot_spend_goes_to_the_best_of_any() -> None:
    groups = {"sure": answers(0, 40), "doubtful": answers(100, 40)}
    floors = {"sure": 5.0, "doubtful": 39.0}
    hits, _ = select(
        groups,
        {"sure": 50, "doubtful": 50},
        30,
        leaks=nothing,
        duplicates=different,
        floors=floors,
        strength=0,
    )
    from_doubtful = [hit.score for hit in hits if hit.group == "doubtful"]
    assert len(hits) == 30
    assert from_doubtful[:2] == [40.0, 39.0]
    assert min(hit.score for hit in hits) >= 25  # the rest is ranked over both groups together
