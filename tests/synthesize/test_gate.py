"""The gate: every check accepts what it should and gives its reason where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from curator.registry import CHECKS
from curator.synthesize.base import Exemplar, SamplePlan, Scene
from curator.synthesize.gate.base import Bounds, Evidence, Found, checks_alone, checks_among
from curator.synthesize.gate.changed import ChangedCheck
from curator.synthesize.gate.detector import DetectorCheck
from curator.synthesize.gate.duplicate import DuplicateCheck
from curator.synthesize.gate.seam import SeamCheck
from curator.synthesize.recipes.appearance import AppearanceRecipe
from curator.synthesize.recipes.culprit import CulpritRecipe
from curator.synthesize.recipes.lookalike import LookalikeRecipe
from store.records import Verdict

MakeExemplar = Callable[..., Exemplar]
MakeImage = Callable[..., torch.Tensor]
BOUNDS = Bounds()
UNSEEN = Evidence(found=[], kind="FN", category="cup")


def _detected(plan: SamplePlan, sample: torch.Tensor, found: Found, kind: str = "FN") -> Verdict:
    return DetectorCheck().judge(plan, sample, Evidence(found=found, kind=kind, category="cup"), BOUNDS)


def test_the_gate_is_a_list_of_checks_in_a_fixed_order() -> None:
    assert [check.name for check in (*checks_alone(), *checks_among())] == [
        "changed",
        "seam",
        "detector",
        "near-duplicate",
    ]
    assert sorted(CHECKS.names()) == ["changed", "detector", "near-duplicate", "seam"]


def _plan(scene: Scene, failing: MakeExemplar) -> SamplePlan:
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[40:60, 30:50] = True
    return dataclasses.replace(
        CulpritRecipe().plan(failing(), scene, seed=1), mask=mask, painted=(30.0, 40.0, 50.0, 60.0)
    )


def test_a_painting_like_the_scene_is_refused(scene: Scene, failing: MakeExemplar) -> None:
    plan = _plan(scene, failing)
    same = ChangedCheck().judge(plan, scene.image + 0.001, UNSEEN, BOUNDS)
    assert not same.accepted
    assert "almost as it was" in same.reason
    painted = scene.image.clone()
    painted[:, 40:60, 30:50] = 0.1
    assert ChangedCheck().judge(plan, painted, UNSEEN, BOUNDS).accepted


def test_a_hard_border_is_a_seam_and_a_soft_one_is_none(
    scene: Scene, failing: MakeExemplar, textured: MakeImage
) -> None:
    plan = _plan(dataclasses.replace(scene, image=textured(3)), failing)
    hard = textured(3)
    hard[:, 40:60, 30:50] = 0.1
    refused = SeamCheck().judge(plan, hard, UNSEEN, BOUNDS)
    assert not refused.accepted
    assert refused.value > refused.bound
    soft = textured(3)
    soft[:, 44:56, 34:46] = 0.1
    assert SeamCheck().judge(plan, soft, UNSEEN, BOUNDS).accepted


def test_an_object_must_stay_recognisable(scene: Scene, failing: MakeExemplar) -> None:
    plan = CulpritRecipe().plan(failing(), scene, seed=1)
    box = tuple(plan.details["object_box"])
    hidden = dataclasses.replace(plan, details={**plan.details, "occlusion": 0.58})
    nothing = _detected(hidden, scene.image, [])
    assert not nothing.accepted
    assert (nothing.value, nothing.bound) == (0.58, BOUNDS.visible)
    assert "much of the cup is covered" in nothing.reason
    assert _detected(hidden, scene.image, [("cup", 0.2, box)]).accepted
    assert not _detected(hidden, scene.image, [("plate", 0.9, box)]).accepted
    beside = dataclasses.replace(plan, details={**plan.details, "occlusion": 0.1})
    assert _detected(beside, scene.image, []).accepted


def test_an_undetected_painted_object_must_be_like_its_exemplar(scene: Scene, failing: MakeExemplar) -> None:
    plan = CulpritRecipe().plan(failing(blamed=False), scene, seed=1)
    x1, y1, x2, y2 = (int(v) for v in plan.painted)
    faithful, garbage = scene.image.clone(), scene.image.clone()
    faithful[:, y1:y2, x1:x2] = plan.exemplar
    garbage[:, y1:y2, x1:x2] = 1 - plan.exemplar
    assert _detected(plan, faithful, []).accepted
    refused = _detected(plan, garbage, [])
    assert not refused.accepted
    assert "unlike the failed cup" in refused.reason


def test_an_undetected_object_under_a_global_change_must_keep_contrast(
    scene: Scene, failing: MakeExemplar, textured: MakeImage
) -> None:
    dark = dataclasses.replace(failing(), image=textured(5) * 0.2)
    plan = AppearanceRecipe().plan(dark, scene, seed=0)
    cups = [a.box for a in scene.annotations if a.category == "cup"]
    flat = torch.zeros_like(scene.image)
    assert not _detected(plan, flat, []).accepted
    lively = flat.clone()
    for x1, y1, x2, _ in cups:
        lively[:, int(y1) : int(y1) + 8, int(x1) : int(x2)] = 0.4
    assert _detected(plan, lively, []).accepted


def test_a_hard_negative_must_deceive(scene: Scene, failing: MakeExemplar) -> None:
    plan = LookalikeRecipe().plan(failing("FP"), scene, seed=1)
    assert _detected(plan, scene.image, [("cup", 0.6, plan.painted)], "FP").accepted
    for found in ([], [("plate", 0.9, plan.painted)], [("cup", 0.9, (0.0, 0.0, 5.0, 5.0))]):
        refused = _detected(plan, scene.image, found, "FP")
        assert not refused.accepted
        assert "not deceived" in refused.reason


def test_near_duplicates_are_judged_on_the_painted_crop(textured: MakeImage) -> None:
    ground = textured(3)
    one, two = ground.clone(), ground.clone()
    one[:, 40:60, 30:36] = 0.1
    two[:, 40:46, 30:50] = 0.9
    box = (28.0, 38.0, 52.0, 62.0)
    check = DuplicateCheck()
    first = check.signature(one, box)
    again = check.judge(check.signature(one + 0.002, box), [first], BOUNDS)
    assert not again.accepted
    assert again.value <= 4
    other = check.judge(check.signature(two, box), [first], BOUNDS)
    assert other.accepted  # though the images are nearly alike
    assert check.judge(first, [], BOUNDS).accepted
