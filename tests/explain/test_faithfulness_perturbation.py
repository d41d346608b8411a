"""Deletion, insertion, saliency metric, occlusion, localisation, robustness and fills on planted truths."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.functional import interpolate

from curator.errors import InputError
from curator.explain.base import Target
from curator.explain.fills.fill import BlurHole, MeanFill, MeanHole
from curator.explain.measures import fills as fill_measures
from curator.explain.measures.fills import fill_study, ms_ssim
from curator.explain.measures.localisation import (
    ALPHAS,
    box_at,
    box_mask,
    box_overlaps,
    chosen_on_held_out,
    energy_inside,
    localisation_error,
    mask_overlaps,
    overlap_area,
    points_at_box,
    points_at_mask,
)
from curator.explain.measures.perturbation import (
    box_occlusion,
    deletion_insertion,
    hidden_scores,
    hider,
    removal_steps,
    saliency_metric,
)
from curator.explain.measures.robustness import mean_similarity, similarity
from curator.explain.target import TargetScores
from curator.represent.pixel_maps import map_pixels
from curator.tensors import generator
from store.records import SegmentMap

sys.path.insert(0, str(Path(__file__).parent))
from made_maps import grid_map, segment_map
from tiny_detectors import Convolutional, TinyDetector, blocks, picture

SIZE = (8, 8)
QUARTERS = blocks(8, 8, 2, 2)


class Quarters(nn.Module):
    """s = a weighted sum of the means of the image's four quarters: Shapley values are known."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(rows))

    def forward(self, u: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(u.mean(1), 2).flatten(1)  # (B, 4)
        return (means @ self.weight.T)[..., None]


@pytest.fixture
def game() -> tuple[TinyDetector, Tensor, TargetScores]:
    """Two candidates on an image of ones, baseline 0: phi is the weights."""
    detector = TinyDetector(
        Quarters([[0.5, 0.1, 0.3, 0.0], [0.0, 0.0, 0.2, 0.6]]), size=SIZE, values="probability"
    )
    targets = [Target(candidate=0, label=0), Target(candidate=1, label=0)]
    return detector, torch.ones(3, *SIZE), TargetScores(detector, detector.pin(), targets)


class TestDeletionInsertion:
    def test_areas_by_hand(self, game: tuple[TinyDetector, Tensor, TargetScores]) -> None:
        detector, x, scores = game
        maps = [segment_map([0.5, 0.1, 0.3, 0.0]), segment_map([0.0, 0.0, 0.2, 0.6])]
        hide = hider(MeanFill(), x, detector, seed=0)
        (first, second) = deletion_insertion(scores, hide, maps, QUARTERS, steps=4)
        deletion, insertion = first
        assert deletion.shares == pytest.approx([0, 0.25, 0.5, 0.75, 1])
        assert deletion.values == pytest.approx([0.9, 0.4, 0.1, 0.0, 0.0], abs=1e-6)
        assert deletion.area == pytest.approx((0.45 + 0.4 + 0.1) / 4, abs=1e-6)
        assert insertion.values == pytest.approx([0.0, 0.5, 0.8, 0.9, 0.9], abs=1e-6)
        assert second[0].values == pytest.approx([0.8, 0.2, 0.0, 0.0, 0.0], abs=1e-6)

    def test_steps_that_remove_no_segment_are_harmless(
        self, game: tuple[TinyDetector, Tensor, TargetScores]
    ) -> None:
        detector, x, scores = game
        maps = [segment_map([0.5, 0.1, 0.3, 0.0])] * 2
        hide = hider(MeanFill(), x, detector, seed=0)
        fine = deletion_insertion(scores, hide, maps, QUARTERS)[0][0]
        coarse = deletion_insertion(scores, hide, maps, QUARTERS, steps=4)[0][0]
        assert len(fine.values) == 29
        assert fine.area == pytest.approx(coarse.area, abs=1e-6)

    def test_the_true_order_is_the_best_of_all(self) -> None:
        detector = TinyDetector(Quarters([[0.5, 0.1, 0.3, -0.2]]), size=SIZE, values="probability")
        x = torch.ones(3, *SIZE)
        scores = TargetScores(detector, detector.pin(), [Target(candidate=0, label=0)])
        hide = hider(MeanFill(), x, detector, seed=0)

        def areas(phi: list[float]) -> tuple[float, float]:
            deletion, insertion = deletion_insertion(scores, hide, [segment_map(phi)], QUARTERS, steps=4)[0]
            return deletion.area, insertion.area

        best = areas([0.5, 0.1, 0.3, -0.2])
        for order in np.random.default_rng(0).permuted(np.tile([1.0, 2.0, 3.0, 4.0], (12, 1)), axis=1):
            deletion, insertion = areas(order.tolist())
            assert deletion >= best[0] - 1e-6
            assert insertion <= best[1] + 1e-6

    def test_neither_company_nor_batches_matter(self) -> None:
        detector = TinyDetector(Convolutional(), size=(32, 32), classes=2)
        x, labels = picture(32, 32), blocks(32, 32, 4, 4)
        phi = np.random.default_rng(0).normal(size=(3, 16)).tolist()
        targets = [Target(candidate=i, label=i % 2) for i in range(3)]
        hide = hider(MeanHole((0.2, 0.3, 0.4)), x, detector, seed=0)

        def areas(chosen: list[int], batch_size: int) -> list[float]:
            scores = TargetScores(detector, detector.pin(), [targets[i] for i in chosen])
            maps = [segment_map(phi[i]) for i in chosen]
            curves = deletion_insertion(scores, hide, maps, labels, steps=7, batch_size=batch_size)
            return [curve.area for pair in curves for curve in pair]

        together = areas([0, 1, 2], 16)
        assert areas([0, 1, 2], 5) == pytest.approx(together, abs=1e-6)
        assert areas([1], 16) == pytest.approx(together[2:4], abs=1e-6)

    def test_whole_segments_go_densest_first_and_ties_by_label(self) -> None:
        labels = np.array([[0, 0, 0, 1, 2, 3]], dtype=np.uint16)
        steps = removal_steps(segment_map([1.5, 1.0, 1.0, 0.1]), labels, steps=4)
        assert steps.tolist() == [[3, 3, 3, 1, 2, 4]]  # densities 0.5, 1, 1, 0.1
        assert removal_steps(segment_map([0.0] * 4), labels, steps=4).tolist() == [[1, 1, 1, 2, 3, 4]]

    def test_a_grids_pixels_go_in_equal_numbers(self) -> None:
        values = np.random.default_rng(0).permutation(56).reshape(7, 8)
        steps = removal_steps(grid_map(values), np.zeros((7, 8), np.uint16))
        assert np.bincount(steps.ravel()).tolist() == [0] + [2] * 28
        assert values[steps == 1].min() > values[steps > 1].max()

    def test_both_kinds_of_fill_hide(self) -> None:
        x = picture(24, 24)
        detector = TinyDetector(Convolutional(), size=(24, 24), classes=2, mean=(0.1, 0.2, 0.3))
        hidden = np.zeros((24, 24), bool)
        hidden[:, :9] = True
        faded = hider(MeanFill(), x, detector, seed=0)(hidden)
        assert torch.equal(faded, hider(MeanHole((0.1, 0.2, 0.3)), x, detector, seed=0)(hidden))
        blurred = hider(BlurHole(), x, detector, seed=0)(hidden)
        assert torch.equal(blurred[:, :, 9:], x[:, :, 9:])
        assert not torch.equal(blurred[:, :, :9], x[:, :, :9])

    def test_wrong_calls_are_refused(self, game: tuple[TinyDetector, Tensor, TargetScores]) -> None:
        detector, x, scores = game
        hide = hider(MeanFill(), x, detector, seed=0)
        with pytest.raises(InputError, match="a map per target, got 1 for 2"):
            deletion_insertion(scores, hide, [segment_map([0.0] * 4)], QUARTERS)
        with pytest.raises(InputError, match="at least 1 step"):
            removal_steps(segment_map([0.0] * 4), QUARTERS, steps=0)


class TestSaliencyAndOcclusion:
    def test_the_kept_box_keeps_the_score(self, game: tuple[TinyDetector, Tensor, TargetScores]) -> None:
        detector, x, scores = game
        pixels = [
            map_pixels(segment_map(phi), QUARTERS, SIZE)
            for phi in ([0.5, 0.1, 0.3, 0.0], [0.0, 0.0, 0.0, 0.6])
        ]
        hide = hider(MeanFill(), x, detector, seed=0)
        values = saliency_metric(scores, hide, pixels, alphas=[0.0, 0.1, 0.7, 0.95], batch_size=3)
        # alpha = 0 keeps all; 0.1: three quarters, whose box is the whole image; 0.7: the first quarter
        expected = [math.log(1) - math.log(0.9)] * 2 + [math.log(0.25) - math.log(0.5)] * 2
        assert values[0] == pytest.approx(expected, abs=1e-5)
        assert values[1, 1:] == pytest.approx([math.log(0.25) - math.log(0.6)] * 3, abs=1e-5)

    def test_small_boxes_and_lost_scores_stay_finite(self) -> None:
        detector = TinyDetector(Quarters([[0.0, 0.0, 0.0, 1.0]]), size=(40, 40), values="probability")
        scores = TargetScores(detector, detector.pin(), [Target(candidate=0, label=0)])
        pixels = np.zeros((40, 40))
        pixels[0, 0] = 1
        hide = hider(MeanFill(), torch.ones(3, 40, 40), detector, seed=0)
        assert saliency_metric(scores, hide, [pixels], alphas=[0.5])[0, 0] == pytest.approx(
            math.log(0.05) - math.log(1e-6)
        )
        empty = saliency_metric(scores, hide, [np.zeros((40, 40))], alphas=[0.5])  # no box: all is kept
        assert empty[0, 0] == pytest.approx(0, abs=1e-6)

    def test_log_odds_are_refused(self) -> None:
        detector = TinyDetector(Convolutional(), size=(16, 16), classes=2)
        target = Target(candidate=0, label=0, kind="log_odds")
        scores = TargetScores(detector, detector.pin(), [target])
        with pytest.raises(InputError, match="probabilities, got 1 maps for log_odds"):
            saliency_metric(
                scores, hider(MeanFill(), picture(16, 16), detector, seed=0), [np.zeros((16, 16))]
            )

    def test_occlusion_follows_the_map_up_to_the_limit(self) -> None:
        detector = TinyDetector(Quarters([[1.0, 0.0, 0.0, 0.0]]), size=(40, 40), values="probability")
        scores = TargetScores(detector, detector.pin(), [Target(candidate=0, label=0)])
        hide = hider(MeanFill(), torch.ones(3, 40, 40), detector, seed=0)
        right, wrong = np.zeros((2, 40, 40))
        right[:20, :20] = 1
        wrong[20:, 20:] = 1
        curves = [box_occlusion(scores, hide, [p], patch=3, limit=0.2, steps=5)[0] for p in (right, wrong)]
        assert curves[0].shares[0] == 0
        assert (np.diff(curves[0].shares) > 0).all()
        assert 0.2 <= curves[0].shares[-1] <= 0.2 + 9 / 1600
        assert curves[0].values[-1] < 0.3
        assert curves[1].values == pytest.approx([1.0] * 6, abs=0.05)
        assert curves[0].area < 0.75 < curves[1].area

    def test_occlusion_is_keyed_and_stops_where_the_density_is_covered(self) -> None:
        detector = TinyDetector(Quarters([[1.0, 0.0, 0.0, 0.0]]), size=(20, 20), values="probability")
        scores = TargetScores(detector, detector.pin(), [Target(candidate=0, label=0)])
        hide = hider(MeanFill(), torch.ones(3, 20, 20), detector, seed=0)
        spot = np.zeros((20, 20))
        spot[5, 5] = 1
        curve = box_occlusion(scores, hide, [spot], patch=5)[0]
        assert curve.shares[-1] == 25 / 400
        smooth = np.abs(np.random.default_rng(0).normal(size=(20, 20)))
        first, again, other = (
            box_occlusion(scores, hide, [smooth], keys=keys)[0].values.tolist() for keys in ((1,), (1,), (2,))
        )
        assert first == again != other
        assert math.isnan(box_occlusion(scores, hide, [np.zeros((20, 20))])[0].area)

    def test_hidden_scores_take_any_batch(self, game: tuple[TinyDetector, Tensor, TargetScores]) -> None:
        detector, x, scores = game
        masks = [np.random.default_rng(i).random(SIZE) < 0.5 for i in range(7)]
        hide = hider(MeanFill(), x, detector, seed=0)
        detector.forwards.clear()
        values = hidden_scores(scores, hide, masks, batch_size=3)
        assert detector.forwards == [3, 3, 1]
        assert values == pytest.approx(hidden_scores(scores, hide, masks, batch_size=7), abs=1e-6)


class TestLocalisation:
    def pixels(self) -> np.ndarray:
        values = np.full((10, 12), -1.0)
        values[2:6, 3:8] = 0.5
        values[3:5, 4:6] = 1.0
        return values

    def test_boxes_and_masks(self) -> None:
        assert box_at(self.pixels(), 0.3) == (3, 2, 8, 6)
        assert box_at(self.pixels(), 0.8) == (4, 3, 6, 5)
        assert box_at(self.pixels(), 0.0) == (0, 0, 12, 10)
        assert box_at(-self.pixels() * 0, 0.3) is None
        assert box_mask((3, 2, 8, 6), (10, 12)).sum() == 20
        assert box_mask((3.4, 2.6, 8.6, 6.0), (10, 12)).nonzero()[1].max() == 8

    def test_overlaps_at_each_threshold(self) -> None:
        values = box_overlaps(self.pixels(), (3, 2, 8, 6), [0.0, 0.5, 0.9])
        assert values == pytest.approx([20 / 120, 1.0, 4 / 20])
        assert box_overlaps(np.zeros((4, 4)), (0, 0, 4, 4)).tolist() == [0.0] * 20
        assert ALPHAS[-1] == pytest.approx(0.95)

    def test_the_threshold_is_chosen_on_other_images(self) -> None:
        """On the held-out images 0.5 is right, on the tested ones 0.9 would be: 0.5 is used."""
        held_out = {"a": [0.0, 0.9, 0.4], "b": [0.6, 0.7, 0.4]}
        tested = {"c": [0.1, 0.2, 0.9], "d": [0.1, 0.8, 0.9]}
        found = localisation_error(tested, held_out, alphas=[0.0, 0.5, 0.9])
        assert (found.alpha, found.value, found.held_out) == (0.5, 0.5, 0.0)
        assert chosen_on_held_out({"c": [3.0, 1.0]}, {"a": [2.0, 2.0]}, alphas=[0.1, 0.2]).alpha == 0.1
        with pytest.raises(InputError, match="1 common"):
            localisation_error({"a": [0.0]}, {"a": [0.0], "b": [1.0]}, alphas=[0.0])
        with pytest.raises(InputError, match="got 1 and 0 with"):
            localisation_error({"a": [0.0]}, {}, alphas=[0.0])
        with pytest.raises(InputError, match="3 values per image"):
            localisation_error({"a": [0.0]}, {"b": [0.0]}, alphas=[0.0, 0.1, 0.2])

    def test_pointing_within_fifteen_pixels(self) -> None:
        box = (20.0, 20.0, 40.0, 40.0)
        assert points_at_box((30.0, 30.0), box)
        assert points_at_box((55.0, 30.0), box)
        assert not points_at_box((55.1, 30.0), box)
        assert points_at_box((29.0 + 20, 29.0 + 20), box)  # 9, 9 from the corner
        assert not points_at_box((51.0, 51.0), box)  # 11, 11: further than 15
        assert not points_at_box(None, box)
        mask = box_mask((4, 4, 6, 6), (60, 60))
        assert points_at_mask((5.9, 4.0), mask, tolerance=0)
        assert points_at_mask((20.5, 5.5), mask)
        assert not points_at_mask((20.6, 5.5), mask)
        assert not points_at_mask((5.0, 5.0), np.zeros((60, 60), bool))
        assert not points_at_mask(None, mask)

    def test_energy(self) -> None:
        inside = box_mask((4, 3, 6, 5), (10, 12))
        assert energy_inside(self.pixels(), inside) == pytest.approx(4 / (4 + 16 * 0.5))
        assert energy_inside(-np.ones((10, 12)), inside) == 0
        with pytest.raises(InputError, match="expected a mask of"):
            energy_inside(self.pixels(), inside[:5])

    def test_overlap_area(self) -> None:
        mask = box_mask((4, 3, 6, 5), (10, 12))
        assert mask_overlaps(self.pixels(), mask, [0.0, 0.4, 0.8]) == pytest.approx([4 / 120, 4 / 20, 1])
        perfect = mask.astype(float)
        assert overlap_area(perfect, mask) == pytest.approx(1 - 0.025 * (1 - 4 / 120))
        assert overlap_area(1 - perfect, mask) == pytest.approx(0.025 * 4 / 120)
        assert overlap_area(np.zeros((10, 12)), mask) < 0.01
        assert overlap_area(perfect, mask) > overlap_area(self.pixels(), mask)
        with pytest.raises(InputError, match="expected a mask of"):
            overlap_area(perfect, mask[:5])


class TestRobustness:
    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = (picture(64, 80, seed).mean(0).double().numpy() - 0.4 for seed in (1, 2))
        return first, second

    def test_equal_maps_are_equal_whatever_their_unit(self) -> None:
        first, _ = self.maps()
        found = similarity(first, 7 * first)
        assert (found.ssim, found.hog, found.spearman) == pytest.approx((1, 1, 1))

    def test_other_maps_are_less_alike_in_every_measure(self) -> None:
        first, second = self.maps()
        noisy = first + 0.02 * np.random.default_rng(0).normal(size=first.shape)
        near, far = similarity(first, noisy), similarity(first, second)
        assert near.ssim > far.ssim
        assert near.spearman > far.spearman
        assert similarity(first, -first).spearman == pytest.approx(-1)

    def test_pairs_are_averaged_and_constant_maps_have_no_ranks(self) -> None:
        first, second = self.maps()
        both = mean_similarity([first, second, first])
        single = similarity(first, second)
        assert both.spearman == pytest.approx((1 + 2 * single.spearman) / 3)
        assert math.isnan(similarity(first, np.zeros_like(first)).spearman)
        with pytest.raises(InputError, match="at least 2 maps"):
            mean_similarity([first])
        with pytest.raises(InputError, match="at least 48 px"):
            similarity(first[:20], second[:20])


def textured() -> Tensor:
    coarse = torch.rand(1, 3, 24, 24, generator=generator("ms-ssim", 0))
    return interpolate(coarse, size=(192, 192), mode="nearest")[0]


class TestFills:
    def test_ms_ssim_against_another_implementation(self) -> None:
        """Golden values of pytorch-msssim 1.0.0, `ms_ssim(a, b, data_range=1)` in float64."""
        x = textured()
        noisy = (x + 0.2 * torch.randn(x.shape, generator=generator("ms-ssim", 1))).clamp(0, 1)
        holed = x.clone()
        holed[:, 60:120, 50:130] = 0.5
        assert ms_ssim(x, noisy) == pytest.approx(0.9303445, abs=1e-6)
        assert ms_ssim(x, holed) == pytest.approx(0.7600839, abs=1e-6)
        assert ms_ssim(x, x) == pytest.approx(1)

    def test_one_scale_is_scikit_images_ssim(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fill_measures, "SCALE_WEIGHTS", (1.0,))
        a = picture(40, 48, 1)[:1]
        b = (a + picture(40, 48, 2)[:1]) / 2
        _, full = structural_similarity(
            a[0].double().numpy(),
            b[0].double().numpy(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert ms_ssim(a, b) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)

    def test_opposite_structure_counts_as_zero_and_small_images_are_refused(self) -> None:
        x = textured()
        assert ms_ssim(x, 1 - x) == 0
        with pytest.raises(InputError, match="at least 176 px"):
            ms_ssim(x[:, :160], x[:, :160])

    def test_a_fill_that_removes_more_leaves_less(self) -> None:
        hole = torch.zeros(192, 192, dtype=torch.bool)
        hole[48:144, 48:144] = True
        objects = [(textured(), hole), (textured().flip(1), hole)]
        fills = {
            "nothing": lambda x, hole, seed: x,
            "blur": BlurHole(3.0).fill,
            "mean": MeanHole((0.5, 0.5, 0.5)).fill,
        }

        def recognised(x: Tensor, number: int) -> bool:
            return bool((x - objects[number][0]).abs().mean() < 0.04)

        real, nothing, blur, mean = fill_study(objects, fills, recognised)
        assert (real.name, real.accuracy, real.ms_ssim, real.count) == ("real", 1.0, 1.0, 2)
        assert (nothing.accuracy, nothing.ms_ssim) == (1.0, pytest.approx(1))
        assert mean.accuracy == 0
        assert mean.ms_ssim < blur.ms_ssim < 1
        with pytest.raises(InputError, match="at least one object"):
            fill_study([], fills, recognised)


def test_segment_maps_of_other_segmentations_meet_as_pixels() -> None:
    """E[rho] between methods with segments of their own: densities per pixel agree for one underlying map."""
    fine, coarse = blocks(8, 8, 4, 4), blocks(8, 8, 2, 2)
    phi = np.arange(4, dtype=np.float32)
    wide = SegmentMap(phi=phi, full=0, empty=0, gap=0, passes=1)
    owner = np.array([coarse[fine == i][0] for i in range(16)])
    narrow = SegmentMap(phi=phi[owner] / 4, full=0, empty=0, gap=0, passes=1)
    assert (map_pixels(wide, coarse, SIZE) == map_pixels(narrow, fine, SIZE)).all()
