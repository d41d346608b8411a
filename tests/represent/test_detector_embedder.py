"""Box vectors against direct sums over cells, on a real tiny detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curator.detect.base import Detector, FeatureMap
from curator.detect.black_box import BlackBox
from curator.detect.one_pass import one_pass
from curator.errors import ConfigError
from curator.registry import DETECTORS, Spec
from curator.represent.embedders.base import Embedder
from curator.represent.embedders.detector import DetectorEmbedder
from curator.represent.embedders.pixels import PIXELS, pixel_maps
from curator.represent.embedders.pooling import Places, box_mean, place_means
from store.records import Pin


def test_box_mean_equals_the_integral_of_the_piecewise_constant_map() -> None:
    values = torch.rand(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    level = FeatureMap(values, (4.0, 4.0), (2.0, 2.0))  # cells of 4 pixels over a 32 x 24 frame
    fine = values.repeat_interleave(40, 2).repeat_interleave(40, 3)  # a tenth of a pixel
    boxes = torch.tensor(
        [[[3.0, 2.0, 9.5, 20.0], [0.0, 0.0, 32.0, 24.0]], [[5.1, 5.2, 5.9, 6.3], [8, 4, 12, 8]]]
    )
    found = box_mean(level, values, boxes)
    for b in range(2):
        for n in range(2):
            x1, y1, x2, y2 = (round(10 * float(v)) for v in boxes[b, n])
            assert torch.allclose(found[b, n], fine[b, :, y1:y2, x1:x2].mean((1, 2)), atol=1e-4)


def test_a_ring_leaves_the_hole_out_and_a_full_hole_is_ignored() -> None:
    values = torch.zeros(1, 1, 8, 8)
    values[..., 2:6, 2:6] = 5
    level = FeatureMap(values, (1.0, 1.0), (0.5, 0.5))
    outer, hole = torch.tensor([[[0.0, 0, 8, 8]]]), torch.tensor([[[2.0, 2, 6, 6]]])
    assert box_mean(level, values, outer, hole).item() == pytest.approx(0, abs=1e-6)
    assert box_mean(level, values, hole, hole).item() == pytest.approx(5)


def test_boxes_outside_and_empty_boxes_give_finite_border_values() -> None:
    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    level = FeatureMap(values, (2.0, 2.0), (1.0, 1.0))
    boxes = torch.tensor([[[-9.0, -9, -5, -5], [3, 3, 3, 3], [20, 20, 30, 30]]])
    assert box_mean(level, values, boxes)[0, :, 0].tolist() == pytest.approx([0, 5, 15])


def _difference_of_sums(
    level: FeatureMap, values: np.ndarray, outer: np.ndarray, hole: np.ndarray
) -> np.ndarray:
    """The ring's mean as it was computed before: values (C, h, w), one box each; in float64."""

    def overlap(low: float, high: float, cells: int, axis: int) -> np.ndarray:
        edges = level.offset[axis] + level.scale[axis] * (np.arange(cells) - 0.5)
        return (np.minimum(high, edges + level.scale[axis]) - np.maximum(low, edges)).clip(0)

    def total(box: np.ndarray) -> tuple[np.ndarray, float]:
        columns = overlap(box[0], box[2], values.shape[2], 0)
        rows = overlap(box[1], box[3], values.shape[1], 1)
        return np.einsum("chw,h,w->c", values, rows, columns), rows.sum() * columns.sum()

    (outside, size), (inside, part) = total(outer), total(hole)
    return (outside - inside) / (size - part)


def test_ordinary_rings_are_what_they_were() -> None:
    values = torch.rand(1, 5, 20, 24, generator=torch.Generator().manual_seed(3)) - 0.3
    level = FeatureMap(values, (4.0, 4.0), (2.0, 2.0))
    outer = torch.tensor([[[3.0, 2, 60, 70], [0, 0, 96, 80], [10.5, 20.25, 31.75, 42], [0, 0, 96, 80]]])
    hole = torch.tensor([[[20.0, 11, 40, 33], [1, 1, 95, 79], [15, 26, 27, 36.5], [0, 40, 96, 80]]])
    found = box_mean(level, values, outer, hole)[0].numpy()
    for n in range(4):
        expected = _difference_of_sums(
            level, values[0].double().numpy(), outer[0, n].double().numpy(), hole[0, n].double().numpy()
        )
        np.testing.assert_allclose(found[n], expected, atol=2e-6)


