"""`curator train-inpainter` on a workspace: which images it reads, what it writes, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from curator.data.run_add import add
from curator.data.settings import AddConfig
from curator.errors import ConfigError, InputError
from curator.inpaint.backends import build_inpainter
from curator.inpaint.run_train import train_inpainter
from curator.inpaint.settings import TrainInpainterConfig
from store.store import Store


def _add(store: Store, folder: Path, role: str, count: int, seed: int, side: int = 48) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = rng.integers(0, 255, (6, 6, 3), np.uint8)
        PIL.Image.fromarray(coarse).resize((side, side)).save(folder / f"{number}.png")
    add(store, AddConfig(format="images", path=folder, role=role))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four training images, two of the pool, and a holdout whose files are gone: reading it would fail."""
    made = Store.create(tmp_path / "ws")
    _add(made, tmp_path / "train", "train", 4, 1)
    _add(made, tmp_path / "pool", "pool", 2, 2)
    _add(made, tmp_path / "holdout", "holdout", 2, 3)
    for file in (tmp_path / "holdout").iterdir():
        file.unlink()
    return made


def _config(out: Path, **given: Any) -> TrainInpainterConfig:
    tiny: dict[str, Any] = {
        "size": 32,
        "steps": 4,
        "batch_size": 2,
        "check_every": 2,
        "sheet_every": 4,
        "channels": (16, 32),
        "width": 32,
        "fold": 4,
        "device": "cpu",
    }
    return TrainInpainterConfig(out=out, **{**tiny, **given})


def test_it_trains_on_the_workspace_and_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    config = _config(tmp_path / "painter")
    result = train_inpainter(store, config)
    assert (result.done, result.failed) == (1, 0)
    assert result.summary["images"] + result.summary["held_out"] == 4
    assert result.summary["held_out"] >= 1
    assert result.summary["steps"] == 4
    assert result.summary["stopped"] == "after 4 steps"
    written = json.loads((tmp_path / "painter" / "training.json").read_text())
    assert [step for step, _ in written["checks"]] == [2, 4]
    assert (tmp_path / "painter" / "sheets" / "step_000004.png").is_file()
    assert build_inpainter(result.summary["inpainter"], steps=2, device="cpu").fingerprint
    more = train_inpainter(store, replace(config, steps=6))
    assert more.summary["steps"] == 6
    assert more.summary["held_out_first"] == result.summary["held_out_first"]


def test_the_pool_is_read_when_asked_and_unreadable_images_are_told(store: Store, tmp_path: Path) -> None:
    gone = sorted((tmp_path / "train").iterdir())[0]
    gone.unlink()
    result = train_inpainter(store, _config(tmp_path / "painter", pool=True, sheet_every=0))
    assert result.summary["images"] + result.summary["held_out"] == 6
    assert result.exit_code == 3
    assert [gone.name in item for item, _ in result.failures] == [True]


def test_too_few_images_and_another_training_give_one_clear_line(store: Store, tmp_path: Path) -> None:
    with (
        Store.create(tmp_path / "empty") as empty,
        pytest.raises(InputError, match="at least 2 images") as caught,
    ):
        train_inpainter(empty, _config(tmp_path / "painter"))
    assert "\n" not in str(caught.value)
    train_inpainter(store, _config(tmp_path / "painter", steps=1, sheet_every=0))
    with pytest.raises(InputError, match="holds a training with other images or settings"):
        train_inpainter(store, _config(tmp_path / "painter", steps=1, sheet_every=0, pool=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        train_inpainter(store, _config(tmp_path / "file" / "painter"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 100}, "multiple of 32"),
        ({"held_out": 0.0}, "held_out"),
        ({"channels": (12, 20)}, "multiples of 8"),
        ({"size": 32, "fold": 8, "channels": (16, 32, 64, 128)}, "expected a multiple of 64"),
        ({"steps": 0}, "steps"),
        ({"minutes": -1.0}, "minutes"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(Path("painter"), **given)
