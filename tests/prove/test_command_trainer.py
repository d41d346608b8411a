"""`--trainer command:`, with a real program in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from curator import pipeline
from curator.cli import app
from curator.data.settings import AddConfig
from curator.detect.load import load_detector
from curator.detect.small_ssd import SsdOptions, make_detector
from curator.errors import InputError, StageError
from curator.example.dataset import write_dataset
from curator.example.flowers import CLASSES
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.prove.trainers.base import TrainerSettings, load_trainer
from curator.prove.trainers.command import run, stop_left_behind
from store.records import ROLES
from store.store import Store

PROGRAM = Path(__file__).with_name("own_program.py")
COMMAND = f"command:{sys.executable} {PROGRAM} {{dataset}} {{weights}} {{out}} {{steps}} {{seed}}"
TRAINED = "curator:{out}/best.safetensors"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with all roles, and the spec of an untrained detector."""
    root = tmp_path_factory.mktemp("command")
    write_dataset(root / "data", sizes=dict.fromkeys(ROLES, 4), seed=3, size=96)
    options = SsdOptions(classes=CLASSES, size=64, channels=(4, 6, 8, 8, 8), anchors=(12.0, 24.0, 40.0, 60.0))
    make_detector(options, seed=0).save(root / "init.safetensors")
    make_detector(options, seed=1).save(root / "other.safetensors")
    with Store.create(root / "ws") as store:
        for role in ROLES:
            pipeline.add(store, AddConfig(format="coco", path=root / "data" / role, role=role))
    return root / "ws", f"curator:{root / 'init.safetensors'}"


def verify_config(spec: str, **fields: Any) -> VerifyConfig:
    common: dict[str, Any] = {
        "detector": spec,
        "arms": ("nothing", "random"),
        "budget": 2,
        "steps": 2,
        "batch_size": 2,
        "score_threshold": 0.1,
        "trainer": COMMAND,
        "trained": TRAINED,
        "device": "cpu",
    }
    return VerifyConfig(**{**common, **fields})


def test_train_runs_the_program_and_keeps_what_it_wrote(workspace: tuple[Path, str], tmp_path: Path) -> None:
    config = TrainConfig(
        detector=workspace[1],
        out=tmp_path / "trained",
        steps=2,
        batch_size=2,
        trainer=COMMAND,
        trained=TRAINED,
        device="cpu",
    )
    with Store.open(workspace[0]) as store:
        first = pipeline.train(store, config)
        second = pipeline.train(store, config)
    assert (first.done, second.skipped) == (1, 1)
    assert first.summary["detector"] == f"curator:{tmp_path / 'trained' / 'best.safetensors'}"
    trained = load_detector(first.summary["detector"], "cpu")
    assert trained.fingerprint == first.summary["fingerprint"] != load_detector(workspace[1]).fingerprint
    assert trained.classes == CLASSES


def test_verify_compares_arms_and_runs_a_failed_trial_alone_again(
    workspace: tuple[Path, str], tmp_path: Path
) -> None:
    flag = tmp_path / "failed"
    config = verify_config(workspace[1], name="own", trainer=f"{COMMAND} --fail-once {flag}")
    with Store.open(workspace[0]) as store:
        first = pipeline.verify(store, config)
        assert (first.done, first.failed) == (1, 1)
        ((_, reason),) = first.failures
        assert "exit code 3" in reason
        assert "first line of trouble | last line of trouble" in reason
        log = next((store.path / "training").glob("*/log.txt"))
        assert "last line of trouble" in log.read_text()
        second = pipeline.verify(store, config)
        assert (second.done, second.skipped, second.failed) == (1, 1, 0)
        trials = store.trials("own")
    assert {trial.arm: trial.metrics["n_added"] for trial in trials} == {"nothing": 0, "random": 2}
    assert {d["figure"] for d in second.summary["differences"]} == {
        "fn_fixed",
        "fp_fixed",
        "broken",
        "new_false_per_image",
        "ap50",
    }


