"""The package of docs/plugins.md: built from the page, installed, and every part of it used."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from curator import registry
from curator.cli.app import main
from curator.detect.load import load_detector
from curator.example.dataset import GapRates, write_dataset
from curator.registry import Registry
from curator.synthesize.gate.base import added_checks, checks_alone
from store.store import Store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the page's package."""
    source, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("installed")
    for name, text in FILES:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=120)
    return target


@pytest.fixture
def run(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """`curator WORDS` in a folder of its own, with the package installed; returns what it printed."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)

    def command(text: str) -> str:
        monkeypatch.setattr(sys, "argv", ["curator", "-w", "ws", *text.split()])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert end.value.code in (0, None), f"{text}: {shown.err}"
        return shown.out + shown.err

    return command


def test_every_kind_has_its_part(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    groups = re.findall(r'entry-points\."curator\.([\w-]+)"\]\n([\w-]+) =', PAGE)
    kinds = {value.kind: value for value in vars(registry).values() if isinstance(value, Registry)}
    assert {kind for kind, _ in groups} == set(kinds) - {"indexes"}
    for kind, name in groups:
        assert name in kinds[kind].names()
        assert callable(kinds[kind].load(name))


def test_the_parts_work_together(run: Run, tmp_path: Path) -> None:
    sizes = {"train": 6, "mine": 8, "pool": 8, "holdout": 4}
    made = write_dataset(tmp_path / "data", sizes=sizes, seed=3, rates=GapRates(pool=0.1))
    run("init")
    for role, folder in made.items():
        run(f"add coco {folder} --role {role}")
    run("detect --detector builtin:")
    run("diagnose")
    run("explain --method alone --segments 30 --successes 2")
    run("index --embedder colour:")
    run("query --embedder colour: --method crowded --budget 4")
    run(
        "synthesize --recipe mirrored --inpainter mirror: --strength 0.5 --failures FN "
        "--budget 1 --attempts 6"
    )
    run("export csv out --selection query")
    run("add csv out --role train --dataset back")
    run(
        "verify --arms nothing,small-files,crowded --budget 3 --trainer short: --seeds 0 "
        "--steps 2 --batch-size 2"
    )
    with Store.open(tmp_path / "ws") as store:
        checks = {verdict.check for sample in store.samples() for verdict in sample.verdicts}
        assert checks >= {"light", "label"}


def test_an_installed_check_is_in_the_gate_and_in_its_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert added_checks() == {"light": 1}
    assert checks_alone()[-1].name == "light"
    monkeypatch.setattr(Registry, "_entry_points", lambda self: [])
    assert added_checks() == {}


def test_the_detector_finds(run: Run) -> None:
    image = torch.zeros(3, 40, 60)
    image[:, 10:20, 30:50] = 1
    detector = load_detector("bright:?level=0.9")
    ((found, _),) = detector.predict([image], score_threshold=0.5)
    assert found.boxes.tolist() == [[30, 10, 50, 20]]
