"""RetinaNet, FCOS and Faster R-CNN: equal to torchvision, exact where they promise it, trainable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from curator.detect.faster_rcnn import FasterRcnnDetector, KeyedSampler
from curator.detect.fcos import FcosDetector
from curator.detect.postprocess import best_of_levels
from curator.detect.small_pyramid import FAMILIES, PyramidOptions, make_detector
from curator.detect.torchvision import build
from curator.errors import ConfigError, InputError
from curator.registry import Spec

OPTIONS = PyramidOptions(classes=("a", "b"), size=128)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    numbers = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 9, generator=numbers)
    sizes = [(90, 140), (120, 96)]
    return [
        torch.nn.functional.interpolate(coarse[i : i + 1], size, mode="bilinear")[0]
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_predict_equals_torchvision(family: str, images: list[Tensor]) -> None:
    """Each image alone: torchvision pads a batch to its largest image, which changes the others."""
    detector = make_detector(family, OPTIONS, seed=2)
    network = detector.clone().network.eval()
    if family == "faster_rcnn":
        network.roi_heads.score_thresh = 0.3
        floor = 0.3
    else:
        # A trained head is sure that nothing is "background", the column that it never learns.
        for part in (network, detector.network):
            with torch.no_grad():
                part.head.classification_head.cls_logits.bias[:: len(OPTIONS.classes) + 1] = -30.0
        floor = network.score_thresh = 0.012
    for image in images:
        found, _ = detector.predict([image], score_threshold=floor)[0]
        with torch.no_grad():
            expected = network([image])[0]
        assert len(found) == len(expected["scores"]) > 5
        torch.testing.assert_close(torch.from_numpy(found.scores), expected["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(torch.from_numpy(found.boxes), expected["boxes"], rtol=1e-4, atol=1e-2)
        assert (torch.from_numpy(found.labels) + 1 == expected["labels"]).all()


def test_padding_is_the_mean_colour_and_the_frame_is_torchvisions() -> None:
    spec = "torchvision:fasterrcnn_mobilenet_v3_large_fpn?weights=random&classes=a&min_size=96&max_size=160"
    detector = build(Spec.parse(spec))
    assert isinstance(detector, FasterRcnnDetector)
    image = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(1))
    pin = detector.pin(image)
    assert pin.input_size == (96, 128)
    u = detector.prepare(image, pin)
    expected, _ = detector.network.transform([image])
    got = (u - detector._mean) / detector._std
    torch.testing.assert_close(got, expected.tensors[0], rtol=1e-4, atol=1e-4)
    assert expected.image_sizes[0] == (96, 123)
    assert detector.levels == ("level0", "level1")  # the third map serves the proposals alone


def test_fcos_log_odds_lose_nothing() -> None:
    """Against float64, from probabilities near 0 to such as float32 rounds to 1."""
    detector = make_detector("fcos", OPTIONS)
    assert isinstance(detector, FcosDetector)
    z = torch.tensor([[0.0, 30.0, -40.0], [0.0, 2.0, 25.0], [0.0, -3.0, 60.0]])[None]
    centre = torch.tensor([[25.0], [-2.0], [40.0]])[None]
    leaf = z.clone().requires_grad_()
    scores, log_odds = detector._score({"cls_logits": leaf, "bbox_ctrness": centre})
    log_p = (
        torch.nn.functional.logsigmoid(z[..., 1:].double()) + torch.nn.functional.logsigmoid(centre.double())
    ) / 2
    exact = log_p - torch.log(-torch.expm1(log_p))
    torch.testing.assert_close(log_odds.detach().double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.detach().double(), log_p.exp(), rtol=1e-5, atol=1e-30)
    (gradient,) = torch.autograd.grad(log_odds.sum(), leaf)
    assert torch.isfinite(gradient).all()
    assert (gradient[..., 1:] > 0).all()


def test_the_best_of_each_level_enter_nms() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.2, 0.3]])
    kept = best_of_levels(scores, [2, 1], 2)
    torch.testing.assert_close(kept, torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.2, 0.3]]))


def test_faster_rcnn_losses_depend_on_weights_and_targets_alone(images: list[Tensor]) -> None:
    """torchvision samples with the global generator; a killed training would not continue as it was."""
    detector = make_detector("faster_rcnn", OPTIONS, seed=2)
    targets = [(torch.tensor([[10.0, 10.0, 60.0, 70.0]]), torch.tensor([1]))]
    targets.append((torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    state = torch.random.get_rng_state()
    values = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            losses = detector.clone().loss(images, targets)
        values.append({name: float(value.detach()) for name, value in losses.items()})
    assert values[0] == values[1]
    assert set(values[0]) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_sampler_keeps_torchvisions_shares() -> None:
    numbers = torch.Generator().manual_seed(0)
    sampler = KeyedSampler(8, 0.25, lambda n: torch.randperm(n, generator=numbers))
    label = torch.tensor([1.0] * 5 + [0.0] * 20 + [-1.0] * 5)
    (positive,), (negative,) = sampler([label])
    assert positive.sum() == 2
    assert negative.sum() == 6
    assert (label[positive.bool()] == 1).all()
    assert (label[negative.bool()] == 0).all()
    (positive,), (negative,) = sampler([label[:7]])
    assert (int(positive.sum()), int(negative.sum())) == (2, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_without_objects_and_wrong_targets(family: str, images: list[Tensor]) -> None:
    twin = make_detector(family, OPTIONS, seed=2).clone()
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = twin.loss(images, [nothing, nothing])
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    with pytest.raises(InputError, match="without area"):
        twin.loss(images[:1], [(torch.tensor([[5.0, 5.0, 5.0, 9.0]]), torch.tensor([0]))])
    with pytest.raises(InputError, match="labels 0 to 1"):
        twin.loss(images[:1], [(torch.tensor([[5.0, 5.0, 9.0, 9.0]]), torch.tensor([2]))])


def test_a_pin_without_proposals_is_refused(images: list[Tensor]) -> None:
    detector = make_detector("faster_rcnn", OPTIONS)
    pin = detector.pin(images[0])
    with pytest.raises(InputError, match="proposals"):
        detector.candidates(detector.prepare(images[0], pin)[None], pin)


def test_todays_and_yesterdays_layer_names(tmp_path: Path) -> None:
    """torchvision's older files nest the heads' layers less, and frozen normalisation counts no batches."""
    spec = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn?weights={}&classes=a,b&min_size=96&max_size=96"
    first = build(Spec.parse(spec.format("random") + "&seed=4"))
    network = first.modules()
    assert network is not None
    old = {
        key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert "rpn.head.conv.weight" in old
    torch.save(old, tmp_path / "old.pth")
    again = build(Spec.parse(spec.format(tmp_path / "old.pth")))
    assert again.fingerprint == first.fingerprint
    renewed = build(Spec.parse(spec.format(tmp_path / "old.pth").replace("a,b", "x,y,z") + "&head=new"))
    assert renewed.classes == ("x", "y", "z")
    with pytest.raises(InputError, match="trained with 2 classes, got 3"):
        build(Spec.parse(spec.format(tmp_path / "old.pth").replace("a,b", "x,y,z")))


def test_the_builtin_backbone_is_taken_over() -> None:
    from curator.detect.small_ssd import BUILTIN
    from curator.detect.weights import read_state

    detector = make_detector("fcos", PyramidOptions(classes=("a",)), backbone_weights=BUILTIN)
    own, stored = detector.network.state_dict(), read_state(BUILTIN)
    for name, value in stored.items():
        if name.startswith("backbone."):
            assert torch.equal(own[name.replace("backbone.", "backbone.inner.", 1)], value)
    with pytest.raises(InputError, match="same channels"):
        make_detector(
            "fcos", PyramidOptions(classes=("a",), channels=(8, 8, 8, 8, 8)), backbone_weights=BUILTIN
        )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("curator:retinanet", "name the classes"),
        ("curator:fcos?classes=a&width=40", "multiple of 32"),
        ("curator:faster_rcnn?classes=a&size=big", "expected numbers"),
        ("curator:faster_rcnn?classes=a&anchors=9,5", "rising"),
        ("torchvision:ssd300_vgg16?weights=random&classes=a&min_size=400", "stretches"),
        ("torchvision:fcos_resnet50_fpn?weights=random&classes=a&min_size=8", "at least 32"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    from curator.registry import DETECTORS

    parsed = Spec.parse(spec)
    with pytest.raises((ConfigError, InputError), match=message):
        DETECTORS.load(parsed.scheme)(parsed)


def test_the_examples_families(tmp_path: Path) -> None:
    """`curator example train-detector --family`: every family can be built from what is shipped."""
    from curator.example.settings import SCHEDULES, ExampleDetectorConfig

    assert set(SCHEDULES) == {"ssd", *FAMILIES}
    with pytest.raises(ConfigError, match="expected one of ssd, retinanet, fcos, faster_rcnn"):
        ExampleDetectorConfig(out=tmp_path / "x.safetensors", family="yolo")
