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

from curator.boxes import area, clip, expand, intersection
from curator.errors import StageError
from curator.registry import RECIPES
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.convention import is_modal
from curator.synthesize.painting import load_inpainter, paint
from curator.synthesize.photometry import blur, blurred, noise, noisy, spread
from curator.synthesize.recipes.appearance import AppearanceRecipe, shrink
from curator.synthesize.recipes.culprit import MAX_OCCLUSION, CulpritRecipe, culprit_mask
from curator.synthesize.recipes.lookalike import LookalikeRecipe
from curator.synthesize.recipes.object import ObjectRecipe
from curator.synthesize.recipes.placing import covered, labels_left
from curator.synthesize.recipes.removal import RemovalRecipe, hole_of, objects
from curator.synthesize.recipes.standing import SWAYS, wanted_sides
from curator.synthesize.surroundings import Surroundings
from curator.tensors import image_pixels, image_tensor
from store.records import NewAnnotation

MakeExemplar = Callable[..., Exemplar]
MakeImage = Callable[..., torch.Tensor]


def test_the_registry_knows_the_recipes() -> None:
    names = {"object", "context", "culprit", "lookalike", "appearance", "removal"}
    assert {RECIPES.load(name)().name for name in names} == names


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


def test_the_object_behind_counts_as_made_and_is_what_must_not_be_painted(
    scene: Scene, failing: MakeExemplar
) -> None:
    for seed in range(4):
        plan = CulpritRecipe().plan(failing(), scene, seed=seed)
        assert scene.annotations[plan.details["object"]] in [plan.annotations[i] for i in plan.made]
        assert plan.prompt is None
        assert plan.negative_prompt == "cup"


def test_a_culprit_is_pasted_with_its_own_pixels(scene: Scene, failing: MakeExemplar) -> None:
    plan = CulpritRecipe().plan(failing(), scene, seed=2)
    assert plan.composed is not None
    changed = (plan.composed - scene.image).abs().sum(0) > 0.3
    assert bool(changed.any())
    assert float(plan.composed[:, changed].mean()) < 0.35  # the post is dark
    assert torch.equal(plan.composed[:, ~plan.mask], scene.image[:, ~plan.mask])


def test_where_nothing_is_blamed_there_is_no_culprit(scene: Scene, failing: MakeExemplar) -> None:
    with pytest.raises(StageError, match="nothing is blamed"):
        CulpritRecipe().plan(failing(blamed=False), scene, seed=1)


@pytest.mark.parametrize("seed", range(8))
def test_a_missed_object_is_pasted_and_labelled_by_what_is_seen(
    scene: Scene, seed: int, failing: MakeExemplar
) -> None:
    exemplar = failing(blamed=False)
    plan = ObjectRecipe().plan(exemplar, scene, seed=seed)
    assert len(plan.annotations) == len(scene.annotations) + 1
    assert plan.made == (len(scene.annotations),)
    new = plan.annotations[-1]
    assert new.category == "cup"
    x1, y1, x2, y2 = new.box
    assert (x2 - x1) / (y2 - y1) == pytest.approx(24 / 30, rel=0.15)
    assert np.sqrt((x2 - x1) * (y2 - y1) / (24 * 30)) * 1.1 >= 0.6
    assert abs(y2 - 70) < 3 * max(SWAYS) * scene.image.shape[1]  # the height follows decision 0014
    for old in scene.annotations:
        smaller = min(float(area(old.box)), float(area(new.box)))
        assert float(intersection([old.box], [new.box])[0, 0]) <= 0.25 * smaller
    assert plan.composed is not None
    inner = plan.composed[:, int(y1) + 3 : int(y2) - 3, int(x1) + 3 : int(x2) - 3]
    assert float((inner[0] - inner[1] > 0.2).float().mean()) > 0.4  # red, but for the post
    assert torch.equal(plan.composed[:, ~plan.mask], scene.image[:, ~plan.mask])
    assert plan.prompt == "a photo of a cup"


def test_an_object_that_its_image_cuts_off_stays_at_the_border(scene: Scene, failing: MakeExemplar) -> None:
    exemplar = failing(blamed=False)
    cut = dataclasses.replace(
        exemplar, image=exemplar.image[:, :, 50:].contiguous(), box=(0.0, 40.0, 14.0, 70.0)
    )
    free = dataclasses.replace(scene, annotations=scene.annotations[:1])
    for seed in range(6):
        plan = ObjectRecipe().plan(cut, free, seed=seed)
        x1, _, x2, _ = plan.annotations[-1].box
        assert x2 == 96 if plan.details["mirrored"] else x1 == 0


