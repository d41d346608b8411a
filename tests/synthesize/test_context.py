"""Context: places are learnt from labelled pictures, and told from others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from curator.cli.fix import places_lines
from curator.errors import StageError
from curator.synthesize.base import Exemplar, Scene
from curator.synthesize.context import FEWEST, Context, learn
from curator.synthesize.surroundings import Surroundings, neighbours
from curator.synthesize.trees import SETTINGS, fit, log_odds
from store.records import NewAnnotation

WIDTH, HEIGHT, ROAD = 120, 96, 56


def street(rng: np.random.Generator, road: bool = True) -> torch.Tensor:
    """A striped wall (3, H, W), and a smooth dark road below it."""
    wall = 0.6 + 0.3 * np.sin(np.arange(WIDTH) / 2)[None] + rng.normal(0, 0.03, (HEIGHT, WIDTH))
    if road:
        wall[ROAD:] = 0.25 + rng.normal(0, 0.02, (HEIGHT - ROAD, WIDTH))
    image = np.stack([wall, wall * 0.9, wall * 0.8]).clip(0, 1)
    return torch.from_numpy(image.astype(np.float32))


def pictures(count: int, seed: int = 0) -> list[tuple[torch.Tensor, list[NewAnnotation]]]:
    """Streets with a car each; only its feet's height and what lies around it tell where cars stand."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image = street(rng)
        x, y = rng.integers(8, WIDTH - 36), rng.integers(ROAD + 4, HEIGHT - 20)
        image[:, y : y + 14, x : x + 24] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
        box = (float(x), float(y), float(x + 24), float(y + 14))
        made.append((image, [NewAnnotation(category="car", box=box)]))
    return made


def exemplar(image: torch.Tensor, label: NewAnnotation) -> Exemplar:
    return Exemplar(
        image_id=1,
        outcome_id=None,
        group="FN:miss:car",
        kind="FN",
        category="car",
        image=image,
        box=label.box,
    )


def test_trees_as_arrays_answer_as_scikit_learns_do() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2 + rng.normal(0, 0.5, 600) > 0.8).astype(int)
    y[np.isnan(x[:, 2])] = 1  # that it is missing tells something, too
    theirs = HistGradientBoostingClassifier(**SETTINGS).fit(x, y)
    np.testing.assert_allclose(log_odds(x, fit(x, y)), theirs.decision_function(x), atol=1e-6)


def test_cars_stand_on_the_road() -> None:
    context = learn(pictures(60))
    facts = context.facts()
    assert facts["decides"] == "trees"
    assert facts["objects"] == 60
    assert facts["rank"] > 0.8
    image, (label,) = pictures(1, seed=9)[0]
    rng = np.random.default_rng(1)
    on_wall = [(x, 10.0, x + 24.0, 24.0) for x in (10.0, 50.0, 80.0)]
    on_road = [(30.0, 66.0, 54.0, 80.0)]
    scene = Scene(image_id=7, image=street(rng), annotations=())
    best, fits = context.best(exemplar(image, label), scene, np.array([*on_wall, *on_road]))
    assert best == 3
    assert fits > 0
    bare = Scene(image_id=8, image=street(rng, road=False), annotations=())
    with pytest.raises(StageError, match="scene 8: of 3 places none looks like one where a car stands"):
        context.best(exemplar(image, label), bare, np.array(on_wall))


def test_with_few_objects_likeness_decides_and_its_bound_is_of_these_pictures() -> None:
    context = learn(pictures(FEWEST - 1))
    assert not context.trees
    assert context.facts()["decides"] == "likeness"
    assert 0 < context.unlike < 30
    image, (label,) = pictures(1, seed=9)[0]
    bare = Scene(image_id=8, image=street(np.random.default_rng(1), road=False), annotations=())
    with pytest.raises(StageError, match="none looks like one where the object stood"):
        context.best(exemplar(image, label), bare, np.array([(10.0, 10.0, 34.0, 24.0)]))


def test_nothing_known_refuses_nothing() -> None:
    for context in (learn([]), Context.from_bytes(b""), learn(pictures(1))):
        image, (label,) = pictures(1, seed=9)[0]
        bare = Scene(image_id=8, image=street(np.random.default_rng(1), road=False), annotations=())
        assert context.best(exemplar(image, label), bare, np.array([(10.0, 10.0, 34.0, 24.0)]))[0] == 0
        # Of several scenes the one that is more alike is chosen all the same.
        street_fit, bare_fit = (
            context.best(exemplar(image, label), scene, np.array([(30.0, 66.0, 54.0, 80.0)]))[1]
            for scene in (Scene(image_id=9, image=street(np.random.default_rng(2)), annotations=()), bare)
        )
        assert np.isfinite(street_fit)
        assert street_fit > bare_fit


def test_a_context_survives_as_bytes() -> None:
    context = learn(pictures(60))
    again = Context.from_bytes(context.to_bytes())
    assert again.facts() == context.facts()
    assert again.bounds == context.bounds
    x = np.random.default_rng(0).normal(size=(20, 85 + len(context.classes)))
    np.testing.assert_array_equal(log_odds(x, again.trees), log_odds(x, context.trees))
    assert learn(pictures(60)).to_bytes() == context.to_bytes()


def test_what_lies_in_a_box_does_not_count() -> None:
    rng = np.random.default_rng(3)
    image = street(rng)
    box = (40.0, 50.0, 64.0, 70.0)
    other = image.clone()
    other[:, 50:70, 40:64] = torch.rand((3, 20, 24), generator=torch.Generator().manual_seed(0))
    a, b = Surroundings(image).figures([box]), Surroundings(other).figures([box])
    strips = slice(10, 10 + 3 * 7)  # differences from the whole image, which holds the box, come later
    np.testing.assert_allclose(a[:, strips], b[:, strips], atol=3.0)
    inside = Surroundings(image).figures([(45.0, 55.0, 60.0, 65.0)])
    changed = Surroundings(other).figures([(45.0, 55.0, 60.0, 65.0)])
    assert np.abs(inside - changed)[:, strips].max() > 10


def test_strips_outside_the_image_are_missing() -> None:
    figures = Surroundings(street(np.random.default_rng(0))).figures([(0.0, 60.0, 30.0, float(HEIGHT))])
    above, below = figures[0, 10 + 7 : 10 + 14], figures[0, 10 + 14 : 10 + 21]
    assert np.isnan(below).all()
    assert np.isfinite(above).all()
    assert np.isfinite(figures[0, 10:17]).all()  # beside: the right side speaks for both


def test_neighbours_are_told_by_distance_height_and_size() -> None:
    found = neighbours([(0, 0, 10, 10)], [(20, 0, 40, 20), (0, 30, 10, 40)], [True, False])
    np.testing.assert_allclose(found[0], [1.0, 1.0, np.log(2), 0.0, 1.0, 1.0, np.log(2), 0.0])
    alone = neighbours([(0, 0, 10, 10)], np.zeros((0, 4)), np.zeros(0, bool))
    assert np.isnan(alone).all()
    assert alone.shape == (1, 8)


def test_the_command_says_what_decides() -> None:
    (learnt,) = places_lines(learn(pictures(60)).facts())
    assert learnt.startswith(
        "places: learnt from 60 labelled objects; of other places there a true one outranks 1.00 "
    )
    assert learnt.endswith("by likeness alone (chance 0.50)")
    (few,) = places_lines(learn(pictures(10)).facts())
    assert few.startswith("places: chosen by likeness, measured on 10 labelled objects; ")
    assert "learnt" not in few
    assert places_lines(learn([]).facts()) == []
