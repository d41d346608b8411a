"""Every arm, built in or installed: at most the budget, repeatable, from a plain context."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from curator.errors import ConfigError
from curator.prove.arms.base import Added, ArmContext, Needs, Pool, place, split_label
from curator.prove.run_arms import load_arms
from curator.prove.settings import VerifyConfig
from curator.prove.trainers.torchvision import TorchvisionTrainer
from curator.registry import ARMS, TRAINERS, Registry
from store.records import AnnotationSet, ImageRecord


def context(count: int = 20) -> ArmContext:
    """A pool whose images 1 to 4 hold the failing group "post", 5 and 6 "dark"."""
    images = {
        i: ImageRecord(
            id=i, uri=f"{i}.png", sha256=f"{i * 7919 % 1000:064d}", phash="0" * 16, width=9, height=9
        )
        for i in range(1, count + 1)
    }
    labels = {
        i: AnnotationSet(image_id=i, version=1, key=f"{i}", status="human", annotations=()) for i in images
    }
    pool = Pool(images, labels, {i: frozenset({"post"} if i < 5 else ()) for i in images})
    return ArmContext(
        seed=3,
        hits={"": tuple(Added(sha256=f"hit {k}", annotations=()) for k in range(count))},
        samples=tuple(Added(sha256=f"sample {k}", annotations=()) for k in range(count)),
        pool=pool,
        fails={1: ("post",), 2: ("post",), 3: ("post",), 4: ("post",), 5: ("dark",), 6: ("dark",)},
    )


@pytest.mark.parametrize("name", ARMS.names())
@pytest.mark.parametrize("budget", [1, 5, 100])
def test_an_arm_adds_what_the_budget_allows_once_and_repeatably(name: str, budget: int) -> None:
    (arm,) = load_arms([name]).values()
    given = context()
    chosen = [image.sha256 for image in arm.images(given, budget=budget, seed=0)]
    available = 40 if name in ("both", "query+synthesis") else 20
    assert len(chosen) == (0 if name == "nothing" else min(budget, available))
    assert len(set(chosen)) == len(chosen)
    assert chosen == [image.sha256 for image in arm.images(context(), budget=budget, seed=0)]
    other = [image.sha256 for image in arm.images(given, budget=budget, seed=1)]
    if not arm.drawn:
        assert other == chosen
    elif budget == 5:
        assert other != chosen


@pytest.mark.parametrize("name", ARMS.names())
def test_an_arm_uses_no_more_than_it_says(name: str) -> None:
    (arm,) = load_arms([name]).values()
    needs, full = arm.needs(5), context()
    least = ArmContext(
        seed=full.seed,
        hits={name: full.hits[name][:count] for name, count in needs.hits.items()},
        samples=full.samples[: needs.samples],
        pool=full.pool if needs.pool else None,
        fails=full.fails if needs.fails else None,
    )
    assert list(arm.images(least, budget=5, seed=0)) == list(arm.images(full, budget=5, seed=0))


def test_both_takes_the_odd_image_from_the_query() -> None:
    arm = load_arms(["both"])["both"]
    assert arm.needs(5) == Needs(hits={"": 3}, samples=2)
    chosen = [image.sha256 for image in arm.images(context(), budget=5, seed=0)]
    assert chosen == ["hit 0", "hit 1", "hit 2", "sample 0", "sample 1"]


def test_the_oracle_takes_failing_groups_turn_by_turn() -> None:
    arm = load_arms(["oracle"])["oracle"]
    groups = [image.group for image in arm.images(context(), budget=8, seed=0)]
    assert groups == ["dark", "post", "dark", "post", "post", "post", "random", "random"]
    held = [image.conditions for image in arm.images(context(), budget=2, seed=0)]
    assert held == [(), ("post",)]


def test_unknown_arms_are_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"expected some of nothing, random, query, .* got guess"):
        load_arms(["random", "guess"])
    assert {*VerifyConfig().arms, "both"} == set(ARMS.names())


def test_a_selection_of_any_name_and_a_query_method_are_arms() -> None:
    arms = load_arms(["selection:mine", "class-uncertainty"], {"class-uncertainty": "verify-cu"})
    assert arms["selection:mine"].needs(3) == Needs(hits={"mine": 3})
    assert arms["class-uncertainty"].needs(3) == Needs(hits={"verify-cu": 3})
    with pytest.raises(ConfigError, match="got selection:"):
        load_arms(["selection:"])


def test_arms_stand_in_tables_by_kind_and_budget() -> None:
    labels = ["oracle", "query@40", "selection:mine", "random@9", "query@9", "nothing"]
    assert sorted(labels, key=place) == [
        "nothing",
        "random@9",
        "query@9",
        "query@40",
        "selection:mine",
        "oracle",
    ]
    assert split_label("query@40") == ("query", 40)
    assert split_label("selection:a@b") == ("selection:a@b", None)


def test_another_package_adds_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoint("mine", "curator.prove.arms.query:Query", "curator.arms")
    monkeypatch.setattr(Registry, "_entry_points", lambda self: [found] if self.kind == "arms" else [])
    assert load_arms(["mine"])["mine"].needs(4) == Needs(hits={"": 4})
    with pytest.raises(ConfigError, match=r"mine, oracle, selection:NAME, .* got guess"):
        load_arms(["guess"])


def test_the_built_in_trainer_is_found_by_name() -> None:
    assert TRAINERS.load("torchvision") is TorchvisionTrainer
    assert TRAINERS.names() == ["command", "hf", "torchvision", "ultralytics"]
