"""`--trainer hf:` and `--trainer ultralytics:`: the packages' own trainers, in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curator import pipeline
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.errors import InputError
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.prove.trainers.program_arguments import read_settings
from store.records import ROLES
from store.store import Store


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("programs")
    write_dataset(root / "data", sizes=dict.fromkeys(ROLES, 4), seed=3, size=96)
    with Store.create(root / "ws") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
    return root / "ws"


def trained(workspace: Path, detector: str, out: Path, **fields: Any) -> dict[str, Any]:
    config = TrainConfig(
        detector=detector, out=out, steps=2, batch_size=2, learning_rate=0.001, device="cpu", **fields
    )
    with Store.open(workspace) as store:
        first = pipeline.train(store, config)
        assert first.failures == ()
        again = pipeline.train(store, config)
    assert (first.done, again.skipped) == (1, 1)
    assert again.summary["fingerprint"] == first.summary["fingerprint"]
    return dict(first.summary)


def test_settings_are_read_as_json_or_text() -> None:
    found = read_settings(["weight_decay=0.01", "optim=adamw_torch", "bf16=false", "empty="])
    assert found == {"weight_decay": 0.01, "optim": "adamw_torch", "bf16": False, "empty": ""}


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny YOLOS with the example's classes."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("yolos")
    names = dict(enumerate(CLASSES))
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 64],
        patch_size=16,
        num_detection_tokens=8,
        use_mid_position_embeddings=False,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.YolosForObjectDetection(config)
    model.save_pretrained(folder, safe_serialization=True)
    transformers.YolosImageProcessor(size={"height": 64, "width": 64}, do_pad=False).save_pretrained(folder)
    return f"hf:{folder}"


def test_transformers_trains_its_own_models(workspace: Path, yolos: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    found = trained(workspace, yolos, tmp_path / "out", trainer="hf:?weight_decay=0.01")
    after = load_detector(found["detector"], "cpu")
    assert found["detector"] == f"hf:{tmp_path / 'out' / 'model'}"
    assert after.classes == CLASSES
    assert after.fingerprint != load_detector(yolos, "cpu").fingerprint
    assert not (tmp_path / "out" / "trainer").exists()


def test_a_setting_that_the_trainer_does_not_know_ends_in_one_line(
    workspace: Path, yolos: str, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    with Store.open(workspace) as store:
        config = TrainConfig(detector=yolos, out=tmp_path / "out", trainer="hf:?nonsense=1", device="cpu")
        result = pipeline.train(store, config)
    ((_, reason),) = result.failures
    assert "exit code 1" in reason
    assert "nonsense" in reason


def test_a_black_box_is_refused_with_what_to_do(workspace: Path, yolos: str) -> None:
    with (
        Store.open(workspace) as store,
        pytest.raises(InputError, match=r"--trainer 'command:python train\.py"),
    ):
        pipeline.verify(store, VerifyConfig(detector=f"blackbox:{yolos}", arms=("nothing",), device="cpu"))


def test_ultralytics_trains_its_own_models(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ultralytics", exc_type=ImportError)
    for name, value in {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    spec = f"ultralytics:yolov8n.yaml?classes={','.join(CLASSES)}&size=64&nms_iou=0.6"
    found = trained(workspace, spec, tmp_path / "out", trainer="ultralytics:?mosaic=0")
    assert found["detector"] == f"ultralytics:{tmp_path / 'out' / 'best.safetensors'}?size=64&nms_iou=0.6"
    after = load_detector(found["detector"], "cpu")
    assert after.classes == CLASSES
    assert after.fingerprint != load_detector(spec, "cpu").fingerprint
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["best.safetensors"]