def test_an_object_s_size_follows_its_class_at_that_height_within_bounds() -> None:
    image = torch.zeros(3, 100, 100)
    boxes = [
        (10.0, 10.0 + 10 * k, 12.0 + 4 * k, 14.0 + 14 * k) for k in range(1, 5)
    ]  # nearer ones are larger
    near = Scene(
        image_id=1, image=image, annotations=tuple(NewAnnotation(category="cup", box=b) for b in boxes)
    )
    failed = Exemplar(
        image_id=2,
        outcome_id=1,
        group="g",
        kind="FN",
        category="cup",
        image=image,
        box=(0.0, 0.0, 10.0, 50.0),
    )
    feet = np.array([0.3, 0.5, 0.7])
    sides = wanted_sides(feet, (0.5, 0.12), failed, near)
    assert sides[0] < sides[1] < sides[2]
    assert wanted_sides(feet, (0.5, 0.5), failed, near).min() == pytest.approx(0.3)
    alone = dataclasses.replace(near, annotations=())
    assert wanted_sides(feet, (0.5, 0.12), failed, alone) == pytest.approx([0.12] * 3)
    others = dataclasses.replace(
        near, annotations=tuple(dataclasses.replace(a, category="plate") for a in near.annotations)
    )
    weaker = wanted_sides(feet, (0.5, 0.12), failed, others)
    assert abs(np.log(weaker / 0.12)).max() < abs(np.log(sides / 0.12)).max()


def test_an_object_too_small_to_be_enlarged_or_too_large_to_fit_is_refused(
    scene: Scene, failing: MakeExemplar
) -> None:
    exemplar = failing(blamed=False)
    large = torch.nn.functional.interpolate(scene.image[None], (480, 480))[0]
    with pytest.raises(StageError, match="enlarged"):
        ObjectRecipe().plan(exemplar, dataclasses.replace(scene, image=large, annotations=()), seed=0)
    full = dataclasses.replace(
        scene, annotations=(NewAnnotation(category="plate", box=(0.0, 0.0, 96.0, 96.0)),)
    )
    with pytest.raises(StageError, match="free enough"):
        ObjectRecipe().plan(exemplar, full, seed=0)


def test_surroundings_are_told_apart(textured: MakeImage) -> None:
    image = textured(3)
    image[:, :, 48:] *= 0.3
    noisy = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 48, 48)).astype(np.float32))
    image[:, 48:, :48] = (image[:, 48:, :48] + noisy).clamp(0, 1)
    around = Surroundings(image)
    light, also, dark, grainy = around.around(
        [(10, 10, 20, 20), (20, 24, 30, 34), (70, 10, 80, 20), (18, 66, 28, 76)]
    )
    same = np.linalg.norm(light - also)
    assert same < 0.2 * np.linalg.norm(light - dark)
    assert same < 0.5 * np.linalg.norm(light - grainy)


@pytest.mark.parametrize("seed", range(6))
def test_a_lookalike_is_unlabelled_and_away_from_objects(
    scene: Scene, seed: int, failing: MakeExemplar
) -> None:
    plan = LookalikeRecipe().plan(failing("FP"), scene, seed=seed)
    assert plan.annotations == scene.annotations
    assert plan.made == ()
    assert plan.prompt is None
    assert plan.negative_prompt == "cup"
    assert plan.composed is not None
    assert torch.equal(plan.composed[:, ~plan.mask], scene.image[:, ~plan.mask])
    assert float(plan.exemplar.min()) < 0.35  # the dark post
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
        NewAnnotation(category="c", box=(7.0, 0.0, 17.0, 10.0)),
        NewAnnotation(category="b", box=(4.0, 0.0, 14.0, 10.0)),
    )
    left, changed = labels_left(objects, mask)
    assert left == objects[1:]
    assert changed == (1,)  # the other is covered by a tenth


def test_boxes_of_a_modal_data_set_shrink_to_what_is_seen() -> None:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[:, :8] = True
    ring = (4.0, 0.0, 14.5, 0.0, 14.5, 10.0)
    objects = (
        NewAnnotation(category="b", box=(4.0, 0.0, 14.5, 10.0), polygon=(ring,)),
        NewAnnotation(category="c", box=(9.0, 0.0, 17.0, 10.0), polygon=(ring,)),
    )
    left, changed = labels_left(objects, mask, modal=True)
    assert left[0].box == (8, 0, 14.5, 10)
    assert left[0].polygon is None
    assert left[1] == objects[1]
    assert changed == (0,)


