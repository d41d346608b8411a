"""Recipes: labels stay right, occlusion is bounded, plans are deterministic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from curator.boxes import intersection
from curator.errors import StageError
from curator.registry import RECIPES
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.recipes.appearance import AppearanceRecipe, shrink
from curator.synthesize.recipes.culprit import MAX_OCCLUSION, CulpritRecipe, culprit_mask
from curator.synthesize.recipes.lookalike import LookalikeRecipe
from curator.synthesize.recipes.placing import covered, kept_labels
from curator.synthesize.work import load_inpainter, paint
from curator.tensors import image_pixels, image_tensor
from store.records import NewAnnotation

MakeExemplar = Callable[..., Exemplar]
MakeImage = Callable[..., torch.Tensor]


def test_the_registry_knows_the_recipes() -> None:
    assert {RECIPES.load(name)().name for name in ("culprit", "lookalike", "appearance")} == {
        "culprit",
        "lookalike",
        "appearance",
    }


def test_a_culprit_is_found_whole_from_a_blamed_part(failing: MakeExemplar) -> None:
    mask = culprit_mask(failing())
    assert mask is not None
    rows, columns = np.nonzero(mask)
    assert 48 <= columns.min() <= 50
    assert 56 <= columns.max() + 1 <= 58
    assert rows.min() < 38  # the post goes on above the blamed segments and above the cup
    assert rows.max() > 72


@pytest.mark.parametrize("seed", range(6))
def test_a_culprit_covers_a_bounded_part_and_all_labels_are_kept(
    scene: Scene, seed: int, failing: MakeExemplar
) -> None:
    plan = CulpritRecipe().plan(failing(), scene, seed=seed)
    target = scene.annotations[plan.details["object"]]
    assert target.category == "cup"
    assert 0 <= covered(plan.mask, target.box) <= MAX_OCCLUSION
    assert target in plan.annotations
    assert plan.painted == _bounds(plan)
    assert plan.exemplar.shape[1:] == (plan.painted[3] - plan.painted[1], plan.painted[2] - plan.painted[0])
    assert float(plan.exemplar.min()) < 0.25  # the dark post is what the exemplar shows


def test_without_an_explanation_the_failed_object_itself_is_painted(
    scene: Scene, failing: MakeExemplar
) -> None:
    plan = CulpritRecipe().plan(failing(blamed=False), scene, seed=1)
    assert plan.details["source"] == "box"
    old = scene.annotations[plan.details["object"]]
    assert covered(plan.mask, old.box) == 1
    assert old not in plan.annotations
    assert len(plan.annotations) == len(scene.annotations)
    new = plan.annotations[-1]
    assert new.category == "cup"
    x1, y1, x2, y2 = new.box
    assert (x2 - x1) / (y2 - y1) == pytest.approx(24 / 30, rel=0.05)
    assert covered(plan.mask, new.box) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_lookalike_is_unlabelled_and_away_from_objects(
    scene: Scene, seed: int, failing: MakeExemplar
) -> None:
    plan = LookalikeRecipe().plan(failing("FP"), scene, seed=seed)
    assert plan.annotations == scene.annotations
    assert float(intersection([plan.painted], [a.box for a in scene.annotations]).max()) == 0


def test_a_crowded_scene_has_no_place_for_a_lookalike(scene: Scene, failing: MakeExemplar) -> None:
    full = dataclasses.replace(
        scene, annotations=(NewAnnotation(category="plate", box=(0.0, 0.0, 96.0, 96.0)),)
    )
    with pytest.raises(StageError, match="no place free"):
        LookalikeRecipe().plan(failing("FP"), full, seed=0)


def test_a_scene_without_the_class_is_refused(scene: Scene, failing: MakeExemplar) -> None:
    bare = dataclasses.replace(scene, annotations=scene.annotations[2:])
    assert not CulpritRecipe().suits("cup", bare.annotations)
    with pytest.raises(StageError, match="no object of class cup"):
        CulpritRecipe().plan(failing(), bare, seed=0)


def test_objects_covered_by_more_than_seven_tenths_lose_their_label() -> None:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[:, :8] = True
    objects = (
        NewAnnotation(category="a", box=(0.0, 0.0, 10.0, 10.0)),
        NewAnnotation(category="b", box=(4.0, 0.0, 14.0, 10.0)),
    )
    assert [a.category for a in kept_labels(objects, mask)] == ["b"]


@pytest.mark.parametrize("kind", ["FN", "FP"])
def test_plans_are_deterministic_and_seeds_matter(scene: Scene, kind: str, failing: MakeExemplar) -> None:
    recipe = CulpritRecipe() if kind == "FN" else LookalikeRecipe()
    one, two, other = (recipe.plan(failing(kind), scene, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.exemplar, two.exemplar)
    assert one.painted == two.painted
    assert not torch.equal(one.mask, other.mask)


@settings(max_examples=100, deadline=None)
@given(factor=st.floats(0.15, 0.9), seed=st.integers(0, 1000))
def test_every_label_of_a_shrunken_scene_covers_its_object(factor: float, seed: int) -> None:
    image = torch.zeros(3, 60, 80)
    image[0, 10:30, 20:50] = 1
    annotation = NewAnnotation(category="cup", box=(20.0, 10.0, 50.0, 30.0))
    out, kept = shrink(image, (annotation,), factor, np.random.default_rng(seed))
    assert out.shape == image.shape
    painted = out[0] > 0.5
    labelled = torch.zeros(60, 80, dtype=torch.bool)
    for a in kept:
        x1, y1, x2, y2 = a.box
        assert 0 <= x1 < x2 <= 80
        assert 0 <= y1 < y2 <= 60
        inner = painted[int(np.ceil(y1 + 1)) : int(y2 - 1), int(np.ceil(x1 + 1)) : int(x2 - 1)]
        assert bool(inner.all())
        labelled[int(y1 - 1) if y1 > 1 else 0 : int(y2 + 2), int(x1 - 1) if x1 > 1 else 0 : int(x2 + 2)] = (
            True
        )
    parts, count = ndimage.label(painted.numpy())
    for part in range(1, count + 1):
        rows, columns = np.nonzero(parts == part)
        whole = rows.min() > 0 and columns.min() > 0 and rows.max() < 59 and columns.max() < 79
        if whole:  # one that the frame cuts may have become too little to be labelled
            assert bool(labelled[rows, columns].all())


def test_appearance_takes_colours_from_the_failure(
    scene: Scene, failing: MakeExemplar, textured: MakeImage
) -> None:
    dark = dataclasses.replace(failing(), image=textured(5) * torch.tensor([0.2, 0.2, 0.3])[:, None, None])
    plan = AppearanceRecipe().plan(dark, scene, seed=0)
    assert plan.details["change"] == "colour"
    assert plan.annotations == scene.annotations
    assert plan.rendered is not None
    x1, y1, x2, y2 = (int(v) for v in scene.annotations[plan.details["object"]].box)
    assert float(plan.rendered[:, y1:y2, x1:x2].mean()) < 0.6 * float(scene.image[:, y1:y2, x1:x2].mean())


@pytest.mark.parametrize("name", ["culprit", "replace", "lookalike", "appearance"])
def test_pixels_outside_the_mask_come_back_bit_identical(
    name: str, scene: Scene, failing: MakeExemplar, textured: MakeImage, tiny_folder: Path
) -> None:
    exemplar = {
        "culprit": failing(),
        "replace": failing(blamed=False),
        "lookalike": failing("FP"),
        "appearance": dataclasses.replace(failing(), image=textured(5) * 0.3),
    }[name]
    recipe = RECIPES.load({"replace": "culprit"}.get(name, name))()
    scene = dataclasses.replace(scene, image=image_tensor(image_pixels(scene.image)))
    plans: dict[int, SamplePlan] = {}
    for seed in range(24):
        try:
            plans[seed] = recipe.plan(exemplar, scene, seed=seed)
        except StageError:
            continue  # no place for it
    assert len(plans) > 8
    samples = paint(load_inpainter(f"curator:{tiny_folder}", 1, "cpu"), plans)
    partial = 0
    for seed, plan in plans.items():
        outside = ~plan.mask
        partial += bool(outside.any())
        assert torch.equal(samples[seed][:, outside], scene.image[:, outside])
        assert not torch.equal(samples[seed][:, plan.mask], scene.image[:, plan.mask])
    assert partial > 4


def test_appearance_answers_a_small_object_by_scale_and_refuses_where_nothing_differs(
    scene: Scene, failing: MakeExemplar
) -> None:
    tiny = dataclasses.replace(failing(), box=(50.0, 50.0, 58.0, 59.0))
    plan = AppearanceRecipe().plan(tiny, scene, seed=0)
    assert plan.details["change"] == "scale"
    assert len(plan.annotations) > len(scene.annotations)
    same = dataclasses.replace(failing(), image=scene.image, box=scene.annotations[1].box)
    alone = dataclasses.replace(scene, annotations=scene.annotations[1:2])
    with pytest.raises(StageError, match="already"):
        AppearanceRecipe().plan(same, alone, seed=0)


def _bounds(plan: SamplePlan) -> tuple[float, ...]:
    rows, columns = plan.mask.any(1).nonzero()[:, 0], plan.mask.any(0).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
