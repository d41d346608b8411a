"""`curator detect`: rows, resuming, bad images, roles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from curator.cli import app
from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.run import detect
from curator.detect.settings import DetectConfig
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.errors import ConfigError
from curator.jobs.base import Work
from curator.jobs.local import LocalExecutor
from curator.tensors import image_tensor
from store.records import DetectionSet
from store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    for role, count in (("mine", 5), ("pool", 3)):
        folder = tmp_path / role
        folder.mkdir()
        for number in range(count):
            noise = np.random.default_rng([number, count]).integers(0, 255, (5, 7, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((100 + 20 * number, 90)).save(folder / f"{number}.png")
    with Store.create(tmp_path / "workspace") as opened:
        for role in ("mine", "pool"):
            add(opened, AddConfig(format="images", path=tmp_path / role, role=role))
        yield opened


@pytest.fixture
def config(tmp_path: Path) -> DetectConfig:
    path = tmp_path / "detector.safetensors"
    make_detector(SsdOptions(classes=("a", "b"), size=96, anchors=(12, 24, 48, 72)), seed=1).save(path)
    return DetectConfig(detector=f"curator:{path}", score_floor=0.4, batch_size=2, device="cpu")


def rows(store: Store, model: int) -> dict[int, DetectionSet]:
    return store.detections(model, [*store.image_ids(role="mine"), *store.image_ids(role="pool")])


def test_rows_equal_predictions(store: Store, config: DetectConfig) -> None:
    result = detect(store, config)
    assert (result.done, result.skipped, result.failed) == (5, 0, 0)
    assert result.summary["classes"] == ["a", "b"]
    found = rows(store, result.summary["model"])
    assert sorted(found) == store.image_ids(role="mine")
    assert result.summary["detections"] == sum(len(s.detections) for s in found.values()) > 0
    assert sum(result.summary["per_class"].values()) == result.summary["detections"]
    detector = load_detector(config.detector, "cpu")
    for image in store.images(reader="detect", role="mine"):
        expected, pin = detector.predict(
            [image_tensor(store.pixels(image, reader="detect"))], score_threshold=0.4
        )[0]
        stored = found[image.id]
        assert stored.pin == pin
        n = min(len(expected), len(stored.detections), 10)
        np.testing.assert_allclose(stored.detections.scores[:n], expected.scores[:n], atol=1e-5)


def test_again_does_nothing_and_another_role_adds(store: Store, config: DetectConfig) -> None:
    first = detect(store, config)
    before = rows(store, first.summary["model"])
    again = detect(store, replace(config, batch_size=5))
    assert (again.done, again.skipped) == (0, 5)
    assert again.summary == first.summary
    more = detect(store, replace(config, roles=("mine", "pool")))
    assert (more.done, more.skipped) == (3, 5)
    after = rows(store, first.summary["model"])
    assert all(after[i].key == before[i].key for i in before)
    assert len(after) == 8


class _Dies(LocalExecutor):
    """Stops after the first batch, as a killed process does."""

    def run(self, work: Work, items: Iterable[Any]) -> Iterator[list[Any]]:
        work.batch_size = 2
        yield next(super().run(work, items))
        raise KeyboardInterrupt


def test_a_stopped_run_continues(store: Store, config: DetectConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        detect(store, config, executor=_Dies("cpu"))
    result = detect(store, config)
    assert (result.done, result.skipped) == (3, 2)


def test_a_bad_image_does_not_stop_the_rest(store: Store, config: DetectConfig, tmp_path: Path) -> None:
    (tmp_path / "mine" / "2.png").write_bytes(b"no image")
    (tmp_path / "mine" / "4.png").unlink()
    result = detect(store, config)
    assert (result.done, result.failed, result.exit_code) == (3, 2, 3)
    assert sorted(Path(item).name for item, _ in result.failures) == ["2.png", "4.png"]


@pytest.mark.parametrize("roles", [("holdout",), ("mine", "test"), ()])
def test_wrong_roles_are_refused(store: Store, config: DetectConfig, roles: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--role"):
        detect(store, replace(config, roles=roles))


def test_retrained_weights_are_loaded_anew(config: DetectConfig) -> None:
    path = Path(config.detector.partition(":")[2])
    first = load_detector(config.detector, "cpu")
    assert load_detector(config.detector, "cpu") is first
    other = make_detector(SsdOptions(classes=("a", "b"), size=96, anchors=(12, 24, 48, 72)), seed=2)
    other.save(path)
    assert load_detector(config.detector, "cpu").fingerprint == other.fingerprint != first.fingerprint


def test_command(store: Store, config: DetectConfig) -> None:
    done = CliRunner().invoke(
        app,
        [
            "-w",
            str(store.path),
            "detect",
            "--detector",
            config.detector,
            "--role",
            "mine",
            "--role",
            "pool",
            "--score-floor",
            "0.4",
            "--device",
            "cpu",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["done"] == summary["images"] == 8
    text = CliRunner().invoke(
        app,
        [
            "-w",
            str(store.path),
            "detect",
            "--detector",
            config.detector,
            "--score-floor",
            "0.4",
            "--device",
            "cpu",
        ],
    )
    assert "0 done, 5 already stored" in text.stdout
    assert "(2 classes)" in text.stdout


def test_global_random_state_is_left_alone(store: Store, config: DetectConfig) -> None:
    state = torch.random.get_rng_state()
    detect(store, config)
    assert torch.equal(state, torch.random.get_rng_state())
