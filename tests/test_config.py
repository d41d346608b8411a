"""Every number of every stage's configuration has a range, and nan is in none."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curator.cli import app
from curator.config import ReportConfig, StageConfig
from curator.data.settings import AddConfig, ExportConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig
from curator.errors import ConfigError
from curator.explain.settings import ExplainConfig
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import IndexConfig, QueryConfig
from curator.synthesize.settings import SynthesizeConfig

REQUIRED: dict[type[StageConfig], dict[str, object]] = {
    AddConfig: {"format": "coco", "path": Path("data"), "role": "pool"},
    DetectConfig: {"detector": "builtin:"},
    DiagnoseConfig: {},
    ExplainConfig: {},
    ExportConfig: {"format": "coco", "out": Path("out")},
    IndexConfig: {},
    QueryConfig: {},
    ReportConfig: {},
    SynthesizeConfig: {},
    TrainConfig: {"detector": "builtin:", "out": Path("out")},
    VerifyConfig: {},
}


def numbers() -> list[tuple[type[StageConfig], str, float]]:
    """(configuration, field, a value that no numeric field takes)."""
    found: list[tuple[type[StageConfig], str, float]] = []
    for kind in REQUIRED:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            taken = set(typing.get_args(hints[field.name])) or {hints[field.name]}
            if float in taken:
                found += [(kind, field.name, value) for value in (-1.0, math.nan, math.inf)]
            elif int in taken:
                found.append((kind, field.name, -1))
    return found


@pytest.mark.parametrize(("kind", "name", "value"), numbers())
def test_a_number_outside_its_range_is_refused_by_name(
    kind: type[StageConfig], name: str, value: float
) -> None:
    kind(**REQUIRED[kind])  # type: ignore[arg-type]
    wrong = (value,) if name in ("budgets", "seeds", "unlike") else value
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, got "):
        kind(**REQUIRED[kind], **{name: wrong})  # type: ignore[arg-type]


TRAIN = ["train", "--detector", "builtin:", "--out", "weights.safetensors"]


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "--budget", "-1"],
        ["verify", "--budget", "0"],
        ["verify", "--score-threshold", "2"],
        ["verify", "--score-threshold", "0"],
        ["verify", "--iou-threshold", "0"],
        ["verify", "--iou-threshold", "nan"],
        ["verify", "--steps", "0"],
        ["verify", "--batch-size", "0"],
        ["verify", "--added-weight", "-1"],
        ["verify", "--added-weight", "nan"],
        ["verify", "--added-weight", "0"],
        ["verify", "--learning-rate", "0"],
        ["index", "--batch-size", "0"],
        ["index", "--components", "0"],
        ["report", "--failures-per-cause", "-1"],
        ["diagnose", "--low-score", "nan"],
        ["diagnose", "--low-score", "1"],
        [*TRAIN, "--learning-rate", "nan"],
        [*TRAIN, "--learning-rate", "0"],
        [*TRAIN, "--weight-decay", "nan"],
        [*TRAIN, "--zoom", "0.5"],
        [*TRAIN, "--steps", "0"],
        ["query", "--budget", "0"],
        ["synthesize", "--budget", "0"],
        ["synthesize", "--steps", "0"],
    ],
    ids=lambda command: " ".join([command[0], *command[-2:]]),
)
def test_the_command_line_refuses_before_any_work(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["-w", str(tmp_path / "no-workspace"), *command])
    error = result.exception
    assert isinstance(error, ConfigError), error  # that the workspace is absent would be another error
    assert error.exit_code == 2
    name = command[-2].removeprefix("--").replace("-", "_")
    assert str(error).startswith(f"{name}: expected")
    assert "\n" not in str(error)


def test_training_seeds_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"^seeds: expected one or more"):
        VerifyConfig(seeds=())
