"""Selections, samples, data set versions and trials."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from store.errors import NotFoundError
from store.records import DatasetVersion, NewAnnotation, Sample, Trial, Verdict
from store.store import Store


@pytest.fixture
def images(store: Store, run: int, build: Any) -> list[int]:
    return [added.image_id for added in store.add_images(run, [build.image(n, "pool") for n in range(5)])]


def sample(image: int, key: str = "s", **more: Any) -> Sample:
    label = NewAnnotation(
        category="car",
        box=(1.0, 2.0, 3.0, 4.0),
        polygon=((1.0, 2.0, 3.0, 4.0, 5.0, 6.0),),
        attributes={"made": True},
    )
    facts: dict[str, Any] = {"name": "batch", **more}
    return Sample(
        blob="0" * 64,
        width=64,
        height=48,
        recipe="culprit",
        group="FN:miss:car",
        scene_image_id=image,
        exemplar_image_id=None,
        outcome_id=None,
        painted=(1.0, 2.0, 3.5, 4.0),
        annotations=(label,),
        seed=7,
        key=key,
        **facts,
    )


def test_a_selection_comes_back_and_is_replaced_by_name(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    first = build.selection(images[:3][::-1])
    selection_id = store.put_selection(run, first)
    assert store.put_selection(run, first) == selection_id
    assert store.selection("query") == replace(first, id=selection_id)
    assert store.selection("query").image_ids == tuple(images[:3][::-1])
    second = build.selection(images[3:], key="other")
    assert store.put_selection(run, second) == selection_id
    assert store.selections() == [replace(second, id=selection_id)]
    assert store.counts()["hits"] == 2
    with pytest.raises(NotFoundError, match="there are: query"):
        store.selection("absent")


def test_a_selection_that_fails_keeps_the_old_one(
    store: Store, run: int, build: Any, images: list[int]
) -> None:
    old = build.selection(images[:2])
    store.put_selection(run, old)
    with pytest.raises(NotFoundError, match="no image 999"):
        store.put_selection(run, build.selection([images[3], 999], key="other"))
    assert store.selection("query").image_ids == tuple(images[:2])


def test_samples_and_their_verdicts(store: Store, run: int, images: list[int]) -> None:
    new = sample(images[0])
    sample_id = store.put_sample(run, new)
    assert store.put_sample(run, new) == sample_id
    assert store.samples() == [replace(new, id=sample_id)]
    assert store.samples(accepted=True) == []
    good = Verdict(check="seam", accepted=True, value=0.5, bound=1.0, reason="0.5 <= 1")
    bad = Verdict(check="detector", accepted=False, value=math.inf, bound=0.5, reason="no box")
    store.put_verdicts(run, "s", [good, bad])
    assert store.samples(accepted=False)[0].verdicts == (good, bad)
    store.put_verdicts(run, "s", [good])
    assert store.samples(name="batch", accepted=True)[0].verdicts == (good,)
    store.put_sample(run, sample(images[1], "t", name="other", verdicts=(bad,)))
    assert [found.key for found in store.samples(name="other")] == ["t"]
    store.put_sample(
        run, sample(images[1], "t", name="other", verdicts=(good,))
    )  # an equal key changes nothing
    assert store.samples(name="other")[0].verdicts == (bad,)
    with pytest.raises(NotFoundError):
        store.put_verdicts(run, "absent", [good])


def test_versions_are_kept(store: Store, run: int, images: list[int]) -> None:
    first = DatasetVersion(
        name="v", image_ids=tuple(images[::-1]), sample_ids=(4, 2), manifest={"files": [1]}, key="a"
    )
    ids = [store.put_version(run, version) for version in (first, first, replace(first, key="b"))]
    assert ids[0] == ids[1] != ids[2]
    assert store.version("v").key == "b"
    assert store.versions()[0] == replace(first, id=ids[0])
    with pytest.raises(NotFoundError, match="curator export"):
        store.version("absent")


def test_trials_of_the_current_verification(store: Store, run: int) -> None:
    def trial(arm: str, seed: int, key: str, name: str = "verify") -> Trial:
        return Trial(verification=name, arm=arm, seed=seed, metrics={"fixed": 0.5}, key=key)

    for new in (
        trial("query", 0, "a"),
        trial("query", 1, "b"),
        trial("query", 0, "c"),
        trial("x", 0, "d", "other"),
    ):
        assert store.put_trial(run, new) == store.put_trial(run, new)
    assert [found.key for found in store.trials("verify")] == ["c", "b"]  # the newest per arm and seed
    store.begin_run("verify", config={}, scope="verify", facts={"trials": ["b", "a", "not trained yet"]})
    assert [found.key for found in store.trials("verify")] == ["b", "a"]
    assert [found.key for found in store.trials()] == ["d", "b", "a"]
    store.begin_run("verify", config={}, scope="other", facts={"trials": []})
    assert [found.key for found in store.trials()] == ["b", "a"]


def test_a_batch_holds_the_samples_of_its_current_configuration_alone(
    store: Store, run: int, images: list[int]
) -> None:
    def synthesize(config_key: str, budget: int, plans: int) -> int:
        facts = {"budget": budget, "plans": plans}
        return store.begin_run("synthesize", config={}, config_key=config_key, scope="batch", facts=facts)

    def keys() -> list[str]:
        return [found.key for found in store.samples(name="batch")]

    good = Verdict(check="seam", accepted=True, value=0.5, bound=1.0, reason="0.5 <= 1")
    store.put_sample(run, sample(images[0], "old"))
    assert keys() == ["old"]
    first = synthesize("a", 2, 9)
    for number, verdicts in ((3, (good,)), (0, (good,)), (1, ()), (2, (good,))):  # in any order
        store.put_sample(first, sample(images[0], f"a{number}", number=number, verdicts=verdicts))
    assert keys() == ["a0", "a1", "a2"]  # where the second one is accepted
    second = synthesize("b", 5, 9)
    store.put_sample(second, sample(images[0], "b0"))
    assert keys() == ["b0"]
    synthesize("a", 5, 2)
    assert keys() == ["a0", "a1"]
    synthesize("a", 5, 9)
    assert keys() == ["a0", "a1", "a2", "a3"]
    assert [found.key for found in store.samples(config_key="b")] == ["b0"]
