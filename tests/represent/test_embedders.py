"""One suite over every embedder with a network of its own, and several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.detect.base import Detector
from curator.detect.black_box import BlackBox
from curator.detect.one_pass import one_pass
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.errors import ConfigError, InputError, RegistryError
from curator.registry import EMBEDDERS, Spec
from curator.represent.embedders.backbone import BackboneEmbedder
from curator.represent.embedders.base import Embedder, TextEmbedder
from curator.represent.embedders.load import load_embedder, text_embedder
from store.records import Pin

MOBILENET = "mobilenet_v1_1.0/mobilenet_v1_1.0_tf_layout_no_pw13.safetensors"
SQUEEZENET = "squeezenet/squeezenet1_1_torchvision_layout.safetensors"
SPECS = {
    "resnet18": "torchvision:resnet18?weights=random&side=96",
    "mobilenet_v3_small": "torchvision:mobilenet_v3_small?weights=random&side=96&seed=4",
    "crops": "torchvision:squeezenet1_1?weights=random&side=96&crops=64",
    "timm": "timm:mobilenetv3_small_050?weights=random&side=96",
    "timm-levels": "timm:resnet18?weights=random&side=96&levels=stride8",
    "timm-vit": "timm:vit_tiny_patch16_224?weights=random",
    "timm-swin": "timm:swin_tiny_patch4_window7_224?weights=random",
    "clip": "transformers:{vision}/clip",
    "siglip": "transformers:{vision}/siglip",
    "no-text": "transformers:{vision}/clip?text=0",
    "dinov2": "transformers:{vision}/dinov2?side=64",
    "registers": "transformers:{vision}/dinov2_with_registers?side=64",
    "dinov3": "transformers:{vision}/dinov3_vit?side=64&crops=32",
    "vit": "transformers:{vision}/vit?side=64",
    "mobilenet": f"safetensors:{{weights}}/{MOBILENET}?layout=mobilenet_v1&side=96",
    "squeezenet": f"safetensors:{{weights}}/{SQUEEZENET}?layout=squeezenet&side=96",
    "joined": "detector:+torchvision:squeezenet1_1?weights=random&side=64+transformers:{vision}/clip",
}
WITH_TEXT = ("clip", "siglip", "joined")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(SsdOptions(classes=("a", "b"), size=96, channels=(8, 8, 16, 16, 16)))


@pytest.fixture(scope="module", params=SPECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def text(name: str, request: pytest.FixtureRequest) -> str:
    spec = SPECS[name]
    if "{vision}" in spec:
        return spec.format(vision=request.getfixturevalue("tiny_vision"))
    if "{weights}" in spec:
        return spec.format(weights=request.getfixturevalue("shared") / "weights")
    return spec


@pytest.fixture(scope="module")
def embedder(text: str, detector: Detector) -> Embedder:
    return load_embedder(text, detector)


PINS = [
    Pin(image_size=(60, 100), input_size=(96, 96), scale=(0.96, 0.96)),  # letterboxed, padded below
    Pin(image_size=(120, 200), input_size=(96, 96), scale=(0.48, 0.8)),  # stretched
    Pin(image_size=(60, 100), input_size=(96, 96), scale=(0.96, 0.96)),
]
BOXES = [
    np.array([[10, 10, 50, 50], [0, 0, 100, 60], [30, 20, 30, 20]], np.float32),
    np.zeros((0, 4), np.float32),
    np.array([[-20, 5, 40, 90]], np.float32),
]


def inputs() -> torch.Tensor:
    numbers = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 3, 8, 8, generator=numbers)
    return torch.nn.functional.interpolate(coarse, (96, 96), mode="bilinear")


def test_it_gives_what_it_says(name: str, embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    masks = [np.ones((2, 6, 6), np.float32), np.zeros((0, 6, 6), np.float32), np.ones((1, 4, 4), np.float32)]
    found = embedder.embed(inputs(), PINS, BOXES, masks=masks)
    for views, boxes, mask in zip(found, BOXES, masks, strict=True):
        assert {view: values.shape for view, values in views.items()} == {
            **{view: (len(boxes), size) for view, size in embedder.views.items()},
            **{view: (1, size) for view, size in embedder.image_views.items()},
            "region": (len(mask), next(iter(embedder.views.values()))),
        }
        for view, values in views.items():
            assert values.dtype == np.float32, view
            assert np.isfinite(values).all(), view
    assert list(embedder.views)[:2] == ["object", "context"]
    assert next(iter(embedder.image_views)) == "image"
    first = found[0]["object"]
    assert np.abs(first[0] - first[1]).max() > 1e-4  # boxes are told apart


def test_vectors_do_not_depend_on_batch_mates(embedder: Embedder) -> None:
    together = embedder.embed(inputs(), PINS, BOXES)[2]
    alone = embedder.embed(inputs()[2:], PINS[2:], BOXES[2:])[0]
    for view, values in alone.items():
        np.testing.assert_allclose(values, together[view], atol=2e-4, err_msg=view)


def test_padding_does_not_matter(name: str, embedder: Embedder) -> None:
    """But to the detector, which sees it."""
    u = inputs()[:1]
    other = u.clone()
    other[..., 58:, :] = 0.9  # the image ends at 57.6
    before, after = (embedder.embed(x, PINS[:1], BOXES[:1])[0] for x in (u, other))
    for view in ("image", "object", "clip"):
        if view in before and name != "joined":
            np.testing.assert_allclose(before[view], after[view], atol=1e-5, err_msg=view)


def test_a_density_that_fills_a_box_describes_the_box(name: str, embedder: Embedder) -> None:
    pin = Pin(image_size=(96, 96), input_size=(96, 96), scale=(1.0, 1.0))
    density = np.zeros((1, 12, 12), np.float32)
    density[0, 2:10, 1:6] = 3  # x 8 to 48, y 16 to 80
    box = np.array([[8, 16, 48, 80]], np.float32)
    views = embedder.embed(inputs()[:1], [pin], [box], masks=[density])[0]
    np.testing.assert_allclose(views["region"], views["object"], atol=2e-3)


def test_the_fingerprint_is_the_weights(name: str, text: str, embedder: Embedder, detector: Detector) -> None:
    if name.startswith("timm-"):
        pytest.skip("slow to build again")
    assert load_embedder(text, detector).fingerprint == embedder.fingerprint
    if "side=96" in text:
        other = load_embedder(text.replace("side=96", "side=128"), detector)
        assert other.fingerprint != embedder.fingerprint
    if "weights=random" in text and name != "joined":
        other = load_embedder(text.replace("&seed=4", "") + "&seed=9", detector)
        assert other.fingerprint != embedder.fingerprint


def test_boxes_and_texts_compare(name: str, embedder: Embedder) -> None:
    found = text_embedder(embedder)
    if name not in WITH_TEXT:
        assert found is None
        return
    assert isinstance(found, TextEmbedder)
    texts = found.embed_text(["motorcycle behind a pole", "a car", "a car at night " * 9])
    again = found.embed_text(["a car"])
    views = embedder.embed(inputs(), PINS, BOXES)
    boxes, image = views[0][found.text_view], views[0][found.text_image_view]
    assert texts.shape == (3, embedder.views[found.text_view])
    assert image.shape[1] == embedder.image_views[found.text_image_view] == texts.shape[1]
    for vectors in (texts, boxes, image):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(texts[1], again[0], atol=1e-5)  # padding does not matter
    assert np.abs(texts[0] - texts[1]).max() > 1e-3
    with pytest.raises(InputError, match="at least one text"):
        found.embed_text([])


def test_clips_image_vector_is_the_models_own(tiny_vision: Path, detector: Detector) -> None:
    """Against `transformers` on the picture itself, with the mean and deviation stored beside the weights."""
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(tiny_vision / "clip").eval()
    x = inputs()[:1, :, ::3, ::3]  # 32 px, as the model takes them
    pin = Pin(image_size=(32, 32), input_size=(32, 32), scale=(1.0, 1.0))
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    with torch.no_grad():
        own = model.get_image_features(pixel_values=(x - mean) / deviation)
    own = own if isinstance(own, torch.Tensor) else own.pooler_output
    found = load_embedder(f"transformers:{tiny_vision}/clip", detector).embed(x, [pin], [BOXES[0]])[0]
    np.testing.assert_allclose(found["clip_image"], torch.nn.functional.normalize(own).numpy(), atol=1e-5)


def test_patches_lie_where_they_were_cut(tiny_vision: Path, detector: Detector) -> None:
    """A change of the picture's lower right patch changes its vector most, register tokens or not."""
    pin = Pin(image_size=(64, 64), input_size=(64, 64), scale=(1.0, 1.0))
    x = inputs()[:1, :, :64, :64]
    changed = x.clone()
    changed[..., 56:, 56:] = 1 - changed[..., 56:, 56:]
    corners = np.array([[0, 0, 8, 8], [56, 0, 64, 8], [0, 56, 8, 64], [56, 56, 64, 64]], np.float32)
    for kind in ("dinov2", "dinov2_with_registers", "dinov3_vit"):
        embedder = load_embedder(f"transformers:{tiny_vision}/{kind}?side=64", detector)
        before, after = (embedder.embed(v, [pin], [corners])[0]["object"] for v in (x, changed))
        moved = np.linalg.norm(before - after, axis=1)
        assert moved.argmax() == 3
        assert moved[3] > 3 * moved[:3].max()


