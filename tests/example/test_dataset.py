"""Rendered data sets: gaps per role, COCO that reads back, nothing rendered twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curator.data.formats.base import LabelledImage
from curator.data.formats.coco import CocoFormat
from curator.errors import ConfigError
from curator.example.dataset import GapRates, draw_gaps, scenes, write_dataset
from curator.example.flowers import CLASSES
from curator.example.gaps import GAPS
from store.records import Role


def test_gaps_are_absent_from_train_rare_in_pool_and_frequent_in_mine() -> None:
    roles: tuple[Role, ...] = ("train", "pool", "mine", "holdout")
    counts = {role: Counter(draw_gaps(role, 4000, 0, GapRates())) for role in roles}
    assert counts["train"] == {None: 4000}
    for gap in GAPS:
        assert counts["pool"][gap] == 60
        assert counts["mine"][gap] == counts["holdout"][gap] == 520
    assert counts["mine"][None] == 880
    assert draw_gaps("mine", 400, 0, GapRates()) != draw_gaps("mine", 400, 1, GapRates())
    assert len(draw_gaps("mine", 4, 0, GapRates())) == 4


def test_written_data_reads_back_as_rendered(tmp_path: Path) -> None:
    folders = write_dataset(tmp_path, sizes={"train": 3, "mine": 8}, seed=5)
    assert set(folders) == {"train", "mine"}
    source = CocoFormat().open(folders["mine"])
    assert source.categories == CLASSES
    items = list(source.items)
    assert len(items) == source.count == 8
    for item, scene in zip(items, scenes("mine", 8, seed=5), strict=True):
        assert isinstance(item, LabelledImage)
        assert item.annotations is not None
        assert [(a.category, a.box) for a in item.annotations] == [
            (a.category, a.box) for a in scene.annotations
        ]
        assert [dict(a.attributes) for a in item.annotations] == [
            dict(a.attributes) for a in scene.annotations
        ]
        assert dict(item.tags) == dict(scene.tags)
        stored = np.asarray(Image.open(item.path)).astype(int)
        assert np.abs(stored - scene.pixels).mean() < 4  # JPEG
    assert {path.suffix for path in (folders["mine"] / "images").iterdir()} == {".jpg"}


def test_file_names_and_headers_do_not_betray_a_gap(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, sizes={"mine": 12}, seed=1)["mine"]
    for path in (folder / "images").iterdir():
        assert not any(gap in path.name for gap in GAPS)
        with Image.open(path) as image:
            assert image.size == (192, 192)
            assert image.getexif() == {}


def test_a_finished_role_is_kept_and_a_changed_one_rendered_anew(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, sizes={"mine": 2}, seed=1)["mine"]
    file = folder / "annotations.json"
    before = file.stat().st_mtime_ns
    write_dataset(tmp_path, sizes={"mine": 2}, seed=1)
    assert file.stat().st_mtime_ns == before
    write_dataset(tmp_path, sizes={"mine": 3}, seed=1)
    assert len(json.loads(file.read_text())["images"]) == 3
    assert not (tmp_path / ".mine.part").exists()


@pytest.mark.parametrize(
    "arguments", [{"sizes": {"test": 3}}, {"sizes": {"mine": -1}}, {"sizes": {"mine": 1}, "size": 20}]
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        write_dataset(tmp_path, **arguments)  # type: ignore[arg-type]
