"""Every arm, built in or installed: at most the budget, repeatable, from a plain context."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from curator.errors import ConfigError
from curator.prove.arms.base import Added, ArmContext, Cutouts, Labelled, Needs, Pool, place, split_label
from curator.prove.arms.copy_paste import cut_out, pasted
from curator.prove.run_arms import load_arms
from curator.prove.settings import VerifyConfig
from curator.prove.trainers.torchvision import TorchvisionTrainer
from curator.registry import ARMS, TRAINERS, Registry
from store.images import encode_png, read_bytes_as_pixels, read_pixels
from store.records import Annotation, AnnotationSet, ImageRecord


@lru_cache
def cutouts() -> Cutouts:
    """Three missed objects of one picture and two training images with an object each."""
    rng = np.random.default_rng(0)
    labelled = []
    for number, size in enumerate([(40, 60), (48, 48), (64, 32)]):
        path = Path(tempfile.mkdtemp()) / f"{number}.png"
        path.write_bytes(data := encode_png(rng.integers(0, 255, (*size, 3), dtype=np.uint8)))
        record = ImageRecord(
            id=number,
            uri=str(path),
            sha256=hashlib.sha256(data).hexdigest(),
            phash="0" * 16,
            width=size[1],
            height=size[0],
        )
        boxes = [(4.0, 4.0, 20.0, 14.0), (22.0, 6.0, 31.0, 30.0), (1.0, 20.0, 9.0, 31.0)]
        polygon = ((4.0, 4.0, 20.0, 4.0, 12.0, 14.0),)
        annotations = tuple(
            Annotation(
                id=10 * number + k, category_id=1, category="cat", box=box, polygon=None if k else polygon
            )
            for k, box in enumerate(boxes[: 1 if number else 3])
        )
        labelled.append(Labelled(record, annotations))
    return Cutouts([(labelled[0], a) for a in labelled[0].annotations], labelled[1:])


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
        cutouts=cutouts(),
        fails={1: ("post",), 2: ("post",), 3: ("post",), 4: ("post",), 5: ("dark",), 6: ("dark",)},
    )


@pytest.mark.parametrize("name", ARMS.names())
@pytest.mark.parametrize("budget", [1, 5, 100])
def test_an_arm_adds_what_the_budget_allows_once_and_repeatably(name: str, budget: int) -> None:
    (arm,) = load_arms([name]).values()
    given = context()
    chosen = [image.sha256 for image in arm.images(given, budget=budget, seed=0)]
    available = {"both": 40, "query+synthesis": 40, "copy-paste": 100}.get(name, 20)
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
        cutouts=full.cutouts if needs.cutouts else None,
    )
    assert list(arm.images(least, budget=5, seed=0)) == list(arm.images(full, budget=5, seed=0))


def test_copy_paste_labels_what_it_shows() -> None:
    given = context()
    scenes = {a.sha256: a for a in (one.image for one in cutouts().scenes)}
    for image in load_arms(["copy-paste"])["copy-paste"].images(given, budget=20, seed=0):
        pixels = read_bytes_as_pixels(image.data)
        assert hashlib.sha256(image.data).hexdigest() == image.sha256
        assert pixels.shape[:2] in [(s.height, s.width) for s in scenes.values()]
        assert 1 <= len(image.annotations) <= 4
        for a in image.annotations:
            x1, y1, x2, y2 = a.box
            assert 0 <= x1 < x2 <= pixels.shape[1]
            assert 0 <= y1 < y2 <= pixels.shape[0]


def test_copy_paste_puts_the_objects_own_pixels_there_and_hides_labels_beneath() -> None:
    given = cutouts()
    source, annotation = given.objects[1]  # a plain box
    scene = given.scenes[0]
    whole = replace(scene.annotations[0], box=(0.0, 0.0, 0.9, 0.9))
    made = pasted(replace(scene, annotations=(whole,)), [(source, annotation)] * 3, np.random.default_rng(2))
    assert made is not None
    before = read_pixels(scene.image.uri, sha256=scene.image.sha256)
    changed = (read_bytes_as_pixels(made.data) != before).any(2)
    within = np.zeros(changed.shape, bool)
    for a in made.annotations:
        if a is not whole:
            x1, y1, x2, y2 = (int(v) for v in a.box)
            within[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
    assert changed.any()
    assert not (changed & ~within).any()
    hidden = replace(scene.annotations[0], box=(10.0, 10.0, 11.0, 11.0))
    bare = replace(scene, annotations=(hidden,))
    made_of = [pasted(bare, [(source, annotation)], np.random.default_rng(seed)) for seed in range(40)]
    assert {len(one.annotations) for one in made_of if one} == {1, 2}  # a hidden label is gone


def test_cutouts_have_soft_edges_and_thin_ones_vanish_quietly() -> None:
    given = cutouts()
    source, annotation = given.objects[1]
    found = cut_out(read_pixels(source.image.uri, sha256=source.image.sha256), annotation)
    assert found is not None
    mask = found[1]
    assert mask[0].max() < mask[4].max() == 255  # a box's edge too
    line = (4.0, 4.0, 20.0, 27.0, 20.0, 27.6)
    thin = replace(annotation, box=(4.0, 4.0, 20.0, 27.6), polygon=(line,))
    for seed in range(60):
        made = pasted(given.scenes[0], [(source, thin)], np.random.default_rng(seed))
        if made is not None:
            assert all(a.box[0] < a.box[2] and a.box[1] < a.box[3] for a in made.annotations)


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