def test_several_at_once_are_the_several(tiny_vision: Path, detector: Detector) -> None:
    texts = ["detector:", f"transformers:{tiny_vision}/dinov2?side=64", f"transformers:{tiny_vision}/dinov2"]
    joined = load_embedder("+".join(texts), detector)
    image = inputs()[0]
    one = one_pass(detector, image, joined.levels)
    found = joined.embed(one.u[None], [one.pin], [BOXES[0]], features=one.features)[0]
    assert list(found) == [
        *("object", "context", "image"),
        *("dinov2.object", "dinov2.context", "dinov2.image"),
        *("dinov2#2.object", "dinov2#2.context", "dinov2#2.image"),
    ]
    for prefix, text in zip(("", "dinov2.", "dinov2#2."), texts, strict=True):
        alone = load_embedder(text, detector).embed(one.u[None], [one.pin], [BOXES[0]])[0]
        for view, values in alone.items():
            np.testing.assert_allclose(found[prefix + view], values, atol=1e-4)
    assert joined.levels == detector.levels[:3]
    assert joined.fingerprint != load_embedder("+".join(texts[:2]), detector).fingerprint


def test_a_black_box_is_embedded_by_other_networks(detector: Detector) -> None:
    box = BlackBox.of(detector)
    embedder = load_embedder("torchvision:squeezenet1_1?weights=random&side=64", box)
    one = one_pass(box, inputs()[0], embedder.levels)
    views = embedder.embed(one.u[None], [one.pin], [one.boxes.numpy()], features=one.features)[0]
    assert len(views["object"]) == len(one.boxes)
    with pytest.raises(ConfigError, match="black box"):
        load_embedder("torchvision:squeezenet1_1?weights=random+detector:", box)


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("nowhere:x", RegistryError, "choose one of: detector"),
        ("torchvision:resnet18", ConfigError, "weights=DEFAULT"),
        ("torchvision:nonet?weights=random", RegistryError, "nonet"),
        ("torchvision:resnet18?weights=random&levels=layer9", ConfigError, "layer1, layer2, layer3, layer4"),
        ("torchvision:resnet18?weights=random&side=x", ConfigError, "side: expected a whole number"),
        ("torchvision:vit_b_32?weights=random", ConfigError, "transformers:FOLDER"),
        ("torchvision:resnet18?weights=absent.safetensors", InputError, "absent.safetensors"),
        ("safetensors:absent.safetensors", ConfigError, "layout=mobilenet_v1 or layout=squeezenet"),
        ("timm:resnet18", ConfigError, "weights=DEFAULT"),
        ("timm:nonet?weights=random", RegistryError, "nonet"),
        ("timm:resnet18?weights=random&levels=stride9", ConfigError, "stride4, stride8, stride16"),
        ("transformers:", InputError, "expected a folder or a hub id"),
        ("transformers:./absent", InputError, "save_pretrained"),
        ("detector:level1", ConfigError, "got 'level1'"),
    ],
)
def test_wrong_requests_get_one_line(
    text: str, kind: type[Exception], match: str, detector: Detector
) -> None:
    with pytest.raises(kind, match=match) as refused:
        load_embedder(text, detector)
    assert "\n" not in str(refused.value)


def test_a_detection_model_is_refused_and_so_are_other_weights(
    tiny_vision: Path, detector: Detector, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="got 'bert'"):
        load_embedder(f"transformers:{other}", detector)
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path)
    for text, match in (
        (f"timm:resnet18?weights={path}", "lacks conv1.weight .*timm's layout of resnet18"),
        (f"torchvision:resnet18?weights={path}", "lacks bn1"),
        (f"safetensors:{path}?layout=mobilenet_v1", "lacks conv1/kernel"),
        (f"safetensors:{path}?layout=squeezenet", "lacks features.0.weight"),
    ):
        with pytest.raises(InputError, match=match):
            load_embedder(text, detector)


def test_weights_of_a_file_are_the_networks(detector: Detector, tmp_path: Path) -> None:
    """Saved with a head of other classes, loaded without it: the maps of the network itself."""
    import timm
    from safetensors.torch import save_file
    from torchvision.models import get_model

    def saved(network: Any, path: Path) -> Path:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
        return path

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        resnet = get_model("resnet18", num_classes=7)
        other = timm.create_model("resnet18", num_classes=7)
    x = inputs()[:1, :, :64]
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (x - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    for network, text in ((resnet, "torchvision:resnet18"), (other, "timm:resnet18")):
        path = saved(network.eval(), tmp_path / f"{text.partition(':')[0]}.safetensors")
        embedder = load_embedder(f"{text}?weights={path}&side=96", detector)
        assert isinstance(embedder, BackboneEmbedder)
        with torch.no_grad():
            found = list(embedder.backbone.look(x).maps.values())[-1]
            if network is resnet:
                expected = torch.nn.Sequential(*list(network.children())[:-2])(normalised)
            else:
                expected = network.forward_intermediates(normalised, intermediates_only=True)[-1]
        torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=1e-3)
        assert found.scale == (32.0, 32.0)


def test_every_registered_embedder_is_here() -> None:
    tested = {spec.partition(":")[0] for spec in SPECS.values()}
    assert tested == set(EMBEDDERS.names())
    assert Spec.parse(SPECS["joined"]).scheme == "detector"
