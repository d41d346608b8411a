"""Reading a loop's TOML file: everything is checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from curator.data.settings import AddConfig
from curator.errors import ConfigError
from curator.pipeline.loop import read_plan


def write(folder: Path, text: str) -> Path:
    path = folder / "loop.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_steps_come_in_the_loops_order_whatever_the_files(tmp_path: Path) -> None:
    plan = read_plan(
        write(
            tmp_path,
            """
        workspace = "ws"
        [query]
        budget = 7
        [detect]
        detector = "onnx:{here}/model.onnx?decode=yolox"
        [[export]]
        format = "coco"
        out = "a"
        [[export]]
        format = "yolo"
        out = "/b"
    """,
        )
    )
    assert [step.stage for step in plan.steps] == ["detect", "query", "export", "export"]
    assert plan.workspace == tmp_path / "ws"
    assert plan.steps[0].config.detector == f"onnx:{tmp_path}/model.onnx?decode=yolox"  # type: ignore[attr-defined]
    assert [step.config.out for step in plan.steps[2:]] == [tmp_path / "a", Path("/b")]  # type: ignore[attr-defined]


def test_seed_and_device_are_defaults_of_every_stage(tmp_path: Path) -> None:
    plan = read_plan(
        write(tmp_path, 'seed = 5\ndevice = "cpu"\n[query]\n[detect]\ndetector = "builtin:"\nseed = 6\n')
    )
    assert [step.config.seed for step in plan.steps] == [6, 5]
    assert {step.config.device for step in plan.steps} == {"cpu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[detct]\n", "unknown table detct"),
        ("[query]\nbudget = 0\n", "expected at least 1, got 0"),
        ("[query]\nbudgets = 3\n", "unknown key budgets"),
        ('[query]\nbudget = "many"\n', "expected int, got 'many'"),
        ('[query]\nmethod = "magic"\n', "expected one of class-uncertainty"),
        ("[detect]\n", "detector"),
        ("seed = 3\n", "no stage"),
        ("[query\n", "not valid TOML"),
        ("query = 3\n", "expected a table"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_plan(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_plan(tmp_path / "absent.toml")


def test_the_command_lines_workspace_wins(tmp_path: Path) -> None:
    path = write(tmp_path, 'workspace = "ws"\n[query]\n')
    assert read_plan(path, workspace=tmp_path / "other").workspace == tmp_path / "other"


def test_a_data_set_begins_at_the_file_and_a_bucket_where_it_is(tmp_path: Path) -> None:
    text = """
        [[add]]
        format = "coco"
        path = "data/train"
        images = "../pictures"
        role = "train"

        [[add]]
        format = "coco"
        path = "s3://bucket/mine"
        role = "mine"
        """
    train, mine = (step.config for step in read_plan(write(tmp_path, text)).steps)
    assert isinstance(train, AddConfig)
    assert isinstance(mine, AddConfig)
    assert train.path == tmp_path / "data" / "train"
    assert Path(train.images or "").resolve() == (tmp_path.parent / "pictures").resolve()
    assert mine.path == "s3://bucket/mine"