def test_a_ring_of_a_map_without_negative_values_has_none() -> None:
    """A hole thinner than a hundredth of a cell is widened, here beyond the box around it."""
    values = torch.zeros(1, 1, 40, 40)
    values[..., 20:] = 1
    level = FeatureMap(values, (1.0, 1.0), (0.5, 0.5))
    hole = torch.tensor([[[19.991, 10.0, 19.997, 12.0]]])
    outer = torch.tensor([[[19.988, 9.0, 20.0, 13.0]]])
    assert box_mean(level, values, outer, hole).item() == pytest.approx(0, abs=1e-6)
    numbers = np.random.default_rng(0)
    low = numbers.uniform(0, 40, (1, 3000, 2))
    side = 10.0 ** numbers.uniform(-5, 1.6, (1, 3000, 2))
    holes = torch.from_numpy(np.concatenate([low, low + side], -1).astype(np.float32)).clamp(0, 40)
    centre, half = (holes[..., :2] + holes[..., 2:]) / 2, holes[..., 2:] - holes[..., :2]
    outers = torch.cat([centre - half, centre + half], -1).clamp(0, 40)
    means = box_mean(level, values, outers, holes)
    assert means.min() >= 0
    assert means.max() <= 1 + 1e-5


def test_pixel_maps_tell_a_cast_and_stripes() -> None:
    u = torch.full((2, 3, 64, 64), 0.5)
    u[0, 0] *= 0.5
    u[1, :, :, ::2] = 0
    maps = pixel_maps(u).values
    assert maps.shape == (2, 19, 64, 64)
    assert maps[0, 3].mean() < -0.5  # log red over green
    assert maps[1, 11].mean() > 0.4 > maps[1, 12].mean()  # horizontal changes only
    assert np.isfinite(maps.numpy()).all()


