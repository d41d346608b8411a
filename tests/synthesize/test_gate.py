"""The gate: what it learns on untouched pictures, the bounds that follow, and what each check refuses."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from curator.registry import CHECKS
from curator.synthesize.gate import additive, linear
from curator.synthesize.gate.base import ALONE, AMONG, Bound, Evidence, Learnt, Look, judged
from curator.synthesize.gate.calibrate import Gate, calibrate, evidence_of, labels_of
from curator.synthesize.gate.changed import ChangedCheck
from curator.synthesize.gate.detector import DeceivesCheck, DetectorCheck, ExtraCheck, MissedCheck
from curator.synthesize.gate.duplicate import DuplicateCheck
from curator.synthesize.gate.judge import Judge
from curator.synthesize.gate.kept import KeptCheck
from curator.synthesize.gate.looks import doubled, draw_mask, half, mislabelled, scaled, spoilt, untouched
from curator.synthesize.gate.shares import joint_bounds
from curator.synthesize.gate.spoil import FAULTS, spoil
from curator.synthesize.gate.statistics import NAMES, describe

MakeImage = Callable[..., torch.Tensor]
NOTHING = np.zeros(0)


def _picture(seed: int, size: int = 96) -> tuple[torch.Tensor, list[tuple[str, tuple[float, ...]]]]:
    """A grainy ground with a red striped cup and a blue spotted plate, softly lit, and their labels."""
    rng = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(rng.normal(0, 1, (size, size, 3)), (6, 6, 0)) * 0.5 + [0.6, 0.65, 0.5]
    image = ground + rng.normal(0, 0.015, ground.shape)
    labels: list[tuple[str, tuple[float, ...]]] = []
    y, x = np.mgrid[0:size, 0:size]
    for name, left in (("cup", 6), ("plate", 52)):
        w, h = int(rng.integers(22, 34)), int(rng.integers(22, 34))
        a, b = left + int(rng.integers(0, 8)), int(rng.integers(6, size - h - 6))
        inside = ((x - a - w / 2) / (w / 2)) ** 2 + ((y - b - h / 2) / (h / 2)) ** 2 <= 1
        if name == "cup":
            colour = np.stack([0.7 + 0.15 * np.sin(y), 0.2 + 0 * y, 0.2 + 0 * y], -1)
        else:
            colour = np.stack([0.2 + 0 * y, 0.3 + 0 * y, 0.6 + 0.2 * np.sin(x * 0.8) * np.sin(y * 0.8)], -1)
        image[inside] = colour[inside] + rng.normal(0, 0.015, (int(inside.sum()), 3))
        labels.append((name, (float(a), float(b), float(a + w), float(b + h))))
    image = ndimage.gaussian_filter(image, (0.6, 0.6, 0)).clip(0, 1)
    return torch.from_numpy(np.round(image * 255).astype(np.float32) / 255).permute(2, 0, 1), labels


def _looks(seeds: range) -> list[Look]:
    return [look for looks in _per_image(seeds) for look in looks]


def _per_image(seeds: range) -> list[list[Look]]:
    rng = np.random.default_rng(seeds.start)
    found: list[list[Look]] = []
    for seed in seeds:
        image, labels = _picture(seed)
        score = rng.uniform(0.2, 1)
        found.append(untouched(image, labels, [(n, score, b) for n, b in labels], rng))  # type: ignore[misc, arg-type]
    return found


@pytest.fixture(scope="module")
def judge() -> Judge:
    """The judge without weights."""
    return Judge("pixels:", None, torch.device("cpu"))  # type: ignore[arg-type]  # looks at no detector


@pytest.fixture(scope="module")
def gate(judge: Judge) -> Gate:
    """Calibrated on small pictures."""
    return calibrate(_looks(range(10)), _per_image(range(100, 120)), judge, refused=0.15, seed=0)


def _evidence(look: Look, **other: object) -> Evidence:
    base = Evidence(look=look, figures=NOTHING, part=NOTHING, made=np.zeros((len(look.made), 0)))
    return dataclasses.replace(base, **other)  # type: ignore[arg-type]


def _one(seed: int = 500) -> Look:
    image, labels = _picture(seed)
    looks = untouched(image, labels[:1], [], np.random.default_rng(seed))  # type: ignore[arg-type]
    return next(look for look in looks if look.made)


def test_the_registry_holds_the_gate_s_checks() -> None:
    assert sorted(CHECKS.names()) == sorted([*ALONE, *AMONG])


def test_the_gate_refuses_few_untouched_parts_and_most_spoilt_ones(gate: Gate, judge: Judge) -> None:
    rng = np.random.default_rng(3)
    fresh = _looks(range(300, 320))
    real = [all(v.accepted for v in gate.judge(e)) for e in evidence_of(fresh, judge)]
    assert 1 - np.mean(real) <= 0.15 + 3 * np.sqrt(0.15 * 0.85 / len(real))  # a quantile of 72 looks is rough
    bad = [spoilt(look, fresh, rng) for look in fresh]
    refused = [not all(v.accepted for v in gate.judge(e)) for e in evidence_of(bad, judge)]
    assert np.mean(refused) >= 0.9


def test_wrong_labels_are_refused(gate: Gate, judge: Judge) -> None:
    """Wrong boxes by `whole`, names of another class by `label`, each with its reason."""
    rng = np.random.default_rng(4)
    fresh = [look for look in _looks(range(300, 320)) if look.made]
    boxes = [one for look in fresh for one in mislabelled(look, rng)]
    other = {"cup": "plate", "plate": "cup"}
    names = [
        dataclasses.replace(look, made=((name, look.made[0][1]),), category=name)
        for look in fresh
        for name in [other[look.category]]
    ]
    for name, wrong, least, reason in (
        ("whole", boxes, 0.7, "does not see one whole"),
        ("label", names, 0.9, "but rather a"),
    ):
        check = CHECKS.load(name)()
        found = [judged(check, e, gate.learnt[name], gate.bounds[name]) for e in labels_of(wrong, judge)]
        refused = [v for v in found if not v.accepted]
        assert len(refused) >= least * len(found)
        assert any(reason in v.reason for v in refused)
        real = [judged(check, e, gate.learnt[name], gate.bounds[name]) for e in labels_of(fresh, judge)]
        assert np.mean([not v.accepted for v in real]) <= 0.3


def test_a_head_keeps_the_axes_along_which_vectors_differ() -> None:
    """Classes lie apart along one axis of many; noise along the others must not drown it. The weights hold
    for the vectors themselves, and equal inputs give equal ones."""
    rng = np.random.default_rng(0)
    names = np.arange(300) % 3
    vectors = rng.normal(0, 0.1, (300, 900))
    vectors[:, 7] += names * 3.0
    fitted = linear.fit(vectors[:200], names[:200], seed=0)
    assert fitted["weights"].shape == (3, 900)
    scores = vectors[200:] @ fitted["weights"].T + fitted["intercepts"]
    assert np.mean(scores.argmax(1) == names[200:]) > 0.95
    odds = linear.log_odds(vectors[200], 1, fitted["weights"], fitted["intercepts"])
    share = np.exp(scores[0]) / np.exp(scores[0]).sum()
    assert odds == pytest.approx(np.log(share[1] / (1 - share[1])), abs=1e-6)
    again = linear.fit(vectors[:200], names[:200], seed=0)
    assert np.array_equal(again["weights"], fitted["weights"])
    two = linear.fit(vectors[:200], names[:200] == 2, seed=0)
    assert two["weights"].shape == (2, 900)
    good = [linear.log_odds(v, 1, two["weights"], two["intercepts"]) > 0 for v in vectors[200:]]
    assert np.mean(np.array(good) == (names[200:] == 2)) > 0.95
    equal = linear.fit(np.ones((8, 5)), np.arange(8) % 2, seed=0)  # nothing to tell: no error, no odds
    assert linear.log_odds(np.ones(5), 1, equal["weights"], equal["intercepts"]) == pytest.approx(0, abs=1e-3)


def test_one_class_alone_says_nothing_of_classes_but_of_whole_objects(judge: Judge) -> None:
    cups = [look for look in _looks(range(12)) if look.category in ("cup", "")]
    held = _per_image(range(100, 112))
    per_image = [[look for look in own if look.category in ("cup", "")] for own in held]
    alone = calibrate(cups, per_image, judge, refused=0.15, seed=0)
    verdicts = {v.check: v for v in alone.judge(evidence_of([cups[0]], judge)[0])}
    assert verdicts["label"].reason == "nothing to judge here"
    assert "one whole cup" in verdicts["whole"].reason


def test_places_without_an_object_do_not_hide_how_many_objects_are_refused() -> None:
    """Half of the looks are places of which the check says nothing: the wish is kept on the other half."""
    rng = np.random.default_rng(2)
    goodness = np.concatenate([rng.normal(0, 1, 100), np.full(100, np.nan)])[None]
    bounds = joint_bounds([CHECKS.load("whole")()], goodness, ["cup"] * 100 + [""] * 100, 0.2)
    assert bounds["whole"].refused == pytest.approx(0.2, abs=0.02)
    assert np.mean(goodness[0, :100] < bounds["whole"].of("cup")) <= 0.2


def test_the_joint_checks_refuse_no_more_than_was_asked() -> None:
    """Whatever the share: the looks from which the bounds come are refused at most that often, and hardly
    less."""
    rng = np.random.default_rng(5)
    joint = [CHECKS.load(name)() for name in ALONE if CHECKS.load(name)().joint]
    goodness = rng.normal(0, 1, (len(joint), 200))
    goodness[0, ::7] = np.nan
    scopes = ["cup"] * 120 + ["plate"] * 80
    for share in (0.05, 0.15, 0.5):
        bounds = joint_bounds(joint, goodness, scopes, share)
        limits = [[(1 if c.least else -1) * bounds[c.name].of(name) for name in scopes] for c in joint]
        refused = (goodness < np.array(limits)).any(0)
        assert share - 0.03 <= refused.mean() <= share
        assert all(
            bounds[c.name].real == int((~np.isnan(row)).sum()) for c, row in zip(joint, goodness, strict=True)
        )


def test_a_gate_is_stored_without_pickles_and_judges_alike(gate: Gate, judge: Judge) -> None:
    data = gate.to_bytes()
    again = Gate.from_bytes(data)
    assert again.facts() == gate.facts()
    for evidence in evidence_of(_looks(range(300, 304)), judge):
        assert again.judge(evidence) == gate.judge(evidence)
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        for name in files.namelist():
            np.lib.format.read_array(io.BytesIO(files.read(name)), allow_pickle=False)


def test_equal_pictures_and_seeds_give_an_equal_gate(judge: Judge) -> None:
    one, two = (
        calibrate(_looks(range(4)), _per_image(range(100, 106)), judge, refused=0.15, seed=0)
        for _ in range(2)
    )
    assert one.to_bytes() == two.to_bytes()


def test_with_too_few_pictures_the_learnt_checks_say_so_and_accept(judge: Judge) -> None:
    poor = calibrate(_looks(range(2)), [], judge, refused=0.15, seed=0)
    verdicts = poor.judge(evidence_of([_one()], judge)[0])
    assert all(v.accepted for v in verdicts)
    assert any("too few" in v.reason or "nothing to judge" in v.reason for v in verdicts)


def test_the_additive_classifier_learns_bent_lines_and_ignores_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    real, bad = rng.normal(0, 1, (200, 4)), rng.normal(0, 1, (200, 4))
    bad[:, 0] = rng.choice([-4, 4], 200) + rng.normal(
        0, 0.3, 200
    )  # too small or too large: no straight line tells
    fitted = additive.fit(real, bad)
    assert np.mean(additive.score(bad, fitted) > 0) > 0.95
    assert np.mean(additive.score(real, fitted) < 0) > 0.9
    figures = np.array([[4.0, 0.0, 0.0, 0.0]])
    shares = additive.shares(figures, fitted)
    assert int(shares.argmax()) == 0
    usual = fitted["usual"].sum() + fitted["intercept"][0]
    np.testing.assert_allclose(shares.sum() + usual, additive.score(figures, fitted)[0])
    assert additive.shares(np.full((1, 4), np.nan), fitted).tolist() == [[0.0] * 4]


def test_figures_follow_what_was_done_to_a_part() -> None:
    look = _one()
    usual = dict(zip(NAMES, describe(look.image, look.mask), strict=True))
    soft = look.image.clone()
    part = torch.from_numpy(ndimage.gaussian_filter(look.image.numpy(), (0, 2, 2)))
    soft[:, look.mask] = part[:, look.mask]
    blurred = dict(zip(NAMES, describe(soft, look.mask), strict=True))
    sharpness = "sharpness at octave 0 inside to outside"
    assert blurred[sharpness] < usual[sharpness] - 0.3
    bright = look.image.clone()
    bright[:, look.mask] = (bright[:, look.mask] + 0.3).clamp(0, 1)
    lit = dict(zip(NAMES, describe(bright, look.mask), strict=True))
    assert lit["lightness inside less outside"] > usual["lightness inside less outside"] + 10
    whole = describe(look.image, np.ones(tuple(look.image.shape[1:]), bool))
    assert len(whole) == len(NAMES)
    assert np.isnan(whole[NAMES.index(sharpness)])
    beside = [name for name in NAMES if "border" in name]
    assert np.isnan([whole[NAMES.index(name)] for name in beside]).all()
    tiny = np.zeros(tuple(look.image.shape[1:]), bool)
    tiny[0, 0] = True
    assert len(describe(look.image, tiny)) == len(NAMES)


def test_every_fault_stays_in_its_part_and_within_range() -> None:
    look = _one()
    pixels = look.image.permute(1, 2, 0).numpy()
    seen = set()
    for seed in range(80):
        name, made = spoil(pixels, look.mask, [pixels[::-1]], np.random.default_rng(seed))
        seen.add(name)
        assert np.array_equal(made[~look.mask], pixels[~look.mask])
        assert made.min() >= 0
        assert made.max() <= 1
        assert np.isfinite(made).all()
    assert seen == set(FAULTS)


def test_a_look_at_a_window_shows_the_same_pixels_and_boxes() -> None:
    image, labels = _picture(7, size=160)
    for look in untouched(image, labels, [(labels[0][0], 0.5, labels[0][1])], np.random.default_rng(1)):  # type: ignore[arg-type, list-item]
        for name, box in look.made:
            whole = next(b for n, b in labels if n == name)
            x, y = whole[0] - box[0], whole[1] - box[1]
            h, w = look.image.shape[1:]
            assert torch.equal(look.image, image[:, int(y) : int(y) + h, int(x) : int(x) + w])
            assert look.found[0][2][2] - look.found[0][2][0] == labels[0][1][2] - labels[0][1][0]
        assert look.mask.any()


@pytest.mark.parametrize("box", [(0.0, 0.0, 8.0, 8.0), (80.0, 80.0, 96.0, 96.0), (-3.0, 20.0, 50.0, 99.0)])
def test_masks_and_wrong_labels_hold_at_the_picture_s_border(box: tuple[float, float, float, float]) -> None:
    image, _ = _picture(8)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mask = draw_mask(image, box, rng)
        assert mask.any()
        look = Look(image=image, mask=mask, made=(("cup", box),))
        assert half(image, box, rng).shape == image.shape
        for one in (doubled(look, rng), *mislabelled(look, rng)):
            x1, y1, x2, y2 = one.made[0][1]
            assert x2 > x1
            assert y2 > y1
            assert one.image.shape == image.shape


def test_an_unchanged_picture_is_refused() -> None:
    look, check = _one(), ChangedCheck()
    bound = check.bound([_evidence(look)], Learnt())
    same = judged(check, _evidence(dataclasses.replace(look, before=look.image)), Learnt(), bound)
    assert not same.accepted
    assert "almost as it was" in same.reason
    other = dataclasses.replace(look, before=1 - look.image)
    assert judged(check, _evidence(other), Learnt(), bound).accepted


def test_the_detector_s_checks_read_scores_at_labels_and_beside_them() -> None:
    look = _one()
    (name, box) = look.made[0]
    seen = dataclasses.replace(look, found=[(name, 0.4, box), ("plate", 0.9, box)])
    assert DetectorCheck().value(_evidence(seen), Learnt()) == 0.4
    assert DetectorCheck().value(_evidence(dataclasses.replace(look, found=[])), Learnt()) == 0.0
    assert np.isnan(DetectorCheck().value(_evidence(dataclasses.replace(look, made=())), Learnt()))
    assert ExtraCheck().value(_evidence(seen), Learnt()) == 0.0  # it matches a label
    left, top, right, bottom = look.part
    corner = (left, top, left + (right - left) / 4, top + (bottom - top) / 4)
    stranger = dataclasses.replace(look, found=[("cup", 0.7, corner)])
    assert ExtraCheck().value(_evidence(stranger), Learnt()) == 0.7
    known = dataclasses.replace(stranger, kept=(("cup", corner),))
    assert ExtraCheck().value(_evidence(known), Learnt()) == 0.0


def test_a_look_alike_must_deceive_more_than_chance() -> None:
    place = dataclasses.replace(_one(), made=(), kind="FN")
    places = [
        _evidence(dataclasses.replace(place, found=[("cup", score, place.part)]))
        for score in np.linspace(0, 0.2, 21)
    ]
    bound = DeceivesCheck().bound(places, Learnt())
    assert bound.of("cup") == pytest.approx(0.19)
    alike = dataclasses.replace(place, kind="FP", category="cup", found=[("cup", 0.3, place.part)])
    assert judged(DeceivesCheck(), _evidence(alike), Learnt(), bound).accepted
    plain = dataclasses.replace(alike, found=[])
    assert not judged(DeceivesCheck(), _evidence(plain), Learnt(), bound).accepted


def test_a_painting_that_lost_its_exemplar_is_refused() -> None:
    look, check = _one(), KeptCheck()
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (20, 1, 8))
    bound = check.bound([_evidence(look, made=v) for v in vectors], Learnt())
    same = _evidence(look, part=vectors[0, 0], start=vectors[0, 0] + 0.01)
    other = _evidence(look, part=vectors[0, 0], start=-vectors[0, 0])
    assert judged(check, same, Learnt(), bound).accepted
    assert not judged(check, other, Learnt(), bound).accepted
    assert judged(check, _evidence(look), Learnt(), bound).reason == "nothing to judge here"


def test_near_duplicates_are_judged_on_the_painted_crop(textured: MakeImage) -> None:
    check = DuplicateCheck()
    one, two = textured(1), textured(1)
    two[:, 5:10, 80:90] = 0.0  # elsewhere: the painted crop is the same
    painted = (20.0, 20.0, 60.0, 60.0)
    signatures = [check.signature(image, painted) for image in (one, two, textured(2))]
    refused = check.judge(signatures[1], signatures[:1], Bound(4.0))
    assert not refused.accepted
    assert refused.value <= 4
    assert check.judge(signatures[2], signatures[:1], Bound(4.0)).accepted
    assert check.judge(signatures[0], [], Bound(4.0)).value == 64


def test_a_class_with_many_objects_has_a_bound_of_its_own() -> None:
    look = _one()
    rng = np.random.default_rng(1)

    def seen(name: str, low: float) -> Evidence:
        made = ((name, look.made[0][1]),)
        found = [(name, float(rng.uniform(low, low + 0.2)), look.made[0][1])]
        return _evidence(dataclasses.replace(look, made=made, category=name, found=found))

    held = [seen("cup", 0.7) for _ in range(60)] + [seen("plate", 0.1) for _ in range(60)]
    values = np.array([[DetectorCheck().value(e, Learnt()) for e in held]])
    bounds = joint_bounds([DetectorCheck()], values, [e.look.category for e in held], 0.1)
    assert bounds["detector"].of("cup") > 0.7
    assert 0.1 < bounds["detector"].of("plate") < 0.2
    assert bounds["detector"].refused <= 0.1


def test_a_large_part_is_kept_small_and_its_boxes_move_along() -> None:
    """A photograph of 12 megapixels must not cost a hundred megabytes a look."""
    image = torch.rand(3, 2000, 3000)
    box = (1000.0, 400.0, 2200.0, 1600.0)
    look = next(
        one for one in untouched(image, [("cup", box)], [("cup", 0.5, box)], np.random.default_rng(0))
    )
    assert max(look.image.shape[1:]) <= 600
    assert look.mask.shape == tuple(look.image.shape[1:])
    x1, y1, x2, y2 = look.made[0][1]
    assert (x2 - x1) * 12 == pytest.approx(1200)
    assert look.mask[round((y1 + y2) / 2), round((x1 + x2) / 2)]
    assert look.found[0][2] == look.made[0][1]


def test_no_critic_of_parts_judges_a_whole_picture(gate: Gate, judge: Judge) -> None:
    look = dataclasses.replace(_one(), mask=np.ones(tuple(_one().image.shape[1:]), bool))
    verdicts = {v.check: v for v in gate.judge(evidence_of([look], judge)[0])}
    assert verdicts["realism"].reason == "nothing to judge here"


def test_what_was_pasted_need_be_no_better_than_where_it_comes_from() -> None:
    """The bound gives way to the measure at home, less the slack; it never becomes stricter."""
    look = _one()
    weights, nothing = np.array([[1.0], [-1.0]]), np.zeros(2)
    learnt = Learnt({"classes": np.array(["cup", "plate"]), "weights": weights, "intercepts": nothing})
    check, bound = CHECKS.load("label")(), Bound(1.0, slack=0.2)

    def accepted(own: float, home: float | None, limit: Bound = bound) -> bool:
        there = None if home is None else _evidence(look, made=np.array([[home]]))
        return judged(check, _evidence(look, made=np.array([[own]]), home=there), learnt, limit).accepted

    value = check.value(_evidence(look, made=np.array([[0.3]])), learnt)
    assert value < 1
    assert not accepted(0.3, None)
    assert accepted(0.3, 0.3)
    assert accepted(0.25, 0.3)  # within the slack
    assert not accepted(0.0, 0.3)
    assert not accepted(0.3, 5.0)
    assert not accepted(0.45, 0.55)  # what passes at home must pass here, slack or not
    assert accepted(2.0, 5.0)  # as good as untouched ones is good enough
    assert not accepted(0.3, 0.3, Bound(1.0))  # of a check that does not ask how it was at home


def test_an_untouched_picture_elsewhere_passes_and_a_spoilt_one_does_not(gate: Gate, judge: Judge) -> None:
    rng = np.random.default_rng(6)
    fresh = [look for look in _looks(range(400, 420)) if look.made]
    copies = [dataclasses.replace(look, home=look) for look in fresh]
    found = [gate.judge(e) for e in evidence_of(copies, judge)]
    joint = ("realism", "label", "whole")
    assert all(v.accepted for one in found for v in one if v.check in joint)
    bad = [dataclasses.replace(spoilt(look, fresh, rng), home=look) for look in fresh]
    refused = [not all(v.accepted for v in gate.judge(e)) for e in evidence_of(bad, judge)]
    assert np.mean(refused) >= 0.85
    assert all(gate.bounds[name].slack >= 0 for name in joint)
    assert all(np.isnan(gate.bounds[name].slack) for name in ("detector", "extra", "changed", "kept"))


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_scaled_look_shows_the_same_part_and_boxes(factor: float) -> None:
    look = _one()
    other = scaled(look, factor)
    assert np.allclose(np.asarray(other.part) / factor, look.part, atol=2)
    assert np.allclose(np.asarray(other.made[0][1]) / factor, look.made[0][1], atol=1.5)
    assert other.image.shape[1:] == other.mask.shape
    inside = [float(one.image[:, torch.from_numpy(one.mask.copy())].mean()) for one in (look, other)]
    assert abs(inside[0] - inside[1]) < 0.03


def test_surroundings_like_those_that_were_there_do_not_hide_a_new_object() -> None:
    look = _one()
    before = look.image.clone()
    x1, y1, x2, y2 = (int(v) for v in look.made[0][1])
    before[:, y1:y2, x1:x2] = look.image.mean()  # no object yet; all around it as it is now
    wide = dataclasses.replace(look, before=before, mask=np.ones_like(look.mask))
    value = ChangedCheck().value(_evidence(wide), Learnt())
    assert value == pytest.approx(
        float((look.image - before).abs().mean(0)[y1:y2, x1:x2].mean()), rel=0.15
    )


def test_a_sample_in_which_the_failure_is_gone_is_refused() -> None:
    """The detector must still miss one of the objects that were touched, by the diagnosis's threshold."""
    box, other = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 60.0, 60.0)
    check = MissedCheck()
    bound = check.bound([], Learnt())

    def accepted(*found: tuple[str, float, tuple[float, float, float, float]], kind: str = "FN") -> bool:
        look = dataclasses.replace(
            _one(), found=list(found), touched=(("cup", box), ("cup", other)), threshold=0.5, kind=kind
        )
        return judged(check, _evidence(look), Learnt(), bound).accepted

    assert accepted()
    assert accepted(("cup", 0.9, box))  # the other one is missed
    assert not accepted(("cup", 0.9, box), ("cup", 0.5, other))
    assert accepted(("cup", 0.9, box), ("cup", 0.49, other))
    assert accepted(("cup", 0.9, box), ("plate", 0.9, other))
    assert accepted(("cup", 0.9, box), ("cup", 0.9, other), kind="FP")  # `deceives` judges look-alikes
    untouched_look = _evidence(dataclasses.replace(_one(), found=[("cup", 0.9, box)]))
    assert judged(check, untouched_look, Learnt(), bound).accepted
