"""Intervals over images and seeds: equal to the readings where nothing is drawn, and to known variances."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curator.diagnose.metrics import average_precision
from curator.matching import GroundTruth, ImageResult
from curator.prove.comparisons import (
    Comparison,
    Difference,
    advice,
    answered,
    compare_arms,
    images_for_the_same,
    read_fates,
)
from curator.prove.fates import pack_holdout, pack_matched, unpack_holdout, unpack_matched
from curator.prove.group_readings import compare_group, compare_groups
from curator.prove.readings import Base, Matched, compare, gather_objects, match_all
from curator.prove.statistics import (
    FIGURES,
    READINGS,
    Estimate,
    Values,
    arm_estimate,
    estimate,
    holm,
    measure,
    smallest_effect,
    weights,
    worse_of,
)
from curator.prove.trial_tables import (
    difference_note,
    difference_table,
    learning_curves,
    summarise,
    trial_table,
)
from store.records import Trial

FLOOR = 0.05
NAMES = ("cat", "dog")
THRESHOLD = 0.5


def drawn_results(rng: np.random.Generator, images: int, skill: float) -> list[ImageResult]:
    """Random detections of objects that stand apart, true ones and false ones."""
    truths = np.random.default_rng(7)
    found = []
    for number in range(images):
        count = int(truths.integers(1, 6))
        classes = truths.integers(0, 2, count)
        boxes = np.array([[20.0 * k, 0.0, 20.0 * k + 10, 10.0] for k in range(count + 4)])
        hit = rng.random(count) < skill
        extra = np.arange(count, count + int(rng.integers(0, 4)))
        places = np.concatenate([np.flatnonzero(hit), extra])
        of_class = np.concatenate([classes[hit], rng.integers(0, 2, len(extra))])
        scores = np.round(rng.uniform(FLOOR, 1, len(places)), 2)
        ids = 10 * number + np.arange(count)
        known = GroundTruth(boxes[:count], classes, np.zeros(count, bool), ids)
        found.append(ImageResult(known, boxes[places].reshape(-1, 4), scores, of_class.astype(np.int64)))
    return found


def base_of(results: list[ImageResult]) -> Base:
    matched = match_all(results)
    causes = {int(i): "miss" for r in results for i in r.truth.ids}
    blank = [[""] * len(r.truth.classes) for r in results]
    objects = gather_objects([r.truth for r in results], blank, causes, np.ones(2, bool))
    false = np.full(len(matched.scores), "background")
    return Base(objects, matched, THRESHOLD, len(results), false, np.full(len(false), ""), NAMES)


def scene(
    seed: int, images: int = 12, trials: int = 3
) -> tuple[Base, list[Matched], list[list[ImageResult]]]:
    rng = np.random.default_rng(seed)
    base = base_of(drawn_results(rng, images, 0.5))
    results = [drawn_results(rng, images, 0.7) for _ in range(trials)]
    return base, [match_all(r) for r in results], results


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_without_drawing_every_reading_is_the_one_of_compare(seed: int) -> None:
    base, trials, results = scene(seed)
    found = measure([base] * len(trials), trials, [str(i) for i in range(base.images)], floor=FLOOR, draws=2)
    names = {"fixed": "fixed_threshold", "matched": "matched_threshold", "recall": "matched_recall"}
    for place, (trial, own) in enumerate(zip(trials, results, strict=True)):
        readings = compare(base, trial, floor=FLOOR)
        for figure, kind in (("fn_fixed", "fn"), ("fp_fixed", "fp"), ("broken", "broken")):
            for reading in READINGS[figure]:
                expected = readings[names[reading]][kind]["rate"]
                got = found[figure][reading].point[place]
                assert math.isnan(got) if expected is None else got == pytest.approx(expected)
        for reading in READINGS["new_false_per_image"]:
            expected = readings[names[reading]]["new_false_per_image"]
            assert found["new_false_per_image"][reading].point[place] == pytest.approx(expected)
        ap = average_precision(own, NAMES)
        area = found["ap50"]["any"].point[place]
        assert area == pytest.approx(np.mean(list(ap.values())), abs=0.08)  # 101 points against the area


def test_a_replicate_is_the_reading_of_the_images_that_it_drew() -> None:
    base, trials, results = scene(3, images=8, trials=1)
    drawn, _ = weights([str(i) for i in range(8)], draws=20)
    found = measure([base] * len(trials), trials, [str(i) for i in range(8)], floor=FLOOR, draws=20)
    own = drawn_results(np.random.default_rng(3), 8, 0.5)
    for number, row in enumerate(drawn):
        chosen = np.repeat(np.arange(8), row.astype(int))
        again = base_of([own[i] for i in chosen])
        reading = compare(again, match_all([results[0][i] for i in chosen]), floor=FLOOR)
        for name, key in (("fixed", "fixed_threshold"), ("matched", "matched_threshold")):
            expected = reading[key]["fn"]["rate"]
            got = found["fn_fixed"][name].drawn[number, 0]
            assert math.isnan(got) if expected is None else got == pytest.approx(expected)
        expected = reading["matched_recall"]["fp"]["rate"]
        got = found["fp_fixed"]["recall"].drawn[number, 0]
        assert math.isnan(got) if expected is None else got == pytest.approx(expected)


def test_images_of_one_video_are_drawn_together() -> None:
    drawn, count = weights(["a", "a", "b", "c", "c", "c"], draws=50)
    assert count == 3
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 3] == drawn[:, 5]).all()
    assert ((drawn[:, 0] + drawn[:, 2] + drawn[:, 3]) == 3).all()


def test_with_one_image_level_alone_the_interval_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=200)
    drawn = (weights([str(i) for i in range(200)], draws=4000)[0] * image).sum(1) / 200
    found = estimate(Values(np.array([image.mean()]), drawn[:, None], 200))
    reach = stats.t.ppf(0.975, 199) * image.std(ddof=1) / math.sqrt(200)
    assert found.high - found.mean == pytest.approx(reach, rel=0.05)


def test_seeds_alone_give_the_t_interval() -> None:
    luck = np.array([0.1, 0.4, 0.2, 0.6, 0.3])
    found = estimate(Values(luck, np.tile(luck, (50, 1)), 1000))
    low, high = stats.t.interval(0.95, 4, luck.mean(), luck.std(ddof=1) / math.sqrt(5))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p == pytest.approx(stats.ttest_1samp(luck, 0).pvalue)


def test_noise_of_objects_and_seeds_is_not_counted_twice() -> None:
    """Only (image, seed) noise: the variance is that of the mean, not its double."""
    rng = np.random.default_rng(1)
    drawn, _ = weights([str(i) for i in range(150)], draws=800)
    variances = []
    for _ in range(60):
        noise = rng.normal(size=(150, 5))
        e = estimate(Values(noise.mean(0), drawn @ noise / 150, 150))
        variances.append(((e.high - e.mean) / 1.96) ** 2)
    assert np.median(variances) == pytest.approx(1 / (150 * 5), rel=0.35)


def test_holm_is_that_of_the_book() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == pytest.approx(0.06)
    assert found["b"] == pytest.approx(0.06)  # never below a smaller one's
    assert math.isnan(found["d"])


def test_the_worse_reading_of_a_difference_is_taken() -> None:
    def values(mean: float) -> Values:
        return Values(np.array([mean, mean]), np.full((4, 2), mean), 9)

    assert worse_of("fn_fixed", {"fixed": values(0.2), "matched": values(0.1)}).mean == 0.1
    assert worse_of("broken", {"fixed": values(0.2), "matched": values(0.1)}).mean == 0.2


def test_the_smallest_effect_falls_with_the_holdout_and_grows_with_clustering() -> None:
    assert smallest_effect([1] * 400) == pytest.approx(2.8016 * math.sqrt(0.25 / 400), rel=1e-3)
    assert smallest_effect([4] * 100) > smallest_effect([1] * 400)
    assert math.isnan(smallest_effect([0, 0]))
    assert smallest_effect([1]) > 1  # no difference can be shown


def test_few_failures_that_all_agree_say_nothing_for_sure() -> None:
    always = Values(np.ones(3), np.ones((50, 3)), 1)
    assert math.isnan(estimate(always).p)
    several = Values(np.ones(3), np.ones((50, 3)), 3)
    assert math.isnan(estimate(several).p)
    assert estimate(Values(np.zeros(3), np.zeros((50, 3)), 3)).p == 1


def test_an_interval_counts_the_images_that_hold_such_failures() -> None:
    base, trials, _ = scene(3, images=30, trials=2)
    found = measure([base] * 2, trials, ["a"] * 10 + ["b"] * 10 + ["c"] * 10, floor=FLOOR, draws=5)
    assert found["fn_fixed"]["fixed"].clusters == 3
    assert found["ap50"]["any"].clusters == 3


def test_advice_names_a_real_winner_though_another_mean_is_higher() -> None:
    def difference(arm: str, figure: str, mean: float, adjusted: float) -> Difference:
        value = Estimate(mean, mean - 0.05, mean + 0.05, adjusted)
        return Difference(arm, "random", figure, value, adjusted, 5)

    said = [
        difference(arm, figure, mean, adjusted)
        for arm, mean, adjusted in (("query", 0.06, 0.01), ("diversity", 0.08, 0.3))
        for figure in FIGURES
    ]
    nothing = {"fn_fixed": Estimate(0.1, 0.0, 0.2, 1.0)}
    compared = Comparison(dict.fromkeys(("random", "query", "diversity"), nothing), tuple(said))
    trials = [
        Trial(verification="v", arm=arm, seed=0, metrics={"n_added": 40}, key=arm)
        for arm in ("random", "query", "diversity")
    ]
    assert advice(compared, trials).startswith("add the 40 images of query: +0.06 [0.01, 0.11]")
    assert advice(compared, trials).endswith("; not surely better than random: diversity")
    missing = [replace(d, value=Estimate(math.nan, math.nan, math.nan, math.nan)) for d in said]
    assert advice(replace(compared, differences=tuple(missing)), trials) == ""


def advised(*arms: tuple[str, float, float, float]) -> str:
    """The advice on arms: name, missed objects fixed and AP50 against random (+-0.03), p of the latter."""
    said = [
        Difference(arm, "random", figure, Estimate(mean, mean - 0.03, mean + 0.03, p), p, 5)
        for arm, fixed, ap, p_ap in arms
        for figure, mean, p in [
            (name, ap if name == "ap50" else fixed, p_ap if name == "ap50" else 0.3) for name in FIGURES
        ]
    ]
    names = ["random", *(arm for arm, *_ in arms)]
    trials = [Trial(verification="v", arm=arm, seed=0, metrics={"n_added": 40}, key=arm) for arm in names]
    return advice(
        Comparison({name: {"fn_fixed": Estimate(0.1, 0, 0.2, 1)} for name in names}, tuple(said)), trials
    )


def test_advice_calls_no_arm_the_best_that_lies_below_random() -> None:
    assert advised(("query", -0.02, -0.046, 0.001), ("diversity", -0.05, 0.0, 1.0)) == (
        "no arm is better than random here; query: -0.02 [-0.05, 0.01] of the missed objects fixed; "
        "AP50 -0.046 [-0.076, -0.016]; surely worse than random in AP50: query; "
        "more holdout images or seeds would tell"
    )
    assert advised(("query", -0.1, -0.01, 1.0)).endswith("AP50 -0.010 [-0.040, 0.020]")  # more would not help
    assert advised(("query", 0.02, 0.01, 1.0)).startswith(
        "no arm is surely better than random here; the best, query: +0.02"
    )
    assert "here; query: +0.02" in advised(("query", 0.02, -0.04, 0.2))


def test_a_difference_of_shares_lies_within_one() -> None:
    wide = Estimate(-0.5, -1.772, 0.772, 0.3)
    for figure in ("fn_fixed", "fp_fixed", "broken", "ap50"):
        assert (wide.between_arms(figure).low, wide.between_arms(figure).high) == (-1.0, 0.772)
    assert wide.between_arms("new_false_per_image") == wide
    base = base_of(drawn_results(np.random.default_rng(0), 3, 0.5))
    rng = np.random.default_rng(1)
    arms = {
        name: [match_all(drawn_results(rng, 3, skill)) for skill in (0.0, 1.0)]
        for name in ("random", "query")
    }
    trials, blobs = stored(base, arms)
    compared = compare_arms(trials, blobs.__getitem__, floor=FLOOR)
    assert compared is not None
    reach = [d.value for d in compared.differences if d.figure in ("fn_fixed", "fp_fixed", "broken")]
    assert min(e.low for e in reach) == -1.0
    assert max(e.high for e in reach) == 1.0


def test_a_line_says_why_a_difference_is_not_that_of_the_rows() -> None:
    def compared(minus: float) -> Comparison:
        def figures(mean: float) -> dict[str, Estimate]:
            return {figure: Estimate(mean, mean, mean, 1.0) for figure in FIGURES}

        said = tuple(
            Difference("query", "random", figure, Estimate(minus, -1.0, 0.5, 1.0), 1.0, 2)
            for figure in FIGURES
        )
        return Comparison({"random": figures(0.75), "query": figures(0.75)}, said)

    assert difference_note(compared(-0.25)).endswith("it need not equal the difference of the rows")
    assert difference_note(compared(0.001)) == ""


def test_one_common_seed_is_never_real() -> None:
    value = Estimate(0.5, 0.4, 0.6, 0.0001)
    assert Difference("query", "random", "fn_fixed", value, 0.0001, 2).real
    assert not Difference("query", "random", "fn_fixed", value, 0.0001, 1).real


def test_images_that_random_needs_are_counted_as_added() -> None:
    def figures(mean: float) -> dict[str, Estimate]:
        return {"fn_fixed": Estimate(mean, mean, mean, 1.0)}

    rates = {"nothing": 0.0, "random@100": 0.2, "random@400": 0.3, "query@100": 0.25, "query@400": 0.9}
    compared = Comparison({arm: figures(rate) for arm, rate in rates.items()}, ())
    added = {"nothing": 0, "random@100": 100, "random@400": 150, "query@100": 100, "query@400": 150}
    trials = [
        Trial(verification="v", arm=arm, seed=0, metrics={"n_added": n}, key=arm) for arm, n in added.items()
    ]
    assert images_for_the_same(compared, trials) == [
        "query with 100 images fixes as much as random with about 125",
        "query with 150 images fixes as much as random with more than 150",
    ]


def test_a_learning_curve_needs_two_budgets() -> None:
    base, trials, _ = scene(3, images=40, trials=2)
    kept, blobs = stored(
        base, {"nothing": trials, "query@40": trials, "query@20": trials, "random@20": trials}
    )
    for trial in kept:
        trial.metrics["n_added"] = int(trial.arm.partition("@")[2] or 0)  # type: ignore[index]
    compared = compare_arms(kept, blobs.__getitem__, floor=FLOOR)
    curves = learning_curves(kept, compared)
    assert {figure: list(lines) for figure, lines in curves.items()} == {
        "fn_fixed": ["query"],
        "ap50": ["query"],
    }
    (few, many) = curves["fn_fixed"]["query"]
    assert (few[0], many[0]) == (20, 40)
    assert few[2] <= few[1] <= few[3]
    assert learning_curves(kept, None) == {"fn_fixed": {}, "ap50": {}}


def test_bases_of_another_device_are_compared_and_another_holdout_is_not() -> None:
    base, trials, _ = scene(5, trials=2)
    kept, blobs = stored(base, {"nothing": trials, "query": trials})
    moved = replace(base, matched=replace(base.matched, scores=base.matched.scores + 1e-12))
    names = [str(i) for i in range(base.images)]
    blobs["other"] = pack_holdout(moved, names, names)
    kept[0].metrics["base_fates"] = "other"  # type: ignore[index]
    assert compare_arms(kept, blobs.__getitem__, floor=FLOOR) is not None
    blobs["other"] = pack_holdout(base, ["x" for _ in names], names)
    assert compare_arms(kept, blobs.__getitem__, floor=FLOOR) is None


def test_fates_survive_as_bytes() -> None:
    base, trials, _ = scene(5)
    kept = unpack_holdout(pack_holdout(base, ["x"] * base.images, ["v"] * base.images))
    assert pack_holdout(kept.base, kept.sha256, kept.cluster) == pack_holdout(
        base, ["x"] * base.images, ["v"] * base.images
    )
    again = unpack_matched(pack_matched(trials[0]))
    assert compare(kept.base, again, floor=FLOOR) == compare(base, trials[0], floor=FLOOR)


def stored(base: Base, arms: dict[str, list[Matched]]) -> tuple[list[Trial], dict[str, bytes]]:
    """Trials whose fates lie in a table of blobs."""
    blobs = {
        "base": pack_holdout(base, [str(i) for i in range(base.images)], [str(i) for i in range(base.images)])
    }
    trials = []
    for arm, matched in arms.items():
        for seed, of_seed in enumerate(matched):
            blobs[f"{arm}{seed}"] = pack_matched(of_seed)
            compared = compare(base, of_seed, floor=FLOOR)
            figures: dict[str, Any] = {
                **compared,
                "ap50": 0.5,
                "n_added": 0 if arm == "nothing" else 40,
                "fates": f"{arm}{seed}",
                "base_fates": "base",
                "base": {"missed": 1, "false": 1, "found": 1, "ap50": 0.5, "missing_classes": []},
            }
            trials.append(Trial(verification="v", arm=arm, seed=seed, metrics=figures, key=f"{arm}{seed}"))
    return trials, blobs


def test_arms_are_compared_with_random_first_and_advice_follows_the_figures() -> None:
    rng = np.random.default_rng(0)
    images = 80
    base = base_of(drawn_results(rng, images, 0.4))

    def networks(skill: float) -> list[Matched]:
        return [match_all(drawn_results(rng, images, skill)) for _ in range(5)]

    arms = {"nothing": networks(0.45), "random": networks(0.5), "query": networks(0.9)}
    trials, blobs = stored(base, arms)
    compared = compare_arms(trials, blobs.__getitem__, floor=FLOOR)
    assert compared is not None
    assert {(d.arm, d.against) for d in compared.differences} == {
        ("nothing", "random"),
        ("query", "random"),
        ("random", "nothing"),
        ("query", "nothing"),
    }
    (gain,) = [
        d for d in compared.differences if (d.arm, d.against, d.figure) == ("query", "random", "fn_fixed")
    ]
    assert gain.real
    assert gain.value.low > 0.1
    assert advice(compared, trials).startswith("add the 40 images of query: +0.")
    summary = summarise(trials, compared)
    assert summary["advice"] == advice(compared, trials)
    assert summary["arms"]["query"]["fn_fixed"]["mean"] == pytest.approx(
        compared.arms["query"]["fn_fixed"].mean
    )
    assert [row[:2] for row in difference_table(compared)[1]] == [("nothing", "random"), ("query", "random")]
    assert difference_table(compared)[1][1][2].endswith("*")
    assert "[" in trial_table(trials, compared)[1][1][3]
    equal = {"random": arms["random"], "query": networks(0.5)}
    same, kept = stored(base, equal)
    nothing = compare_arms(same, kept.__getitem__, floor=FLOOR)
    assert nothing is not None
    assert advice(nothing, same).startswith("no arm is better than random here; query: +0.00 [")


def test_a_verification_stops_early_when_the_answer_is_clear_or_hopeless() -> None:
    rng = np.random.default_rng(0)
    base = base_of(drawn_results(rng, 80, 0.4))

    def compared(skill: float) -> Comparison:
        arms = {
            name: [match_all(drawn_results(rng, 80, of_arm)) for _ in range(3)]
            for name, of_arm in (("random", 0.5), ("query", skill))
        }
        trials, blobs = stored(base, arms)
        found = compare_arms(trials, blobs.__getitem__, floor=FLOOR)
        assert found is not None
        return found

    assert answered(compared(0.95), 0.1, looks=2) == "the differences are clear"
    assert answered(compared(0.5), 0.3, looks=2).startswith("no arm can be shown to be 0.30 better")
    assert answered(compared(0.5), 0.0, looks=2) == ""


def test_stars_are_corrected_for_the_looks_of_a_verification_that_may_stop() -> None:
    rng = np.random.default_rng(0)
    base = base_of(drawn_results(rng, 60, 0.4))
    arms = {
        name: [match_all(drawn_results(rng, 60, of_arm)) for _ in range(3)]
        for name, of_arm in (("random", 0.5), ("query", 0.6))
    }
    trials, blobs = stored(base, arms)
    once = compare_arms(trials, blobs.__getitem__, floor=FLOOR)
    for trial in trials:
        trial.metrics["looks"] = 3  # type: ignore[index]
    often = compare_arms(trials, blobs.__getitem__, floor=FLOOR)
    assert once is not None
    assert often is not None
    for one, other in zip(once.differences, often.differences, strict=True):
        assert other.adjusted == pytest.approx(min(1.0, 3 * one.adjusted), nan_ok=True)
    assert answered(once, 0.1, looks=3) == answered(often, 0.1, looks=3)


def test_trials_of_older_versions_have_no_comparison() -> None:
    base, trials, _ = scene(1, trials=1)
    kept, blobs = stored(base, {"nothing": trials})
    del kept[0].metrics["fates"]  # type: ignore[attr-defined]
    assert compare_arms(kept, blobs.__getitem__, floor=FLOOR) is None


def test_one_seed_and_few_images_are_told() -> None:
    base, trials, _ = scene(1, trials=1)
    kept, blobs = stored(base, {"nothing": trials, "query": trials})
    compared = compare_arms(kept, blobs.__getitem__, floor=FLOOR)
    assert compared is not None
    assert "one training seed" in compared.notes[0]
    assert "images or videos: the intervals are too narrow" in compared.notes[1]
    assert all(d.value.mean == 0 and not d.real for d in compared.differences)
    assert {d.figure for d in compared.differences} == set(FIGURES)


@pytest.mark.parametrize("kind", ["class", "condition", "cause"])
def test_a_group_is_read_as_the_readings_read_it(kind: str) -> None:
    base, trials, _ = scene(3, images=60, trials=2)
    conditions = np.where(np.arange(len(base.objects.image)) % 3 == 0, "night", "")
    base = replace(base, objects=replace(base.objects, condition=conditions))
    kept, blobs = stored(base, {"random": trials, "query": trials[::-1]})
    fates = read_fates(kept, blobs.__getitem__)
    assert fates is not None
    groups = compare_groups(fates, floor=FLOOR, fewest=5)
    names = {group.name for group in groups if group.kind == kind}
    assert names == {"class": set(NAMES), "condition": set(), "cause": set()}[kind]
    for name in {"class": NAMES, "condition": ("night",), "cause": ("miss",)}[kind]:
        found = compare_group(fates, kind, name, floor=FLOOR).arms["query"]
        key = f"FN:{name}" if kind == "cause" else name
        readings = [
            compare(base, trial, floor=FLOOR)[reading]["groups"][kind][key]["fn"]["rate"]
            for reading in ("fixed_threshold", "matched_threshold")
            for trial in trials
        ]
        assert found["fn_fixed"].mean == pytest.approx(min(np.mean(readings[:2]), np.mean(readings[2:])))


def test_arms_are_compared_with_any_other() -> None:
    base, trials, _ = scene(3, images=40, trials=2)
    kept, blobs = stored(base, {"random": trials, "query": trials})
    compared = compare_arms(kept, blobs.__getitem__, floor=FLOOR, references=("query",))
    assert compared is not None
    assert {(d.arm, d.against) for d in compared.differences} == {("random", "query")}


def test_an_interval_ends_where_the_figure_does() -> None:
    wide = Estimate(0.1, -0.3, 1.2, 0.2)
    assert (wide.within("fn_fixed", 9).low, wide.within("fn_fixed", 9).high) == (0.0, 1.0)
    assert (wide.within("new_false_per_image", 9).low, wide.within("new_false_per_image", 9).high) == (
        0.0,
        1.2,
    )
    unknown = Estimate(0.1, math.nan, math.nan, math.nan).within("ap50", 9)
    assert math.isnan(unknown.low)
    assert unknown.mean == 0.1


@pytest.mark.parametrize(("found", "mean"), [(0, 0.0), (1, 1.0)])
def test_where_nothing_varies_the_end_is_exact(found: int, mean: float) -> None:
    """0 of 43 is not surely 0."""
    values = Values(np.full(3, float(found)), np.full((50, 3), float(found)), clusters=43)
    told = arm_estimate("fn_fixed", {"fixed": values})
    exact = stats.binomtest(43 * found, 43).proportion_ci(0.95, method="exact")
    assert told.mean == mean
    assert (told.low, told.high) == pytest.approx((exact.low, exact.high))
    alone = arm_estimate("fn_fixed", {"fixed": replace(values, clusters=1)})
    assert alone.low == alone.high or math.isnan(alone.low)


def test_no_new_false_positive_in_some_images_is_not_surely_none() -> None:
    values = Values(np.zeros(3), np.zeros((50, 3)), clusters=20)
    told = arm_estimate("new_false_per_image", {"fixed": values})
    assert (told.low, told.high) == pytest.approx((0.0, stats.chi2.ppf(0.975, 2) / 2 / 20))
    assert told.p == 1.0
