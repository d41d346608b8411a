"""What `--executor` may be, and what is said of anything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curator.cli.app import app, main
from curator.errors import InputError
from curator.jobs import choose
from curator.jobs.choose import open_executor

LOADED = """
import sys
from curator.jobs.choose import open_executor
import curator.cli, curator.jobs.ray, curator.jobs.stage
with open_executor("local"), open_executor("ray?actors=2&timeout=9") as executor:
    assert list(executor.run(type("Work", (), {"batch_size": 1})(), [])) == []
print([name for name in ("ray", "torch") if name in sys.modules])
"""


def test_local_is_the_stages_own() -> None:
    with open_executor("local", "cuda:1") as executor:
        assert executor is None


def test_nothing_is_loaded_before_there_is_work() -> None:
    pytest.importorskip("ray", reason='pip install "curator[ray]"')
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Ray", "expected local, ray or ray://HOST:PORT"),
        ("", "expected local, ray or ray://HOST:PORT"),
        ("local?actors=2", "expected local, ray or ray://HOST:PORT"),
        ("ray:", "expected local, ray or ray://HOST:PORT"),
        ("ray://", "expected local, ray or ray://HOST:PORT"),
        ("dask://127.0.0.1:1", "expected local, ray or ray://HOST:PORT"),
        ("ray://head", "expected ray://HOST:PORT, the address that `ray start` printed"),
        ("ray://head:http", "expected ray://HOST:PORT, the address that `ray start` printed"),
        ("ray://head:70000", "expected ray://HOST:PORT, the address that `ray start` printed"),
        ("ray?workers=2", "expected the options actors and timeout, got workers"),
        ("ray?actors=0", "expected actors=N with a whole number of 1 or more, got actors=0"),
        ("ray?actors=", "expected actors=N with a whole number of 1 or more, got actors="),
        ("ray?timeout=-1", "expected timeout=N with a whole number of 0 or more, got timeout=-1"),
        ("ray?actors=1&actors=2", "expected every setting once, got actors more often"),
    ],
)
def test_anything_else_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        open_executor(spec)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'run pip install "curator\[ray\]"'):
        open_executor("ray")


def test_one_gpu_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda name: True)
    with pytest.raises(InputError, match=r"Ray gives out the GPUs; use --device cuda, auto or cpu"):
        open_executor("ray", "cuda:1")


@pytest.mark.parametrize("command", ["detect", "explain", "index", "synthesize"])
def test_the_commands_that_take_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["--detector", "builtin:"] if command == "detect" else []
    arguments = ["curator", "-w", str(tmp_path), command, *needed, "--executor", "rey"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert (end.value.code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("error: --executor: expected local, ray or ray://HOST:PORT")
    assert command in {known.name for known in app.registered_commands}