def outlined(rng: np.random.Generator, modal: bool) -> tuple[NewAnnotation, NewAnnotation]:
    """A square, and one that it hides in part: its outline ends at the first or goes on under it."""
    x, y = rng.uniform(0, 50, 2)
    front = (x, y, x + 20, y, x + 20, y + 20, x, y + 20)
    start = x + 20 if modal else x + 10
    hidden = (start, y + 5, x + 40, y + 5, x + 40, y + 15, start, y + 15)
    # A nose below the first one makes the boxes overlap either way.
    nose = (x + 10, y + 20, x + 40, y + 20, x + 40, y + 24, x + 10, y + 24)
    return (
        NewAnnotation(category="a", box=(x, y, x + 20, y + 20), polygon=(front,)),
        NewAnnotation(category="b", box=(x + 10, y + 5, x + 40, y + 24), polygon=(hidden, nose)),
    )


@pytest.mark.parametrize("modal", [True, False])
def test_outlines_tell_whether_boxes_end_where_objects_are_hidden(modal: bool) -> None:
    rng = np.random.default_rng(3)
    images = [outlined(rng, modal) for _ in range(12)]
    assert is_modal(images) == modal
    assert not is_modal(images[:5])  # too few to tell
    bare = [[dataclasses.replace(a, polygon=None) for a in pair] for pair in images]
    assert not is_modal(bare)


def test_a_plan_in_a_modal_scene_shrinks_the_box_behind_the_culprit(
    scene: Scene, failing: MakeExemplar
) -> None:
    beside = dataclasses.replace(failing(), box=(48.0, 40.0, 72.0, 70.0))  # the post hides its left edge
    shrunk = 0
    for seed in range(12):
        whole, seen = (
            CulpritRecipe().plan(beside, dataclasses.replace(scene, modal=modal), seed=seed)
            for modal in (False, True)
        )
        number = whole.details["object"]
        assert whole.annotations[number] == scene.annotations[number]
        box, full = np.array(seen.annotations[number].box), np.array(scene.annotations[number].box)
        assert (box[:2] >= full[:2]).all()
        assert (box[2:] <= full[2:]).all()
        shrunk += not np.array_equal(box, full)
    assert shrunk


@pytest.mark.parametrize(
    ("name", "kind"), [("object", "FN"), ("context", "FN"), ("culprit", "FN"), ("lookalike", "FP")]
)
def test_plans_are_deterministic_and_seeds_matter(
    scene: Scene, name: str, kind: str, failing: MakeExemplar
) -> None:
    recipe = RECIPES.load(name)()
    one, two, other = (recipe.plan(failing(kind), scene, seed=seed) for seed in (3, 3, 4))
    assert one.composed is not None
    assert torch.equal(one.composed, two.composed)
    assert one.annotations == two.annotations
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
    assert set(plan.details["changes"]) == {"colour"}
    assert plan.annotations == scene.annotations
    assert plan.details["object"] in plan.made
    assert plan.rendered is not None
    x1, y1, x2, y2 = (int(v) for v in scene.annotations[plan.details["object"]].box)
    assert float(plan.rendered[:, y1:y2, x1:x2].mean()) < 0.6 * float(scene.image[:, y1:y2, x1:x2].mean())


@pytest.mark.parametrize("name", ["culprit", "object", "context", "lookalike", "appearance", "removal"])
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.0])
def test_pixels_outside_the_mask_come_back_bit_identical(
    name: str,
    strength: float,
    scene: Scene,
    failing: MakeExemplar,
    textured: MakeImage,
    tiny_folder: Path,
) -> None:
    exemplar = {
        "culprit": failing(),
        "object": failing(blamed=False),
        "context": failing(),
        "lookalike": failing("FP"),
        "appearance": dataclasses.replace(failing(), image=textured(5) * 0.3),
        "removal": failing(),
    }[name]
    recipe = RECIPES.load(name)()
    scene = dataclasses.replace(scene, image=image_tensor(image_pixels(scene.image)))
    plans: dict[int, SamplePlan] = {}
    for seed in range(10 if name == "removal" else 24):  # of which the seed draws the object alone
        try:
            plans[seed] = recipe.plan(exemplar, scene, seed=seed)
        except StageError:
            continue  # no place for it
    assert len(plans) > 8
    spec = f"curator:{tiny_folder}" if strength else "compose:?blend=poisson"
    samples = paint(load_inpainter(spec, 1, "cpu"), plans, strength)
    partial = 0  # holes
    for seed, plan in plans.items():
        outside, sample = ~plan.mask, samples[seed]
        assert isinstance(sample, torch.Tensor)
        partial += bool(outside.any())
        assert torch.equal(sample[:, outside], scene.image[:, outside])
        assert not torch.equal(sample[:, plan.mask], scene.image[:, plan.mask])
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


