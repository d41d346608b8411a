"""The SSD adapter against torchvision's own code, and the small SSD's options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import vgg16

from curator.detect.load import load_detector
from curator.detect.postprocess import softmax_log_odds, suppress
from curator.detect.small_ssd import SsdOptions, build_builtin, make_detector
from curator.detect.ssd import SsdDetector
from curator.errors import ConfigError, InputError, RegistryError
from curator.registry import Spec
from store.records import Pin


@pytest.fixture(scope="module")
def small() -> SsdDetector:
    return make_detector(SsdOptions(classes=("a", "b", "c")), seed=1)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(3, 90, 140, generator=generator), torch.rand(3, 192, 192, generator=generator)]


def test_predict_equals_torchvision(small: SsdDetector, images: list[Tensor]) -> None:
    small.network.score_thresh = 0.3
    with torch.inference_mode():
        expected = small.network(images)
    for (found, _), reference in zip(small.predict(images, score_threshold=0.3), expected, strict=True):
        assert len(found) == len(reference["scores"])
        torch.testing.assert_close(torch.from_numpy(found.scores), reference["scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(found.boxes), reference["boxes"], atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("floor", [0.05, 0.3, 0.9])
def test_suppress_equals_torchvision_box_for_box(small: SsdDetector, floor: float) -> None:
    """The same head outputs give the same boxes and scores, bit for bit, beyond top-k too."""
    generator = torch.Generator().manual_seed(int(floor * 100))
    anchors = small._anchors
    logits = torch.randn(1, len(anchors), 4, generator=generator) * 3
    deltas = torch.randn(1, len(anchors), 4, generator=generator)
    network = small.network
    network.score_thresh = floor
    expected = network.postprocess_detections(
        {"bbox_regression": deltas, "cls_logits": logits}, [anchors], [(192, 192)]
    )[0]
    pin = Pin(image_size=(192, 192), input_size=(192, 192), scale=(1.0, 1.0))
    found = suppress(
        logits.softmax(-1)[0, :, 1:],
        small._decode(deltas, anchors)[0],
        pin,
        score_threshold=floor,
        iou_threshold=network.nms_thresh,
        top_k=network.topk_candidates,
        limit=network.detections_per_img,
    )
    assert torch.equal(torch.from_numpy(found.boxes), expected["boxes"])
    assert torch.equal(torch.from_numpy(found.scores), expected["scores"])
    assert torch.equal(torch.from_numpy(found.labels), expected["labels"] - 1)
    assert torch.equal(logits.softmax(-1)[0, found.candidates, found.labels + 1], expected["scores"])


def test_prepare_equals_torchvisions_transform(small: SsdDetector, images: list[Tensor]) -> None:
    expected = small.network.transform([images[0]])[0].tensors[0]
    u = small.prepare(images[0], small.pin(images[0]))
    torch.testing.assert_close((u - small._mean) / small._std, expected, atol=2e-5, rtol=1e-5)
    assert torch.equal(small.prepare(images[1], small.pin(images[1])), images[1])


def test_loss_equals_torchvision(images: list[Tensor]) -> None:
    detector = make_detector(SsdOptions(classes=("a", "b")), seed=2)
    twin = detector.clone()
    targets = [
        (torch.tensor([[10.0, 10, 60, 50], [80, 30, 120, 85]]), torch.tensor([0, 1])),
        (torch.tensor([[50.0, 40, 100, 120]]), torch.tensor([1])),
    ]
    ours = twin.loss(images, targets)
    network = detector.clone().network.train()
    theirs = network(images, [{"boxes": boxes, "labels": labels + 1} for boxes, labels in targets])
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


def test_an_image_without_objects_teaches() -> None:
    """torchvision gives such an image no loss at all."""
    twin = make_detector(SsdOptions(classes=("a",)), seed=2).clone()
    image = torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(0))
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    optimiser = torch.optim.Adam(twin.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = twin.loss([image], [nothing])["classification"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert 0 < losses[-1] < 0.8 * losses[0]


def test_log_odds_lose_nothing() -> None:
    """Against float64, where a probability in float32 is 0 or 1."""
    logits = torch.tensor([[40.0, -30.0, 2.0], [0.0, 0.0, 0.0], [-90.0, 15.0, 14.0]], dtype=torch.float32)
    exact = torch.stack(
        [
            logits[:, c].double() - logits.double()[:, [i for i in range(3) if i != c]].logsumexp(1)
            for c in range(3)
        ],
        1,
    )
    leaf = logits.clone().requires_grad_()
    got = softmax_log_odds(leaf)
    torch.testing.assert_close(got.detach().double(), exact, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(got[0, 1], leaf)
    torch.testing.assert_close(gradient[0], torch.tensor([-1.0, 1.0, 0.0]), atol=1e-6, rtol=0)
    (whole,) = torch.autograd.grad(softmax_log_odds(leaf).sum(), leaf)
    assert torch.isfinite(whole).all()


def test_cells_are_centred_where_they_look() -> None:
    """SSD300's maps: 2 x 2 poolings to level1, strided 3 x 3 convolutions later."""
    detector = load_detector("torchvision:ssd300_vgg16?weights=random&classes=a", "cpu")
    assert isinstance(detector, SsdDetector)
    assert [affine[0] for affine in detector._affines] == [
        (8, 4),
        (16, 8),
        (32, 8),
        (64, 8),
        (64, 72),
        (64, 136),
    ]


