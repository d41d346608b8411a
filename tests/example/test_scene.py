"""The renderer: deterministic, labelled exactly, with gaps where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from curator.boxes import iou
from curator.example.flowers import CLASSES
from curator.example.gaps import GAPS, Gap
from curator.example.scene import HEIGHTS, SMALL_HEIGHTS, RenderedScene, SceneParams, render_scene
from curator.example.shapes import tight_box
from store.records import ROLES


def rendered(gap: Gap | None, count: int = 6, seed: int = 4) -> list[RenderedScene]:
    return [render_scene(SceneParams(role="mine", index=i, seed=seed, gap=gap)) for i in range(count)]


def test_equal_parameters_give_equal_scenes_and_every_parameter_matters() -> None:
    params = SceneParams(role="pool", index=3, seed=1, gap="post")
    first, again = render_scene(params), render_scene(params)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.annotations == again.annotations
    assert first.tags == again.tags
    others = [
        SceneParams(role="mine", index=3, seed=1, gap="post"),
        SceneParams(role="pool", index=4, seed=1, gap="post"),
        SceneParams(role="pool", index=3, seed=2, gap="post"),
        SceneParams(role="pool", index=3, seed=1),
    ]
    for other in others:
        assert not np.array_equal(render_scene(other).pixels, first.pixels)


def test_the_global_random_state_is_untouched() -> None:
    before = np.random.get_state()[1].copy()
    rendered("cast", 2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("gap", [None, *GAPS])
def test_boxes_are_tight_around_the_parts(gap: Gap | None) -> None:
    for scene in rendered(gap):
        assert scene.pixels.shape == (192, 192, 3)
        assert scene.pixels.dtype == np.uint8
        assert scene.annotations
        for annotation, parts in zip(scene.annotations, scene.part_masks, strict=True):
            assert annotation.category in CLASSES
            assert set(parts) == {"blossom", "stem"}
            assert parts["blossom"].any()
            assert parts["stem"].any()
            assert annotation.box == tight_box(parts["blossom"] | parts["stem"])


@pytest.mark.parametrize("gap", [None, *GAPS])
def test_flowers_do_not_overlap(gap: Gap | None) -> None:
    for scene in rendered(gap, 8):
        boxes = np.array([a.box for a in scene.annotations])
        overlaps = iou(boxes, boxes)
        assert overlaps[~np.eye(len(boxes), dtype=bool)].max(initial=0.0) == 0.0


@pytest.mark.parametrize("gap", GAPS)
def test_a_gap_names_its_objects_and_its_culprit(gap: Gap) -> None:
    for scene in rendered(gap, 8):
        assert scene.tags["gap"] == gap
        assert scene.culprit_mask.any()
        assert scene.culprit_boxes
        concerned = [a for a in scene.annotations if a.attributes["gap"] == gap]
        if gap == "lookalike":
            assert not concerned
            labelled = np.array([a.box for a in scene.annotations])
            assert iou(scene.culprit_boxes, labelled).max(initial=0.0) < 0.1
            continue
        assert concerned
        for annotation in concerned:
            assert tuple(annotation.attributes["culprit_box"]) in scene.culprit_boxes
        if gap == "small":
            heights = [a.box[3] - a.box[1] for a in concerned]
            assert max(heights) < SMALL_HEIGHTS[1] * 1.2 < HEIGHTS[0]
        if gap == "post":  # it covers part of the flower, never all of it
            parts = scene.part_masks[scene.annotations.index(concerned[0])]
            whole = parts["blossom"] | parts["stem"]
            covered = (whole & scene.culprit_mask).sum() / whole.sum()
            assert 0.1 < covered < 0.9


@pytest.mark.parametrize("gap", ["post", "dark", "cast", "beside"])
def test_the_culprit_lies_in_the_culprit_box(gap: Gap) -> None:
    inside, outside = [], []
    for scene in rendered(gap, 6):
        concerned = next(a for a in scene.annotations if a.attributes["gap"] == gap)
        x1, y1, x2, y2 = (int(v) for v in concerned.attributes["culprit_box"])
        box = np.zeros_like(scene.culprit_mask)
        box[y1:y2, x1:x2] = True
        inside.append((scene.culprit_mask & box).sum())
        outside.append((scene.culprit_mask & ~box).sum())
    assert sum(inside) > 0
    assert sum(outside) <= 0.35 * sum(inside)


def test_clean_scenes_have_no_culprit() -> None:
    for scene in rendered(None):
        assert scene.tags["gap"] == "none"
        assert not scene.culprit_mask.any()
        assert all(a.attributes["gap"] is None for a in scene.annotations)


def test_gaps_are_varied_within() -> None:
    """The mean colour of posts spreads over at least a third of the range: no single colour betrays them."""
    colours = [scene.pixels[scene.culprit_mask].mean(0) for scene in rendered("post", 24)]
    assert np.ptp(np.array(colours), axis=0).min() > 85


@pytest.mark.parametrize("size", [96, 256])
def test_other_sizes_scale_the_flowers(size: int) -> None:
    for role in ROLES[:2]:
        scene = render_scene(SceneParams(role=role, index=1, seed=2, size=size))
        assert scene.pixels.shape == (size, size, 3)
        heights = [a.box[3] - a.box[1] for a in scene.annotations]
        assert min(heights) > HEIGHTS[0] * size / 192 * 0.75