def _like(scene: Scene, image: torch.Tensor) -> Exemplar:
    return Exemplar(
        image_id=2,
        outcome_id=1,
        group="g",
        kind="FN",
        category="cup",
        image=image,
        box=scene.annotations[1].box,
    )


@pytest.mark.parametrize("change", ["blur", "noise", "contrast"])
def test_appearance_takes_on_what_else_differs_and_nothing_more(scene: Scene, change: str) -> None:
    alone = dataclasses.replace(scene, annotations=scene.annotations[1:2])
    x1, y1, x2, y2 = (int(v) for v in clip(expand(alone.annotations[0].box, 1.8), 96, 96))
    grey = scene.image[:, y1:y2, x1:x2].mean((1, 2))[:, None, None]  # so that no colour differs there
    failing = {
        "blur": blurred(scene.image, 2.0),
        "noise": noisy(scene.image, 0.04, np.random.default_rng(0)),
        "contrast": grey + 0.45 * (scene.image - grey),
    }[change]
    exemplar = _like(scene, failing)
    plan = AppearanceRecipe().plan(exemplar, alone, seed=1)
    assert set(plan.details["changes"]) == {change}
    assert plan.rendered is not None
    if change == "contrast":
        assert plan.details["changes"]["contrast"] == pytest.approx(0.45, abs=0.1)
        assert spread(plan.rendered) < 0.8 * spread(alone.image)
        return  # over a spot or over all of it
    if change == "blur":
        assert blur(plan.rendered) == pytest.approx(blur(failing), rel=0.25)
    else:
        assert noise(plan.rendered) == pytest.approx(0.04, rel=0.2)
    assert bool(plan.mask.all())
    assert plan.annotations == alone.annotations


def test_removal_takes_out_one_object_and_its_label(scene: Scene, failing: MakeExemplar) -> None:
    plan = RemovalRecipe().plan(failing(), scene, seed=0)
    gone = scene.annotations[plan.details["object"]]
    assert gone.category == "cup"
    assert plan.annotations == tuple(a for a in scene.annotations if a != gone)
    assert plan.composed is not None
    assert covered(plan.mask, gone.box) == 1
    assert torch.equal(plan.composed[:, ~plan.mask], scene.image[:, ~plan.mask])
    x1, y1, x2, y2 = (int(v) for v in gone.box)
    inside = plan.composed[:, y1:y2, x1:x2]
    assert float((inside[0] - inside[1]).max()) < 0.3  # nothing red is left
    assert float((inside.mean((1, 2)) - torch.tensor([0.7, 0.75, 0.6])).abs().max()) < 0.1
    assert plan.negative_prompt == "cup"


def test_removal_leaves_objects_alone_that_hide_others_or_fill_the_image(
    scene: Scene, failing: MakeExemplar
) -> None:
    cup = scene.annotations[0]
    over = NewAnnotation(category="plate", box=(12.0, 12.0, 26.0, 26.0))
    large = NewAnnotation(category="cup", box=(0.0, 0.0, 90.0, 90.0))
    for labels in ((cup, over), (large,)):
        crowded = dataclasses.replace(scene, annotations=labels)
        with pytest.raises(StageError, match="stands alone"):
            RemovalRecipe().plan(failing(), crowded, seed=0)


def test_what_an_object_stands_on_may_fill_its_place_and_other_objects_may_not(scene: Scene) -> None:
    cup, other, plate = scene.annotations
    table = NewAnnotation(category="table", box=(0.0, 0.0, 96.0, 96.0))
    crowd = NewAnnotation(category="cup", box=(50.0, 0.0, 96.0, 30.0), crowd=True)
    around = dataclasses.replace(scene, annotations=(cup, other, plate, table, crowd))
    barred = objects(around, hole_of(cup, scene.image))
    assert covered(torch.from_numpy(barred), other.box) == 1
    assert covered(torch.from_numpy(barred), plate.box) == 1
    assert not barred[:45, :].any()  # neither the table, nor the crowd, nor the cup, which the hole bars


def _bounds(plan: SamplePlan) -> tuple[float, ...]:
    rows, columns = plan.mask.any(1).nonzero()[:, 0], plan.mask.any(0).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