def test_a_failed_training_says_why_and_ends_with_its_code(
    workspace: tuple[Path, str], tmp_path: Path
) -> None:
    program = tmp_path / "fails.py"
    program.write_text("print('no memory for this'); raise SystemExit(7)")
    words = ["-w", str(workspace[0]), "train", "--detector", workspace[1], "--out", str(tmp_path / "out")]
    words += ["--trainer", f"command:{sys.executable} {program} {{dataset}} {{weights}} {{out}}"]
    words += ["--trained", TRAINED, "--steps", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "train: 0 done, 0 already stored, 1 failed" in done.output
    assert "no memory for this" in done.output


def test_a_trainer_that_always_fails_is_not_asked_again_and_again(
    workspace: tuple[Path, str], tmp_path: Path
) -> None:
    program = tmp_path / "fails.py"
    program.write_text("raise SystemExit('no module named torch')")
    words = ["-w", str(workspace[0]), "verify", "--name", "hopeless", "--detector", workspace[1]]
    words += ["--trainer", f"command:{sys.executable} {program} {{dataset}} {{weights}} {{out}}"]
    words += ["--trained", TRAINED, "--steps", "2", "--device", "cpu", "--budget", "2"]
    words += ["--arms", "nothing,random", "--seeds", "0,1,2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "verify: 0 done, 0 already stored, 2 failed" in done.output
    assert "stopped after 2 of 6 trainings, all of which failed" in done.output
    assert "no module named torch" in done.output


def test_added_images_are_written_as_often_as_their_weight(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        pipeline.verify(store, verify_config(workspace[1], name="weighted", added_weight=3.0))
        trials = {trial.arm: trial.metrics for trial in store.trials("weighted")}
    assert trials["nothing"]["training"]["dataset_images"] == 4
    assert trials["random"]["training"]["dataset_images"] == 4 + 2 * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainer": "command:"}, "got no program"),
        ({"trainer": "command:train {dataset} {out} {epoch}"}, r"got \{epoch\}"),
        ({"trainer": "command:train {dataset}"}, r"lacks \{out\}"),
        ({"trained": ""}, "--trained: expected the spec"),
        ({"trainer": "command:no-such-program {dataset} {out}"}, "found no program 'no-such-program'"),
        ({"init": "missing.pt"}, "which does not exist"),
        ({"trainer": "command:'open {dataset} {out}"}, "cannot be split"),
        ({"trainer": "nobody:"}, "choose one of: command"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(
    workspace: tuple[Path, str], changes: dict[str, str], said: str
) -> None:
    with Store.open(workspace[0]) as store, pytest.raises(InputError, match=said):
        pipeline.verify(store, verify_config(workspace[1], name="refused", **changes))


def test_an_edited_script_trains_anew(workspace: tuple[Path, str], tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(PROGRAM.read_text())
    command = COMMAND.replace(str(PROGRAM), str(script))
    config = verify_config(workspace[1], name="edited", arms=("nothing",), trainer=command)
    with Store.open(workspace[0]) as store:
        assert pipeline.verify(store, config).done == 1
        assert pipeline.verify(store, config).skipped == 1
        script.write_text(PROGRAM.read_text() + "# another rate\n")
        assert pipeline.verify(store, config).done == 1


def test_options_of_a_command_are_refused_elsewhere(workspace: tuple[Path, str]) -> None:
    with Store.open(workspace[0]) as store:
        with pytest.raises(InputError, match=r"--trained: only a program that you name takes it"):
            pipeline.verify(store, verify_config(workspace[1], trainer="torchvision:"))
        with pytest.raises(InputError, match=r"a whole number of times, got 0\.5"):
            pipeline.verify(store, verify_config(workspace[1], added_weight=0.5))


def test_other_initial_weights_are_refused(workspace: tuple[Path, str]) -> None:
    other = workspace[0].parent / "other.safetensors"
    with Store.open(workspace[0]) as store:
        with pytest.raises(InputError, match="differ from the diagnosed detector's"):
            pipeline.verify(store, verify_config(workspace[1], init=str(other), score_threshold=0.1))
        with pytest.raises(InputError, match="--init-detector SPEC"):
            pipeline.verify(store, verify_config(workspace[1], init=str(PROGRAM)))
        blind = COMMAND.replace("{weights}", workspace[1].removeprefix("curator:"))
        wanted = verify_config(workspace[1], init=str(other), trainer=blind, score_threshold=0.1)
        with pytest.raises(InputError, match="differ from the diagnosed detector's"):
            pipeline.verify(store, wanted)


def test_a_command_without_weights_is_not_compared_and_says_so(
    workspace: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURATOR_QUIET", raising=False)
    blind = COMMAND.replace("{weights}", workspace[1].removeprefix("curator:"))
    with Store.open(workspace[0]) as store:
        done = pipeline.verify(
            store, verify_config(workspace[1], name="blind", arms=("nothing",), trainer=blind)
        )
    assert done.done == 1
    assert "whether it starts from the diagnosed detector is not checked" in capsys.readouterr().err


def test_a_program_that_changes_nothing_and_an_arm_that_is_short_are_told(
    workspace: tuple[Path, str],
) -> None:
    name = TRAINED.rpartition("/")[2]
    copy = f"import shutil, sys; shutil.copy(sys.argv[2], sys.argv[3] + '/{name}')"
    command = f'command:{sys.executable} -c "{copy}" {{dataset}} {{weights}} {{out}}'
    with Store.open(workspace[0]) as store:
        count = len(store.image_ids(role="pool"))
        wanted = verify_config(workspace[1], name="copied", trainer=command, budget=count + 5)
        warnings = pipeline.verify(store, wanted).summary["warnings"]
    assert any(w.startswith(f"random adds {count} images where {count + 5} were asked") for w in warnings)
    assert any("does the trainer save what it trained?" in w for w in warnings)


def trained_by(command: str, folder: Path, **settings: Any) -> None:
    spec = f"curator:{folder / 'w.safetensors'}"
    options = SsdOptions(classes=CLASSES, size=64, channels=(4, 6, 8, 8, 8), anchors=(12.0, 24.0, 40.0, 60.0))
    make_detector(options, seed=0).save(folder / "w.safetensors")
    detector = load_detector(spec, "cpu")
    trainer = load_trainer(TrainerSettings(spec=command, trained=TRAINED, **settings), detector)
    from curator.prove.training_data import TrainingFiles, TrainingImage, TrainingRecipe
    from store.images import encode_png

    png = encode_png(np.zeros((64, 64, 3), np.uint8))
    image = TrainingImage(sha256="0" * 64, data=png, boxes=((1.0, 1.0, 9.0, 9.0),), labels=(0,))
    recipe = TrainingRecipe(steps=1, batch_size=1, learning_rate=0.001, added_weight=1.0, precision="fp32")
    files = TrainingFiles([image], [], 1.0)
    trainer.train(detector, files, folder / "trial", recipe=recipe, seed=0, device="cpu")


def test_a_program_that_takes_too_long_or_writes_nothing_is_told(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StageError, match=r"took more than 8 s and was stopped; its log is .*log\.txt: "):
        trained_by(f"{COMMAND} --sleep 200", tmp_path, timeout=8.0)
    assert time.monotonic() - start < 60
    with pytest.raises(StageError, match=r"wrote no .*best\.safetensors, which --trained names"):
        trained_by(f"{COMMAND} --nothing", tmp_path)


def test_ctrl_c_reaches_the_program_and_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run(['sleep', '300'])"
    script = (
        "import sys; from pathlib import Path; from curator.prove.trainers.command import run; "
        f"run([sys.executable, '-c', {child!r}], log=Path({str(tmp_path / 'log.txt')!r}))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    note = tmp_path / "process"
    while not note.exists() or not note.read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    group = int(note.read_text().split()[0])
    while not _members(group, "sleep"):
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert parent.returncode != 0
    assert not _members(group, "")


def curator_that_trains(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Another process that runs a program in `folder`, and the program's process group."""
    folder.mkdir()
    script = (
        "import sys; from pathlib import Path; from curator.prove.trainers.command import run; "
        f"run(['sleep', '300'], log=Path({str(folder / 'log.txt')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    note = folder / "process"
    while not note.exists() or not note.read_text():
        time.sleep(0.05)
    return parent, int(note.read_text().split()[0])


def test_what_a_killed_curator_left_running_is_stopped(tmp_path: Path) -> None:
    parent, group = curator_that_trains(tmp_path / "trial")
    parent.kill()
    parent.wait()
    assert _members(group, "sleep")
    trained_by(COMMAND, tmp_path)
    assert not _members(group, "sleep")


def test_a_training_that_another_curator_runs_is_left_alone(tmp_path: Path) -> None:
    parent, group = curator_that_trains(tmp_path / "trial")
    try:
        stop_left_behind(tmp_path)
        assert _members(group, "sleep")
        with pytest.raises(StageError, match=f"another curator .process {parent.pid}. trains this just now"):
            trained_by(COMMAND, tmp_path)
    finally:
        parent.kill()
        parent.wait()
    stop_left_behind(tmp_path)
    assert not _members(group, "sleep")


def _members(group: int, name: str) -> list[int]:
    """Living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")
                state, _, pgrp = fields[2].split()[:3]
                if int(pgrp) == group and state != "Z" and name in fields[0]:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_a_program_that_cannot_start_or_is_killed_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="could not be started: /nowhere/train"):
        run(["/nowhere/train"], log=tmp_path / "log.txt")
    with pytest.raises(StageError, match="signal 9"):
        run(
            [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"],
            log=tmp_path / "log.txt",
        )
    assert not (tmp_path / "process").exists()
    assert os.path.exists(tmp_path / "log.txt")
