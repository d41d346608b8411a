"""The recipe `context`: the object comes with what lay around it, and with its neighbours' labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from curator.boxes import area, intersection
from curator.errors import StageError
from curator.synthesize.base import Exemplar, Scene
from curator.synthesize.recipes.context import AROUND, COVERED, MOST_AROUND, ContextRecipe, surroundings_of
from store.records import NewAnnotation

MakeExemplar = Callable[..., Exemplar]
MakeImage = Callable[..., torch.Tensor]


@pytest.fixture
def open_scene(textured: MakeImage) -> Scene:
    """A scene of twice the size with one cup in a corner."""
    image = textured(4, 192)
    image[:, 10:34, 10:30] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    cup = NewAnnotation(category="cup", box=(10.0, 10.0, 30.0, 34.0))
    return Scene(image_id=9, image=image, annotations=(cup,))


@pytest.mark.parametrize("seed", range(8))
def test_the_object_is_labelled_where_its_pixels_are(
    open_scene: Scene, failing: MakeExemplar, seed: int
) -> None:
    plan = ContextRecipe().plan(failing(), open_scene, seed=seed)
    label = plan.annotations[-1]
    assert label.category == "cup"
    assert label in [plan.annotations[i] for i in plan.made]
    assert plan.composed is not None
    x1, y1, x2, y2 = (round(v) for v in label.box)
    inner = plan.composed[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
    red = (inner[0] > 0.6) & (inner[1] < 0.4)
    post = (inner < 0.35).all(0)  # the dark post before it came along
    assert float((red | post).float().mean()) > 0.9
    assert bool(post.any())
    assert open_scene.annotations[0] in plan.annotations
    assert plan.home is not None
    assert plan.home.object


def test_what_lay_around_comes_along_as_far_as_the_blamed_part_reaches(failing: MakeExemplar) -> None:
    bare, blamed = failing(blamed=False), failing()
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[25:85, 50:56] = True  # the whole post
    far = dataclasses.replace(blamed, blamed=mask)
    small, large = (np.asarray(surroundings_of(one).extent) for one in (bare, far))
    own = np.asarray(bare.box)
    sides = np.tile(own[2:] - own[:2], 2)
    assert np.allclose(np.abs(small - own) / sides, AROUND, atol=0.05)
    assert (np.abs(large - own) / sides <= MOST_AROUND + 0.05).all()
    assert large[3] > small[3]
    assert large[0] == small[0]  # nothing is blamed on that side


def test_the_edge_fades_out_but_at_the_image_s_border(failing: MakeExemplar) -> None:
    exemplar = dataclasses.replace(failing(blamed=False), box=(0.0, 40.0, 24.0, 70.0))
    cutout = surroundings_of(exemplar)
    assert cutout.window[0] == 0
    middle = cutout.alpha.shape[0] // 2
    assert float(cutout.alpha[middle, 0]) == 1
    assert float(cutout.alpha[middle, -1]) < 0.15  # a pixel's centre lies half a pixel inside
    inside = cutout.alpha[40 - cutout.window[1] : 70 - cutout.window[1], :24]
    assert bool((inside == 1).all())


@pytest.mark.parametrize("seed", range(6))
def test_neighbours_that_come_along_keep_their_labels(
    open_scene: Scene, failing: MakeExemplar, seed: int
) -> None:
    near = NewAnnotation(category="plate", box=(34.0, 60.0, 40.0, 70.0))
    far = NewAnnotation(category="plate", box=(2.0, 2.0, 12.0, 12.0))
    exemplar = dataclasses.replace(failing(), neighbours=(near, far))
    plan = ContextRecipe().plan(exemplar, open_scene, seed=seed)
    plates = [a for a in plan.annotations if a.category == "plate"]
    assert len(plates) == 1 == plan.details["neighbours"]
    cup = np.asarray(plan.details["object_box"])
    scale = float(np.sqrt(area(cup) / (24 * 30)))
    x1, y1, x2, y2 = plates[0].box
    assert np.allclose([x2 - x1, y2 - y1], [6 * scale, 10 * scale], atol=0.5)
    gap = x1 - cup[2] if plan.details["mirrored"] else cup[0] - x2
    assert abs(gap) < 0.5  # beside the object, on the mirrored side where it was mirrored


@pytest.mark.parametrize("seed", range(12))
def test_no_labelled_object_is_hidden(scene: Scene, failing: MakeExemplar, seed: int) -> None:
    try:
        plan = ContextRecipe().plan(failing(), scene, seed=seed)
    except StageError:
        return  # no place that is free enough
    opaque = plan.mask.numpy()
    for annotation in scene.annotations:
        assert annotation in plan.annotations
        x1, y1, x2, y2 = (int(v) for v in annotation.box)
        assert opaque[y1:y2, x1:x2].mean() <= COVERED + 0.35  # the rim of the hole, which changes nothing
    boxes = [a.box for a in scene.annotations]
    window = np.asarray(plan.painted)[None]
    assert (intersection(window, boxes)[0] <= 0.6 * area(boxes)).all()
