"""Every code block of the README is run, as a user would, on a little of the built-in example's data.

The blocks of `curator` commands and of Python are run line by line in this process, in a folder where what
they name exists: data, the shipped detector as detector.safetensors, a tiny inpainter with random weights.
Numbers of steps and samples are made smaller here, nothing else. The set-up blocks make a virtual environment
and download packages: .ci/run does that, here their text is compared with it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from curator.cli.app import main
from curator.example.dataset import GapRates, write_dataset
from store.store import Store

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
SMALLER = {
    "--selection query --budget 50": "--selection query --budget 1 --attempts 16 --batch-size 2",
    "--arms nothing,query,synthesis": "--arms nothing,query,synthesis --steps 1 --batch-size 2",
    "curator -w ws explain ": "curator -w ws explain --successes 3 --segments 40 --samples 8 ",
    "samples=16": "samples=8, segments=40, successes=3",
    "budget=50": "budget=1, attempts=16, batch_size=2",
    "VerifyConfig(": "VerifyConfig(steps=1, batch_size=2, ",
}


def blocks(language: str, *, setup: bool = False) -> list[str]:
    """The README's blocks of one language; those that set up a machine apart."""
    return [text for name, text in BLOCKS if name == language and ("pip install" in text) == setup]


def smaller(text: str) -> str:
    for said, instead in SMALLER.items():
        text = text.replace(said, instead)
    return text


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/train, field, pool and test in COCO format."""
    folder = tmp_path_factory.mktemp("readme")
    sizes = {"train": 12, "mine": 10, "pool": 14, "holdout": 8}
    made = write_dataset(folder / "made", sizes=sizes, seed=3, rates=GapRates(pool=0.1))
    for role, name in {"train": "train", "mine": "field", "pool": "pool", "holdout": "test"}.items():
        (folder / "data").mkdir(exist_ok=True)
        shutil.move(made[role], folder / "data" / name)
    return folder / "data"


@pytest.fixture
def place(tmp_path: Path, rendered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the README's blocks are run in."""
    (tmp_path / "data").symlink_to(rendered)
    shutil.copy(ROOT / "curator/example/weights/detector.safetensors", tmp_path / "detector.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(block: str) -> list[list[str]]:
    """The lines of a shell block as words, comments left out."""
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def test_every_block_is_known() -> None:
    """A block of another kind would be run by nobody."""
    assert sorted(name for name, _ in BLOCKS) == ["", "python", "sh", "sh", "sh", "sh", "sh"]
    assert len(blocks("sh", setup=True)) == 2
    for said in SMALLER:
        assert README.count(said) == 1, said


def test_the_setup_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    job, tests = blocks("sh", setup=True)
    for block in (job, tests):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")
    assert 'pip" install -q -c constraints.txt -e ".[test]"' in ci
    assert '-c constraints.txt -e ".[test]" && .venv/bin/pytest\n' in tests
    assert job.endswith(". && .venv/bin/curator demo\n")


def test_the_command_lines_mend_a_detector(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands(smaller("".join(blocks("sh")))):
        assert words[0] == "curator"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert end.value.code in (0, None), f"{' '.join(words)}: {shown.err}"
    with Store.open(place / "ws") as store:
        stages = ("add", "detect", "diagnose", "suspects", "explain", "index", "query", "synthesize")
        stages = (*stages, "export", "verify")
        done = {run.stage: run.status for run in store.runs()}
        assert done == dict.fromkeys((*stages, "report"), "done")
        assert any(sample.accepted for sample in store.samples())
    assert (place / "report.html").stat().st_size > 10_000
    assert json.loads((place / "augmented" / "manifest.json").read_text())


def test_the_python_block_mends_a_detector(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    exec(compile(smaller(block), "README.md", "exec"), {})
    assert "query" in capsys.readouterr().out
    assert (place / "augmented" / "manifest.json").exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []
