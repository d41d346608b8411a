"""Ultralytics' files: no pickle is read unasked, none twice; what is no detector is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.detect.ultralytics_file import convert
from curator.errors import ConfigError, CuratorError, InputError
from store.store import Store
from tests.detect.tiny_yolo import picture, save_table, save_weights


class Running:
    """Makes a folder in `where` each time that it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = str(where)

    def __reduce__(self) -> Any:
        return tempfile.mkdtemp, ("", "ran", self.where)


def ran(where: Path) -> int:
    return len(list(where.glob("ran*")))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(tmp_path))
    pytest.importorskip(
        "ultralytics", reason="the extra ultralytics is not usable here", exc_type=ImportError
    )
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_pickle_runs_only_where_it_is_trusted(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    torch.save({"model": Running(tmp_path)}, path)
    with pytest.raises(InputError, match=r"is a pickle.*--trust-pickle.*yolo export.*format=onnx") as caught:
        load_detector(f"ultralytics:{path}", "cpu")
    assert "\n" not in str(caught.value)
    assert ran(tmp_path) == 0
    with pytest.raises(InputError, match="expected a model of the package, got str"):
        load_detector(f"ultralytics:{path}?trust_pickle=yes", "cpu")
    assert ran(tmp_path) == 1  # the test itself can see it run
    assert not list(own_cache.rglob("*.safetensors"))


def test_a_trusted_file_is_read_once(own_cache: Path, tmp_path: Path) -> None:
    """By `detect`; later stages load the stored spec without trust, and so does a copy of the file."""
    path = save_weights("yolo11", tmp_path, extra=Running(tmp_path))
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2):
        Image.fromarray(picture(80, 100, seed=number)).save(images / f"{number}.png")
    spec = f"ultralytics:{path}"
    with Store.create(tmp_path / "workspace") as store:
        add(store, AddConfig(format="images", path=images, role="mine"))
        with pytest.raises(InputError, match="is a pickle"):
            detect(store, DetectConfig(detector=spec, device="cpu"))
        result = detect(store, DetectConfig(detector=spec, trust_pickle=True, device="cpu"))
        assert (result.done, result.failed) == (2, 0)
        assert ran(tmp_path) == 1
        (model,) = store.models()
        assert model.spec == spec
    fingerprint = load_detector(model.spec, "cpu").fingerprint
    assert fingerprint == model.fingerprint
    elsewhere = tmp_path / "copy.pt"
    elsewhere.write_bytes(path.read_bytes())
    assert load_detector(f"ultralytics:{elsewhere}", "cpu").fingerprint == fingerprint
    (kept,) = own_cache.rglob("*.safetensors")
    assert load_detector(f"ultralytics:{kept}", "cpu").fingerprint == fingerprint
    assert ran(tmp_path) == 1
    elsewhere.write_bytes(path.read_bytes() + b"changed")
    with pytest.raises(InputError, match="is a pickle"):
        load_detector(f"ultralytics:{elsewhere}", "cpu")


def test_other_models_and_broken_files_are_refused_in_one_line(own_cache: Path, tmp_path: Path) -> None:
    segments = save_weights("yolo11", tmp_path, task="-seg")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(segments.read_bytes()[:5000])
    named = tmp_path / "weights.bin"
    named.write_bytes(b"")
    torch.save({"a": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="expected a model of the package, got NoneType"):
        convert(tmp_path / "state.pt", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match=r"expected a detection model of YOLO, got a Segment.*task segment"):
        convert(segments, tmp_path / "out.safetensors")
    cases = {
        f"{broken}?trust_pickle=yes": "broken.pt cannot be used",
        str(named): "expected a .pt, .safetensors or .yaml",
        str(tmp_path / "none.pt"): "found none at",
        f"{save_table('yolo11', tmp_path, task='-seg')}?classes=a": "is Segment",
        "yolo11n.yaml": "classes=a,b",
        "nothing.yaml?classes=a": "is no model table",
        "https://x.org/yolo11n.yaml?classes=a": "nothing is downloaded",
        "yolo11n.yaml?classes=a&size=100": "multiples of 32",
        "yolo11n.yaml?classes=a&end2end=yes": "no head without NMS",
        "yolo11n.yaml?classes=a&rect=maybe": "yes or no",
    }
    for name, message in cases.items():
        with pytest.raises(CuratorError, match=message) as caught:
            load_detector(f"ultralytics:{name}", "cpu")
        assert "\n" not in str(caught.value)
    assert not list(own_cache.rglob("*.safetensors"))
    with Store.create(tmp_path / "workspace") as store, pytest.raises(ConfigError, match="--trust-pickle"):
        detect(store, DetectConfig(detector="builtin:", trust_pickle=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "__import__('os').mkdir('ran')"}, "expected an activation"),
        ({"backbone": [[-1, 1, "torch_safe_load", ["bad.pt"]]]}, "expected layers of the package"),
        ({"backbone": [[-1, 1, "nn.init", []]]}, "expected layers of the package"),
        ({"backbone": [[-1, 1, "TorchVision", [512, "resnet18"]]]}, "expected layers of the package"),
        ({"backbone": "Conv"}, "expected a list of layers"),
        ({"head": [[-1, 1, "Classify", ["nc"]]]}, "expected a detection model"),
    ],
)
def test_a_table_holds_layers_alone(
    own_cache: Path, tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their parser would run what a table of unknown origin names."""
    del own_cache
    monkeypatch.chdir(tmp_path)
    path = save_table("yolo11", tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_detector(f"ultralytics:{path}?classes=a", "cpu")
    assert ran(tmp_path) == 0


def test_the_package_changes_nothing_of_pillow_and_torch() -> None:
    code = (
        "import PIL.Image, torch; before = PIL.Image.open, torch.save; import curator.detect.ultralytics; "
        "assert (PIL.Image.open, torch.save) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