@pytest.mark.parametrize("size", [(256, 384), (130, 257), (5, 3)])
def test_pixel_maps_are_block_means(size: tuple[int, int]) -> None:
    u = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))
    level = pixel_maps(u)
    step = int(level.scale[0])
    assert step == -(-max(size) // 128)
    grey = u.mean(1).double()
    slanted = torch.zeros_like(grey)
    slanted[:, 1:, :-1] = (grey[:, :-1, 1:] - grey[:, 1:, :-1]).abs()  # at distance (1, -1)
    wanted = torch.stack([u[:, 2].double(), u[:, 0].double().square(), slanted], 1)
    for row, column in ((0, 0), (level.values.shape[2] - 1, level.values.shape[3] - 1)):
        block = wanted[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step]
        found = level.values[:, [2, 6, 14], row, column]
        torch.testing.assert_close(found.double(), block.mean((2, 3)), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def detector() -> Detector:
    spec = Spec.parse("curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16")
    return DETECTORS.load(spec.scheme)(spec)


def prepared(detector: Detector, count: int) -> tuple[torch.Tensor, list[Pin]]:
    images = list(torch.rand(count, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
    pins = [pin for _, pin in detector.predict(images, score_threshold=0.5)]
    return torch.stack([detector.prepare(image, pin) for image, pin in zip(images, pins, strict=True)]), pins


def test_vectors_do_not_depend_on_batch_mates_or_other_boxes(detector: Detector) -> None:
    u, pins = prepared(detector, 3)
    boxes = [
        np.array([[5, 5, 40, 60], [0, 0, 96, 96]], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[50, 20, 70, 90]], np.float32),
    ]
    embedder = DetectorEmbedder(Spec.parse("detector:"), detector)
    together = embedder.embed(u, pins, boxes)
    alone = embedder.embed(u[2:], pins[2:], boxes[2:])[0]
    assert {view: values.shape[0] for view, values in together[0].items()} == {
        "object": 2,
        "context": 2,
        "image": 1,
    }
    assert together[1]["object"].shape[0] == 0
    for view, values in alone.items():
        assert np.isfinite(values).all()
        assert values.dtype == np.float32
        assert values.shape[1] <= 224
        assert np.allclose(values, together[2][view], atol=1e-4)


def test_boxes_without_area_and_boxes_as_large_as_the_image_give_numbers(detector: Detector) -> None:
    """Two that our own SSD answered on photographs, one that gave NaN, the image itself and nearly so."""
    image = torch.zeros(3, 480, 640)
    image[:, :, 320:] = 1  # an edge beside the thin box: grey changes in input column 47
    pin = detector.predict([image], score_threshold=0.9)[0][1]
    centre = (47 - 0.006) / 0.15
    boxes = np.array(
        [
            [640, 480, 640, 480],
            [66.00, 140.79, 66.03, 140.79],
            [centre - 0.02, 100, centre + 0.02, 110],
            [0, 0, 640, 480],
            [0.01, 0.01, 639.99, 479.99],
            [-50, -50, 700, 500],
        ],
        np.float32,
    )
    u = detector.prepare(image, pin)[None]
    views = DetectorEmbedder(Spec.parse("detector:"), detector).embed(u, [pin], [boxes])[0]
    for view, values in views.items():
        assert np.isfinite(values).all(), view


def test_a_mask_that_fills_a_box_describes_the_box(detector: Detector) -> None:
    u, pins = prepared(detector, 1)
    mask = np.zeros((1, 32, 32), np.float32)
    mask[0, 8:24, 4:16] = 3  # x 12 to 48, y 24 to 72 of 96 px
    views = DetectorEmbedder(Spec.parse("detector:?dimension=96"), detector).embed(
        u, pins, [np.array([[12, 24, 48, 72]], np.float32)], masks=[mask]
    )[0]
    assert np.allclose(views["region"], views["object"], atol=1e-3)


def test_it_says_what_it_gives(detector: Detector) -> None:
    u, pins = prepared(detector, 1)
    boxes = [np.array([[5, 5, 40, 60]], np.float32)]
    for text in ("detector:", "detector:?dimension=96&levels=level1", "detector:?views=object,sides"):
        embedder = DetectorEmbedder(Spec.parse(text), detector)
        assert isinstance(embedder, Embedder)
        views = embedder.embed(u, pins, boxes)[0]
        assert {view: values.shape[1] for view, values in views.items()} == {
            **embedder.views,
            **embedder.image_views,
        }
        assert next(iter(embedder.views)) == "object"
        assert embedder.fingerprint == DetectorEmbedder(Spec.parse(text), detector).fingerprint
    plain = DetectorEmbedder(Spec.parse("detector:"), detector)
    assert embedder.fingerprint != plain.fingerprint
    assert list(plain.views) == ["object", "context"]
    assert list(plain.image_views) == ["image"]
    assert "sides" in embedder.views


def test_features_of_the_one_look_are_used(detector: Detector) -> None:
    image = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(4))
    embedder = DetectorEmbedder(Spec.parse("detector:"), detector)
    one = one_pass(detector, image, embedder.levels)
    boxes = [np.array([[5, 5, 40, 60], [0, 0, 90, 70]], np.float32)]
    network = detector.modules()
    assert network is not None
    looks: list[int] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    handle = first.register_forward_hook(lambda *_: looks.append(1))
    features = {**one.features, PIXELS: pixel_maps(one.u[None])}
    given = embedder.embed(one.u[None], [one.pin], boxes, features=features)[0]
    assert looks == []
    asked = embedder.embed(one.u[None], [one.pin], boxes)[0]
    handle.remove()
    assert looks == [1]
    for view, values in asked.items():
        np.testing.assert_allclose(values, given[view], atol=1e-4)


def test_all_places_at_once_are_boxes_rings_and_the_image() -> None:
    pin = Pin(image_size=(60, 100), input_size=(96, 80), scale=(0.8, 0.8), offset=(0.0, 20.0))
    boxes = np.array([[10, 10, 40, 50], [0, 0, 100, 60], [80, 50, 130, 90], [70, 20, 71, 21]], np.float32)
    for channels in (5, 40):  # summed in two ways
        values = torch.rand(1, channels, 12, 10, generator=torch.Generator().manual_seed(2))
        level = FeatureMap(values, (8.0, 8.0), (4.0, 4.0))
        places = Places.of([pin], [boxes], values)
        means = place_means(level, values, places)[0]
        expected = torch.cat(
            [
                box_mean(level, values, places.inner)[0],
                box_mean(level, values, places.outer, places.inner)[0],
                box_mean(level, values, torch.tensor([[[0.0, 20, 80, 68]]]))[0],
            ]
        )
        torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(places.inner[0, 2], torch.tensor([64.0, 60, 80, 68]))


def test_a_black_box_and_unknown_levels_are_refused(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="level0"):
        DetectorEmbedder(Spec.parse("detector:?levels=level9"), detector)
    with pytest.raises(ConfigError, match="dimension"):
        DetectorEmbedder(Spec.parse("detector:?dimension=4096"), detector)
    with pytest.raises(ConfigError, match="got context, image"):
        DetectorEmbedder(Spec.parse("detector:?views=context,image"), detector)
    with pytest.raises(ConfigError, match=r"black box\); embed with another network.*transformers:FOLDER"):
        DetectorEmbedder(Spec.parse("detector:"), BlackBox.of(detector))
