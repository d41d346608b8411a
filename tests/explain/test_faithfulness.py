"""Fidelity, maps, bootstrap, ablation: by hand, and on games whose Shapley values are known."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.bootstrap import bootstrap_interval, paired_difference
from curator.errors import ConfigError, InputError
from curator.explain.base import AttributionOptions, Target
from curator.explain.fills.fill import MeanFill
from curator.explain.measures.ablation import ablation_curve, random_ablation_curve
from curator.explain.measures.fidelity import (
    corrected,
    expected_correlation,
    pearson,
    relative_error,
    shapley_reference,
    spearman,
    spearman_brown,
)
from curator.explain.measures.plot import PlotPoint, Series, cost_plot
from curator.explain.methods.e2x import E2X
from curator.explain.methods.shapley import permutation_values
from curator.represent.pixel_maps import (
    map_pixels,
    positive_share,
    segment_values,
    strongest_point,
)

sys.path.insert(0, str(Path(__file__).parent))
from made_maps import grid_map, segment_map
from tiny_detectors import Linear, TinyDetector, blocks, picture

TWO_SIZES = np.array([[0, 0, 1], [0, 0, 1]], dtype=np.uint16)  # |S| = 4 and 2


class TestMaps:
    def test_segments_show_their_density_and_sum_to_phi(self) -> None:
        found = segment_map([2.0, -1.0])
        pixels = map_pixels(found, TWO_SIZES, (2, 3))
        assert pixels.tolist() == [[0.5, 0.5, -0.5], [0.5, 0.5, -0.5]]
        assert segment_values(found, TWO_SIZES).tolist() == [2.0, -1.0]

    def test_a_grid_of_pixels_is_itself(self) -> None:
        values = np.arange(6, dtype=np.float32).reshape(2, 3)
        assert (map_pixels(grid_map(values), None, (2, 3)) == values).all()
        assert segment_values(grid_map(values), TWO_SIZES).tolist() == [0 + 1 + 3 + 4, 2 + 5]

    def test_a_coarse_grid_is_interpolated_between_its_centres_and_keeps_its_sum(self) -> None:
        pixels = map_pixels(grid_map([[4.0, 8.0]], scale=2.0, offset=1.0), None, (2, 4))
        # centres at x = 1 and 3; pixels' centres at 0.5, 1.5, 2.5, 3.5; a cell has 4 px
        assert pixels[0] == pytest.approx([1.0, 1.25, 1.75, 2.0])
        assert (pixels[1] == pixels[0]).all()
        assert pixels.sum() == pytest.approx(12.0)

    def test_the_point_is_the_densest_segments_centroid_or_the_largest_cell(self) -> None:
        assert strongest_point(segment_map([2.0, 1.5]), TWO_SIZES) == (2.5, 1.0)
        assert strongest_point(segment_map([2.0, 1.0]), TWO_SIZES) == (1.0, 1.0)  # equal: the first
        assert strongest_point(segment_map([-1.0, 0.0]), TWO_SIZES) is None
        grid = grid_map([[0.0, 1.0], [3.0, 1.0]], scale=8.0, offset=4.0)
        assert strongest_point(grid, TWO_SIZES) == (4.0, 12.0)
        assert strongest_point(grid_map([[0.0, -1.0]]), TWO_SIZES) is None

    def test_the_positive_part_is_scaled_to_one(self) -> None:
        assert positive_share(np.array([[-2.0, 1.0, 4.0]])).tolist() == [[0.0, 0.25, 1.0]]
        assert positive_share(np.array([[-2.0, 0.0]])).tolist() == [[0.0, 0.0]]

    def test_labels_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(InputError, match="expected labels of"):
            map_pixels(segment_map([1.0, 2.0]), None, (2, 3))
        with pytest.raises(InputError, match=r"expected labels of \(4, 3\), got \(2, 3\)"):
            map_pixels(segment_map([1.0, 2.0]), TWO_SIZES, (4, 3))
        with pytest.raises(InputError, match="expected phi of 2 segments, got 1"):
            segment_values(segment_map([1.0]), TWO_SIZES)


class TestCorrelations:
    def test_by_hand(self) -> None:
        assert pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(9 / math.sqrt(84))
        assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
        assert math.isnan(pearson([1, 1, 1], [1, 2, 3]))
        assert spearman([1, 10, 100], [1, 2, 3]) == pytest.approx(1)
        assert relative_error([1, 2], [1, 0]) == pytest.approx(2)
        assert math.isnan(relative_error([1, 2], [0, 0]))
        assert spearman_brown(0.5) == pytest.approx(2 / 3)
        assert spearman_brown(1.0) == 1
        assert corrected(0.6, 0.81) == pytest.approx(0.6 / 0.9)
        assert math.isnan(corrected(0.6, -0.1))
        with pytest.raises(InputError, match="one size, got 2 and 3"):
            pearson([1, 2], [1, 2, 3])

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.integers(-50, 50), min_size=3, max_size=20), st.integers(1, 9), st.integers(-9, 9))
    def test_scale_and_shift_do_not_matter(self, values: list[int], scale: int, shift: int) -> None:
        other = [scale * v + shift for v in values]
        if len(set(values)) == 1:
            assert math.isnan(pearson(values, other))
        else:
            assert pearson(values, other) == pytest.approx(1)
            assert spearman(values, [-(v**3) for v in values]) == pytest.approx(-1)

    def test_numpy_and_scipy_agree(self) -> None:
        from scipy.stats import spearmanr

        numbers = np.random.default_rng(0)
        a, b = numbers.normal(size=50), numbers.integers(0, 5, 50)  # with ties
        assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)

    def test_expected_correlation_is_a_mean_without_constant_maps(self) -> None:
        maps = [[1, 2, 3], [3, 2, 1], [5, 5, 5]]
        references = [[2, 4, 6], [1, 2, 3], [1, 2, 3]]
        assert expected_correlation(maps, references) == pytest.approx(0)
        assert expected_correlation(maps[:1], references[:1], ranks=True) == pytest.approx(1)
        assert math.isnan(expected_correlation([[1, 1]], [[1, 2]]))
        with pytest.raises(InputError, match="a reference per map"):
            expected_correlation(maps, references[:1])


class TestReference:
    @staticmethod
    def product(members: np.ndarray) -> np.ndarray:
        """Two targets: w0 w1 w2 + 2 w3 (Shapley 1/3, 1/3, 1/3, 2) and 5 w4."""
        w = members.astype(float)
        return np.stack([w[:, 0] * w[:, 1] * w[:, 2] + 2 * w[:, 3], 5 * w[:, 4]], axis=1)

    def orders(self, pairs: int) -> np.ndarray:
        return np.argsort(np.random.default_rng(1).random((pairs, 5)), axis=1)

    @pytest.mark.parametrize("pairs", [2, 7, 200])
    def test_equals_all_permutations_together(self, pairs: int) -> None:
        found = shapley_reference(self.product, self.orders(pairs))
        together, _ = permutation_values(self.product, self.orders(pairs))
        assert found.phi == pytest.approx(together)
        assert found.passes == 2 * pairs * 4 + 4

    def test_additive_games_are_exact_and_wholly_reliable(self) -> None:
        found = shapley_reference(self.product, self.orders(2))
        assert found.phi[1] == pytest.approx([0, 0, 0, 0, 5])
        assert found.reliability[1] == pytest.approx(1)

    def test_more_pairs_come_nearer_and_are_more_reliable(self) -> None:
        truth = [1 / 3, 1 / 3, 1 / 3, 2, 0]
        few, many = (shapley_reference(self.product, self.orders(n)) for n in (4, 400))
        assert relative_error(many.phi[0], truth) < 0.03
        assert relative_error(many.phi[0], truth) <= relative_error(few.phi[0], truth)
        assert 0.99 < many.reliability[0] <= 1

    def test_one_pair_has_no_reliability_and_none_is_refused(self) -> None:
        assert np.isnan(shapley_reference(self.product, self.orders(1)).reliability).all()
        with pytest.raises(InputError, match="at least one pair"):
            shapley_reference(self.product, self.orders(0))

    def test_the_reliability_predicts_the_correlation_with_the_truth(self) -> None:
        """sqrt(R) estimates corr(reference, truth): what the correction rests on (planted noise)."""
        numbers = np.random.default_rng(5)
        truth = numbers.normal(size=400)
        halves = [truth + numbers.normal(size=400) for _ in range(2)]
        reliability = spearman_brown(pearson(*halves))
        assert pearson((halves[0] + halves[1]) / 2, truth) == pytest.approx(math.sqrt(reliability), abs=0.05)

    def test_e2x_on_a_linear_detector_is_right(self) -> None:
        labels = blocks(12, 12, 3, 3)
        detector = TinyDetector(Linear((12, 12)), size=(12, 12), values="log_odds")
        target = Target(candidate=1, label=0, kind="log_odds")
        x = picture(12, 12)
        method = E2X(AttributionOptions(samples=3))
        found = method.explain(
            detector, x, detector.pin(), labels, MeanFill(), [target], seed=0, image_key="a"
        )[0]
        products = (detector.module.weight[1] * x).sum(0).numpy()
        truth = np.bincount(labels.ravel(), weights=products.ravel())
        assert pearson(segment_values(found, labels), truth) == pytest.approx(1, abs=1e-6)
        assert relative_error(segment_values(found, labels), truth) < 1e-4
        pixels = map_pixels(found, labels, (12, 12))
        assert np.bincount(labels.ravel(), weights=pixels.ravel()) == pytest.approx(truth, abs=1e-5)


class TestBootstrap:
    def test_the_mean_lies_in_an_interval_that_shrinks(self) -> None:
        values = np.random.default_rng(0).normal(2.0, 1.0, 400)
        wide, narrow = bootstrap_interval(values[:20]), bootstrap_interval(values)
        assert wide.low < wide.mean < wide.high
        assert narrow.low < narrow.mean < narrow.high
        assert narrow.high - narrow.low < 0.4 * (wide.high - wide.low)
        error = 1.96 / math.sqrt(400)
        assert narrow.high - narrow.mean == pytest.approx(error, rel=0.15)

    def test_it_covers_the_truth_about_as_often_as_it_says(self) -> None:
        numbers = np.random.default_rng(3)
        samples = [numbers.normal(size=30) for _ in range(200)]
        intervals = [bootstrap_interval(s, draws=400, seed=i) for i, s in enumerate(samples)]
        covered = np.mean([i.low <= 0 <= i.high for i in intervals])
        assert 0.88 <= covered <= 0.99

    def test_whole_images_are_drawn(self) -> None:
        values = np.repeat([0.0, 1.0], 50)
        alone = bootstrap_interval(values)
        together = bootstrap_interval(values, clusters=["a"] * 50 + ["b"] * 50)
        assert (together.low, together.high) == (0.0, 1.0)  # two images say little
        assert alone.high - alone.low < 0.25

    def test_missing_values_and_too_few(self) -> None:
        assert bootstrap_interval([1.0, math.nan, 3.0]).count == 2
        assert bootstrap_interval([1.0, math.nan, 3.0]).mean == 2
        single = bootstrap_interval([1.0, 2.0], clusters=["a", "a"])
        assert (single.mean, single.count) == (1.5, 2)
        assert math.isnan(single.low)
        assert math.isnan(bootstrap_interval([math.nan]).mean)

    def test_pairs_see_what_noise_between_targets_hides(self) -> None:
        numbers = np.random.default_rng(0)
        hardness = numbers.normal(0, 5, 40)
        a, b = hardness + 0.5 + numbers.normal(0, 0.1, 40), hardness
        difference = paired_difference(a, b, seed=1)
        assert difference.low > 0.4
        assert bootstrap_interval(a).low < 0 < bootstrap_interval(a).high
        assert paired_difference(a, b, seed=1) == difference
        assert paired_difference(a, b, seed=2) != difference

    def test_wrong_shapes_are_refused(self) -> None:
        with pytest.raises(InputError, match="cluster per value"):
            bootstrap_interval([1.0, 2.0], clusters=["a"])
        with pytest.raises(InputError, match="level in"):
            bootstrap_interval([1.0, 2.0], level=95)
        with pytest.raises(InputError, match="equal shapes"):
            paired_difference([1.0], [1.0, 2.0])


class TestAblation:
    weights = (5.0, 3.0, 0.0, 1.0, 0.0, 0.0)

    def score(self, removed: object) -> float:
        return sum(w for i, w in enumerate(self.weights) if i not in list(removed))  # type: ignore[call-overload]

    def test_relevant_filters_hurt_more_than_random_ones(self) -> None:
        counts = (0, 1, 2, 6)
        ranked = ablation_curve(self.score, [0, 1, 3, 2, 4, 5], counts)
        assert ranked.scores.tolist() == [9, 4, 1, 0]
        chance = random_ablation_curve(self.score, range(6), counts, draws=50)
        assert chance.scores[0] == 9
        assert chance.scores[-1] == 0
        assert (chance.scores[1:3] > ranked.scores[1:3]).all()
        assert chance.scores[1] == pytest.approx(7.5, abs=0.8)  # a filter of six costs 1.5 on average
        again = random_ablation_curve(self.score, range(6), counts, draws=50)
        assert (again.scores == chance.scores).all()

    def test_counts_beyond_the_filters_are_refused(self) -> None:
        with pytest.raises(InputError, match="counts of 0 to 2"):
            ablation_curve(self.score, [0, 1], [3])
        with pytest.raises(InputError, match="at least 1 draw"):
            random_ablation_curve(self.score, [0, 1], [1], draws=0)


def test_the_plot_is_valid_svg_with_every_point_in_the_frame() -> None:
    from defusedxml.ElementTree import fromstring

    series = [
        Series("e2x", (PlotPoint(34, 0.8, 0.7, 0.9), PlotPoint(130, 0.9, 0.85, 0.95))),
        Series("a<b&c", (PlotPoint(198, -0.25, math.nan, math.nan), PlotPoint(5, math.nan, 0, 0))),
    ]
    root = fromstring(cost_plot(series, title="t", x_label="cost", y_label="r"))
    space = "{http://www.w3.org/2000/svg}"
    circles = [c for c in root.iter(f"{space}circle") if float(c.get("cx", 0)) < 590]
    assert len(circles) == 3  # the point that is nan is left out
    assert all(40 <= float(c.get("cy", 0)) <= 390 for c in circles)
    assert circles[1].get("cy", "") < circles[0].get("cy", "")  # the higher value is further up
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"e2x", "a<b&c", "50", "100"} <= set(texts)
    fromstring(cost_plot([], title="nothing", x_label="", y_label=""))


def test_contenders_of_a_configuration() -> None:
    from curator.explain.settings import EvaluateConfig

    config = EvaluateConfig(methods=("e2x", "sp?patch=9@1", "permutation@1+2"), samples=(4, 8))
    assert config.contenders() == [
        ("e2x", 4),
        ("e2x", 8),
        ("sp?patch=9", 1),
        ("permutation", 1),
        ("permutation", 2),
    ]
    for wrong in ("e2x@", "e2x@a", "@4", "e2x@0"):
        with pytest.raises(ConfigError, match="NAME@K"):
            EvaluateConfig(methods=(wrong,))
    with pytest.raises(ConfigError, match=r"ending in \.svg"):
        EvaluateConfig(plot=Path("a.png"))