def test_tiny_cells_are_centred_on_their_anchors(small: SsdDetector) -> None:
    pin = small.pin(torch.zeros(3, 192, 192))
    got = small.candidates(
        torch.zeros(1, 3, 192, 192), pin, index=torch.zeros(0, dtype=torch.int64), levels=small.levels
    )
    start = 0
    for level in small.levels:
        feature = got.features[level]
        rows, columns = feature.values.shape[-2:]
        centre = (small._anchors[start, :2] + small._anchors[start, 2:]) / 2
        assert centre.tolist() == pytest.approx(list(feature.offset))
        start += rows * columns * 4


def test_equal_seeds_give_equal_weights_and_leave_the_global_state() -> None:
    state = torch.random.get_rng_state()
    one, two = (make_detector(SsdOptions(classes=("a",)), seed=7) for _ in range(2))
    assert one.fingerprint == two.fingerprint != make_detector(SsdOptions(classes=("a",)), seed=8).fingerprint
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("curator:ssd", "needs classes"),
        ("curator:ssd?classes=a,a", "distinct"),
        ("curator:ssd?classes=a&size=big", "expected numbers"),
        ("curator:ssd?classes=a&channels=1,2", "five positive"),
        ("curator:ssd?classes=a&anchors=40,20,80,90", "rising"),
        ("curator:ssd?classes=a&backbone=nonet", "torchvision classifier"),
        ("curator:ssd?classes=a&wings=2", "knows the options"),
        ("curator:nowhere.safetensors", "found none at nowhere.safetensors"),
        ("torchvision:yolo?weights=random", "expected one of ssd300_vgg16"),
        ("torchvision:ssd300_vgg16", "name the weights"),
        ("torchvision:ssd300_vgg16?weights=random", "name the classes"),
        ("torchvision:ssd300_vgg16?weights=none.pth&classes=a", "found none at none.pth"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    with pytest.raises((ConfigError, InputError, RegistryError), match=message):
        load_detector(spec, "cpu")


def test_builtin_without_weights_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="curator example train-detector"):
        build_builtin(Spec.parse(f"builtin:?weights={tmp_path / 'absent.safetensors'}"))


def test_torchvision_weights_by_file(tmp_path: Path) -> None:
    """A plain state dict: the number of classes is inferred, the names checked; a new head keeps the rest."""
    name = "ssdlite320_mobilenet_v3_large"
    first = load_detector(f"torchvision:{name}?weights=random&classes=a,b&seed=4", "cpu")
    path = tmp_path / "weights.pth"
    network = first.modules()
    assert network is not None
    torch.save(network.state_dict(), path)
    same = load_detector(f"torchvision:{name}?weights={path}&classes=a,b", "cpu")
    assert same.fingerprint == first.fingerprint
    with pytest.raises(InputError, match="trained with 2 classes, got 1"):
        load_detector(f"torchvision:{name}?weights={path}&classes=a", "cpu")
    renewed = load_detector(f"torchvision:{name}?weights={path}&classes=x,y,z&head=new", "cpu").modules()
    assert renewed is not None
    for key, value in renewed.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(value, network.state_dict()[key])


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"code": Path("x")}, path)
    with pytest.raises(InputError, match=r"evil\.pth"):
        load_detector(f"torchvision:ssd300_vgg16?weights={path}&classes=a", "cpu")


def test_vgg_backbone_is_copied_in_order(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        features = {
            f"features.{key}": value for key, value in vgg16(weights=None).features.state_dict().items()
        }
    torch.save(features, tmp_path / "vgg.pth")
    detector = load_detector(
        f"torchvision:ssd300_vgg16?weights=random&classes=a&backbone={tmp_path / 'vgg.pth'}", "cpu"
    )
    network = detector.modules()
    assert network is not None
    own = network.state_dict()
    assert torch.equal(own["backbone.features.0.weight"], features["features.0.weight"])
    assert torch.equal(own["backbone.extra.0.5.weight"], features["features.28.weight"])


def test_squeezenet_backbone_sees_rgb(shared: Path) -> None:
    """The caffe-style first convolution is turned from BGR to RGB, so that RGB input gives its features."""
    path = shared / "weights" / "squeezenet" / "squeezenet1_1_torchvision_layout.safetensors"
    detector = load_detector(
        f"curator:ssd?classes=a&size=128&backbone=squeezenet1_1&backbone_pixels=caffe&"
        f"backbone_weights={path}",
        "cpu",
    )
    assert isinstance(detector, SsdDetector)
    from safetensors.torch import load_file

    stored = load_file(path)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    caffe = (image * 255).flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    name = next(key for key in stored if key.endswith("features.0.weight"))
    expected = torch.nn.functional.conv2d(
        caffe, stored[name], stored[name.replace("weight", "bias")], stride=2
    )
    body = detector.network.backbone.body
    got = body.get_submodule("0")((image - detector._mean) / detector._std)
    torch.testing.assert_close(got, expected, atol=1e-2, rtol=1e-4)
