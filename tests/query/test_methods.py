"""Every ranking method through one suite; the out-of-fold table; filters."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from curator.errors import InputError, StageError
from curator.query.asked import Images
from curator.query.filters import KEYS, PoolFilter
from curator.query.judging import failures_per_image, judge
from curator.query.kinds import Kinds
from curator.query.methods.base import image_scores
from curator.query.run_answers import Question, scores_by_group
from curator.query.settings import QueryConfig
from curator.registry import RANKERS
from store.records import Membership
from tests.query.tables import ASKED, planted

NAMES = ("predictor", "contrastive", "similarity", "uncertainty", "class-uncertainty", "diversity", "random")


def test_the_registry_knows_them_all() -> None:
    assert set(RANKERS.names()) >= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name: str) -> None:
    """A score per image, finite, the same again, and no other for images that come in another order."""
    mined, pool, truth = planted(80, 60, share=0.35)
    scorer = RANKERS.load(name)().fit(mined, ASKED, seed=3)
    ids, scores, best = image_scores(scorer, pool)
    assert len(ids) == len(scores) == len(best) == 60
    assert np.array_equal(pool.image_ids[best], ids)
    assert np.isfinite(scores).all()
    again = image_scores(RANKERS.load(name)().fit(mined, ASKED, seed=3), pool)[1]
    np.testing.assert_array_equal(scores, again)
    backwards = np.concatenate([np.flatnonzero(pool.image_ids == i) for i in ids[::-1]])
    turned = image_scores(scorer, pool.take(backwards))
    np.testing.assert_allclose(turned[1][::-1], scores, rtol=1e-4, atol=1e-6)
    if name in ("predictor", "similarity", "contrastive"):
        first = np.argsort(-scores)[:15]
        assert (truth[first] > 0).mean() > (truth > 0).mean() + 0.2


def test_random_differs_by_seed() -> None:
    mined, pool, _ = planted(10, 30, share=0.3)
    one, two = (image_scores(RANKERS.load("random")().fit(mined, ASKED, seed=s), pool)[1] for s in (1, 2))
    assert not np.array_equal(one, two)


def test_class_uncertainty_counts_what_is_nearly_seen_and_what_is_hardly_believed() -> None:
    mined, pool, _ = planted(10, 5, share=0.3)
    missed = RANKERS.load("class-uncertainty")().fit(mined, ASKED, seed=0).values(pool)
    false = RANKERS.load("class-uncertainty")().fit(mined, replace(ASKED, kind="FP"), seed=0).values(pool)
    own = pool.labels == 0
    score = np.where(own.any(1), np.where(own, pool.scores, 0).max(1), 0)
    np.testing.assert_allclose(missed, np.where(score < 0.5, score, 0), rtol=1e-6)
    np.testing.assert_allclose(false, np.where(score >= 0.5, 1 - score, 0), rtol=1e-6)


def test_the_table_judges_images_that_were_not_seen() -> None:
    mined, _, _ = planted(120, 1, share=0.3)
    names = ("predictor", "class-uncertainty", "similarity", "random")
    rankers = {name: RANKERS.load(name)() for name in names}
    known = {"predictor": rankers["predictor"].fit(mined, ASKED, seed=0)}
    rows = {row.method: row for row in judge(rankers, mined, ASKED, seed=0, known=known)}
    truth = failures_per_image(mined, ASKED)
    assert all(row.true == truth.sum() for row in rows.values())
    assert rows["predictor"].average_precision > rows["random"].average_precision + 0.3
    assert rows["predictor"].expected == pytest.approx(truth.sum(), rel=0.2)
    assert rows["random"].expected is None
    # No label leaks: with failures at random places nothing is learned.
    rng = np.random.default_rng(5)
    noise = {k: v[rng.permutation(len(v))] for k, v in mined.outcomes.views.items()}
    shuffled = {k: v[rng.permutation(len(v))] for k, v in mined.offered.views.items()}
    blind = replace(
        mined,
        outcomes=replace(mined.outcomes, views=noise),
        offered=replace(mined.offered, views=shuffled),
    )
    (row,) = judge({"predictor": rankers["predictor"]}, blind, ASKED, seed=0)
    assert row.average_precision < 0.55


def test_few_failing_images_are_not_judged() -> None:
    mined, _, _ = planted(10, 1, share=0.0)
    assert judge({"random": RANKERS.load("random")()}, mined, ASKED, seed=0) == []


def test_groups_share_what_an_image_is_expected_to_hold_and_no_nan_is_hidden() -> None:
    mined, pool, _ = planted(120, 40, share=0.4)
    scorer = RANKERS.load("predictor")().fit(mined, ASKED, seed=0)
    kinds = Kinds.of(mined.asking(ASKED), ASKED.name, ("object", "context"), spread=True, seed=0)
    assert len(kinds.names) > 1
    images = Images.of(pool.image_ids)
    split = scores_by_group(Question(asked=ASKED, scorer=scorer, kinds=kinds), pool, images)
    np.testing.assert_allclose(split.sum(1), image_scores(scorer, pool)[1], rtol=1e-9)

    class Broken:
        pooling, expects, note = "sum", True, ""

        def values(self, rows: object) -> np.ndarray:
            return np.where(pool.image_ids == pool.image_ids[0], np.nan, 1.0)

    with pytest.raises(StageError, match=r"nan for 1 pool images \(first: 10000\)"):
        scores_by_group(Question(asked=ASKED, scorer=Broken(), kinds=kinds), pool, images)  # type: ignore[arg-type]


def member(**facts: object) -> Membership:
    return Membership(image_id=1, role="pool", **{"dataset": "a", **facts})  # type: ignore[arg-type]


def test_filters_read_the_facts_of_memberships() -> None:
    night = PoolFilter.parse("dataset=a|b, source=cam1")
    assert night.allows(member(source="cam1"))
    assert not night.allows(member(source="cam2"))
    assert not night.allows(member(dataset="c", source="cam1"))
    spring = PoolFilter.parse("after=2026-03-01,before=2026-06-01")
    assert spring.allows(member(captured_at=datetime(2026, 3, 1)))
    assert not spring.allows(member(captured_at=datetime(2026, 6, 1)))
    assert not spring.allows(member())
    assert PoolFilter.parse("").empty
    assert PoolFilter.parse("selected=no").unselected


def test_one_list_of_keys_stands_everywhere() -> None:
    docs = Path(__file__).parents[2] / "docs"
    with pytest.raises(InputError) as refused:
        PoolFilter.parse("nonsense=1")
    option = next(f for f in fields(QueryConfig) if f.name == "where").metadata["help"]
    (table,) = re.findall(r"^\| `--where`.*", (docs / "cli.md").read_text(), re.M)
    (page,) = re.findall(r"- `--where .*?(?=\n- )", (docs / "query.md").read_text(), re.S)
    for text in (option, str(refused.value), table, page):
        assert [key for key in KEYS if key not in text] == []
        assert "alternatives" in text
        assert "|" in text


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("split=val", "there is no split val; there are test, train"),
        ("split=val|dev", "there is no split dev|val; there are test, train"),
        ("split=train,source=5.jpg", "there is no source 5.jpg; there are 0.jpg, 1.jpg, 2.jpg, 3.jpg"),
        ("dataset=b", "there is no dataset b; there are a"),
        ("group=cam1", "none of them has a group"),
        ("split=test,after=2026-01-01", "their dates reach from 2025-05-01T00:00:00 to 2025-05-02T00:00:00"),
        ("split=train,before=2026-01-01", "none of them has a date"),
        ("split=train,selected=no", "all that pass the rest are in a selection already"),
    ],
)
def test_a_filter_that_nothing_passes_says_what_there_is(where: str, said: str) -> None:
    members = [
        *(member(split="train", source=f"{n}.jpg") for n in range(4)),
        *(member(split="test", source=f"{n}.jpg", captured_at=datetime(2025, 5, n - 4)) for n in (5, 6)),
    ]
    assert PoolFilter.parse(where).why_none(members) == said
    many = [member(source=f"{n:02}.jpg") for n in range(12)]
    assert PoolFilter.parse("source=x").why_none(many).endswith("06.jpg, 07.jpg, ... (12 in all)")


@pytest.mark.parametrize("text", ["source", "nonsense=1", "after=yesterday", "selected=yes", "source="])
def test_filters_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--where: expected"):
        PoolFilter.parse(text)
