"""Average images: receptive fields, peaks and patches on networks whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curator.explain.features.average_images import (
    LONGEST,
    SHOWN,
    AverageImage,
    Peak,
    TopPeaks,
    patch,
    peaks,
    receptive_reaches,
)
from curator.explain.features.base import responses
from tests.explain import tiny_detectors as tiny


class Means(nn.Module):
    """Box filters: kernel 5, then kernel 3 with stride 2, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 5, padding=2, groups=3, bias=False)
        self.b = nn.Conv2d(3, 1, 3, stride=2, padding=1, bias=False)
        self.head = nn.Conv2d(1, 1, 1)
        for layer in (self.a, self.b, self.head):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())

    def forward(self, u: Tensor) -> Tensor:
        return self.head(self.b(self.a(u))).flatten(2).transpose(1, 2)


def detector() -> object:
    return tiny.TinyDetector(Means(), size=(32, 48))


def test_receptive_fields_are_measured() -> None:
    d = detector()
    examples = [(tiny.picture(32, 48, seed), d.pin()) for seed in range(2)]
    found = receptive_reaches(d, examples, source="conv", layers=("a", "b"), share=1.0)
    assert found["a"] == (2.5, 2.5)  # 5 px
    assert found["b"] == (3.5, 3.5)  # 7 px
    core = receptive_reaches(d, examples, source="conv", layers=("b",), share=0.5)
    assert core["b"][0] < found["b"][0]


def test_a_peak_is_found_where_the_response_is_and_inside_the_box_alone() -> None:
    d = detector()
    image = torch.zeros(3, 32, 48)
    image[:, 20, 10] = 1.0
    image[:, 8, 40] = 5.0
    values = responses(d, image[None], d.pin(), source="conv", layers=("a", "b"))
    boxes = np.array([[0, 0, 48, 32], [2, 12, 20, 30], [60, 0, 70, 9]], np.float32)
    whole, small = peaks(values, [("b", 0)], boxes, 7, (32, 48))[0]
    assert abs(whole.x - 40.5) <= 2.5
    assert abs(whole.y - 8.5) <= 2.5
    assert abs(small.x - 10.5) <= 2.5
    assert abs(small.y - 20.5) <= 2.5
    assert (whole.image, small.image) == (7, 7)
    assert whole.value > small.value > 0


def test_the_largest_peaks_are_kept_in_order() -> None:
    top = TopPeaks(3)
    top.add([Peak(v, i, 0.0, 0.0) for i, v in enumerate([1.0, 5.0, 0.0, 3.0, 5.0, -1.0, 2.0])])
    assert [(p.value, p.image) for p in top.best()] == [(5.0, 1), (5.0, 4), (3.0, 3)]
    silent = TopPeaks(3)
    silent.add([Peak(0.0, 0, 0.0, 0.0)])
    assert silent.best() == []


def test_a_patch_is_the_image_around_the_peak_and_says_what_lies_outside() -> None:
    image = tiny.picture(32, 48)
    pixels, known = patch(image, Peak(1.0, 0, 10.5, 20.5), (2.0, 3.0))
    torch.testing.assert_close(pixels, image[:, 17:24, 8:13])
    assert bool((known == 1).all())
    pixels, known = patch(image, Peak(1.0, 0, 0.5, 31.5), (2.0, 3.0))
    torch.testing.assert_close(pixels[:, :4, 2:], image[:, 28:, :3])
    assert known.sum() == 4 * 3
    large, _ = patch(image, Peak(1.0, 0, 24.0, 16.0), (100.0, 50.0))
    assert tuple(large.shape) == (3, round(101 * LONGEST / 201), LONGEST)


def test_the_average_is_over_the_patches_that_have_a_pixel() -> None:
    average = AverageImage((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="at least one patch"):
        average.mean()
    left = torch.tensor([[1.0, 0.0, 0.0]])
    average.add(Peak(1.0, 0, 0, 0), torch.ones(3, 1, 3), torch.ones(1, 3))
    average.add(Peak(2.0, 1, 0, 0), torch.zeros(3, 1, 3), left)
    torch.testing.assert_close(average.mean()[0], torch.tensor([[0.5, 1.0, 1.0]]))
    torch.testing.assert_close(average.shown[0][1][0], torch.tensor([[0.0, 0.5, 0.5]]))
    for i in range(20):
        average.add(Peak(0.5, 2 + i, 0, 0), torch.ones(3, 1, 3), torch.ones(1, 3))
    assert average.count == 22
    assert [peak.value for peak, _ in average.shown[:3]] == [2.0, 1.0, 0.5]
    assert len(average.shown) == SHOWN
