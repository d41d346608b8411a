"""Commands made from settings: every kind of field becomes the option that a user expects."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from curator.cli.app import app, main
from curator.cli.derive import add_command
from curator.config import StageConfig, option, required, speed_only


@dataclass(frozen=True, kw_only=True)
class Settings(StageConfig):
    """One field of every kind."""

    format: str = required("Format.", argument=True)
    path: Path = required("Path.", argument=True)
    role: Literal["train", "mine"] = required("Role.")
    names: tuple[str, ...] = option((), "Names.", joined=True)
    numbers: tuple[int, ...] = option((1, 2), "Numbers.", joined=True)
    recipes: tuple[str, ...] = option(("a", "b"), "Recipes.", flag="recipe")
    class_map: dict[str, str] = option({}, "Map.", flag="map", metavar="A=B")
    flip: bool = option(True, "Flip.")
    reviewed: bool = option(False, "Reviewed.")
    background: bool | None = option(None, "Background.", flag="background/unlabelled")
    limit: float | None = option(None, "Limit.")
    detector: str | None = option(None, "Detector.")
    batch_size: int = option(8, "Batch.", result=False)
    inner: int = speed_only(3)


def read(*arguments: str) -> Settings:
    """The settings that a command line gives."""
    group, got = typer.Typer(), []
    add_command(group, "one", Settings, lambda config, as_json: got.append(config), help="One.")
    result = CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return got[0]


NEEDED = ("coco", "some/path", "--role", "mine")


def test_nothing_given_is_what_the_dataclass_says() -> None:
    assert read(*NEEDED) == Settings(format="coco", path=Path("some/path"), role="mine")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--names", "car, bus ,"], "names", ("car", "bus")),
        (["--numbers", "0, 7"], "numbers", (0, 7)),
        (["--recipe", "x", "--recipe", "y"], "recipes", ("x", "y")),
        (["--map", "car = Car", "--map", "a=b=c"], "class_map", {"car": "Car", "a": "b=c"}),
        (["--no-flip"], "flip", False),
        (["--reviewed"], "reviewed", True),
        (["--background"], "background", True),
        (["--unlabelled"], "background", False),
        (["--limit", "2"], "limit", 2.0),
        (["--detector", ""], "detector", None),
        (["--batch-size", "1"], "batch_size", 1),
        (["--seed", "5"], "seed", 5),
        (["--device", "cpu"], "device", "cpu"),
    ],
)
def test_an_option_changes_its_field_alone(arguments: list[str], name: str, value: Any) -> None:
    needed: dict[str, Any] = {"format": "coco", "path": Path("some/path"), "role": "mine"}
    assert read(*NEEDED, *arguments) == Settings(**needed | {name: value})


def test_the_help_states_texts_and_defaults_once() -> None:
    group = typer.Typer()
    add_command(group, "one", Settings, lambda config, as_json: None, help="One.", without=("device",))
    shown = CliRunner().invoke(group, ["--help"], env={"COLUMNS": "150"}).output
    for text in ("Numbers. [default: 1,2]", "Batch. [default: 8]", "--no-flip", "A=B", "--json"):
        assert text in shown
    assert "--device" not in shown
    assert "--inner" not in shown  # no help text: a TOML file alone sets it
    assert shown.index("--batch-size") < shown.index("--seed")


def test_settings_without_results_enter_no_key() -> None:
    results = Settings(format="coco", path=Path("p"), role="mine").results()
    assert set(results) == {f.name for f in dataclasses.fields(Settings)} - {"batch_size", "inner", "device"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "--precision", "magic"], "explain: precision: expected one of auto, fp32, bf16"),
        (["query", "--budget", "0"], "budget: expected at least 1, got 0"),
        (["verify", "--seeds", "0,x"], "--seeds: expected whole numbers joined by commas"),
        (["verify", "--seeds", ""], "--seeds: expected whole numbers joined by commas"),
        (["diagnose", "--map", "car"], "--map: expected DETECTOR=CLASS, such as --map car=Car, got 'car'"),
        (["add", "coco", "x", "--role", "both"], "add: role: expected one of train, mine, pool, holdout"),
    ],
)
def test_a_wrong_value_is_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["curator", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert (end.value.code, errors.count("\n")) == (2, 1), errors
    assert message in errors


def test_every_stage_of_a_toml_file_is_a_command() -> None:
    from curator.pipeline.loop import ORDER

    assert set(ORDER) <= {command.name for command in app.registered_commands}
