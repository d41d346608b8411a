"""`command:PROGRAM ...`: any program that trains on a folder and writes weights.

    --trainer 'command:python train.py --data {dataset} --init {weights} --out {out} --seed {seed}'
    --trainer-format yolo --trained 'onnx:{out}/best.onnx' --init best.pt

The words of the command are split as a shell would split them, and then filled; no shell runs. Known places:

    {dataset}   yolo: data.yaml; coco, voc: the folder. Added images lie beside the original ones
    {weights}   the initial weights        {out}   an empty folder for what the program writes
    {spec}      the detector's spec
    {steps} {epochs} {batch} {learning_rate} {seed} {device}   epochs: what {steps} make, at least 1

What the program prints goes to `log.txt` beside {out}. It is stopped, with all that it started, by Ctrl-C and
after the time-out; what a killed curator left running is stopped before its training starts anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from curator.detect.base import Detector
from curator.detect.load import load_detector
from curator.errors import CuratorError, InputError, StageError, one_line
from curator.page import Pixels
from curator.progress import say
from curator.prove.trainers.agreement import check_agreement
from curator.prove.trainers.base import Trained, TrainerSettings
from curator.prove.training_data import TrainingFiles, TrainingRecipe, write_dataset
from curator.registry import FORMATS, Spec

PLACES = ("dataset", "weights", "spec", "out", "steps", "epochs", "batch", "learning_rate", "seed", "device")
_PLACE = re.compile(r"\{(\w*)\}")
_OF_THE_START = ("trust_pickle", "classes", "seed")  # options that say how initial weights are made or read
_SOURCES = (".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini")
_GRACE = 10.0  # seconds between asking a program to stop and killing it
_KILLED = 2.0  # seconds that a killed one may take to be gone
_TAIL = 3  # lines of the log in an error


class CommandTrainer:
    """See `curator.prove.trainers.base.Trainer`."""

    default_weight = 1.0

    def __init__(self, text: str, settings: TrainerSettings, *, own: bool = False) -> None:
        """Read the command.

        Args:
            own: a program of curator, which starts from the detector's own file.
        Raises:
            InputError: an empty one, an unknown place, no {dataset} or {out}, no --trained, an odd format.
        """
        self.settings = settings
        self.words = _words(text)
        places = {name for word in self.words for name in _PLACE.findall(word)}
        unknown = sorted(places - set(PLACES))
        if unknown:
            raise InputError(
                f"--trainer: expected the places {', '.join(f'{{{p}}}' for p in PLACES)} in the command, got "
                + ", ".join(f"{{{name}}}" for name in unknown)
            )
        if missing := sorted({"dataset", "out"} - places):
            raise InputError(
                f"--trainer: the command lacks {', '.join(f'{{{name}}}' for name in missing)}: it must be "
                "told where the training images lie and where to write"
            )
        if "{out}" not in settings.trained:
            raise InputError(
                "--trained: expected the spec of the detector that the command writes, with {out} in it, "
                f"such as 'onnx:{{out}}/best.onnx', got {settings.trained!r}"
            )
        FORMATS.load(settings.format)
        self.own = own
        self.needs_weights = "weights" in places

    def identity(self) -> Any:
        """Command, format, what is written, and the bytes of the initial weights and of scripts and settings
        that the command names: an edited one trains anew."""
        named = [] if self.own else [w for w in self.words[1:] if Path(w).suffix.lower() in _SOURCES]
        own = [file_digest(word) for word in named]
        return [
            "command",
            own,
            self.words[1:] if self.own else self.words,  # which Python runs our program changes nothing
            self.settings.format,
            self.settings.trained,
            file_digest(self.settings.init) or self.settings.init,
        ]

    def check(self, detector: Detector, images: Sequence[Pixels], device: str) -> None:
        """Is there the program, and do the initial weights answer as the diagnosed detector does?

        Raises:
            InputError: no such program, no file of initial weights, or other answers.
        """
        program = self.words[0]
        if shutil.which(program) is None:
            raise InputError(f"--trainer: found no program {program!r}; is it installed and on PATH?")
        names = [name.strip() for name in detector.classes]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(
                f"{detector.spec}: has several classes called {', '.join(twice)}, which no data set can "
                "tell apart"
            )
        if not self.needs_weights and not Path(self.settings.init or "/").is_file():
            say(
                "--trainer: the command has no {weights}, and --init names no file: whether it starts "
                "from the diagnosed detector is not checked"
            )
            return
        init = self._init(detector)
        spec = self.settings.init_detector or self._read_as(init, detector)
        if spec == detector.spec:
            if Path(Spec.parse(spec).name).resolve() != init.resolve():
                say(f"--init {init}: is not compared, since --init-detector is the diagnosed detector itself")
            return
        check_agreement(detector, load_detector(spec, device), images, init=str(init))

    def _init(self, detector: Detector) -> Path:
        path = Path(self.settings.init or Spec.parse(detector.spec).name)
        if not path.exists():
            raise InputError(
                f"--init: expected the file of the initial weights, got {str(path)!r}, which does not exist"
                if self.settings.init
                else f"--init: {detector.spec} names no file; say which weights the command starts from"
            )
        return path.absolute()

    def _read_as(self, init: Path, detector: Detector) -> str:
        """The spec that reads the initial weights."""
        own = Spec.parse(detector.spec)
        if own.name and Path(own.name).exists() and Path(own.name).resolve() == init.resolve():
            return detector.spec
        written = Spec.parse(self.settings.trained)
        if Path(written.name).suffix == init.suffix:
            return self.settings.trained.replace(written.name, str(init), 1)
        raise InputError(
            f"--init {init}: cannot be compared with the diagnosed detector, since --trained reads "
            f"{Path(written.name).suffix or 'folders'}; say how to read it by --init-detector SPEC, such as "
            "the ONNX export of the same weights"
        )

    def train(
        self,
        detector: Detector,
        files: TrainingFiles,
        out: Path,
        *,
        recipe: TrainingRecipe,
        seed: int,
        device: str,
    ) -> Trained:
        """Write the data set, run the command, load what it wrote.

        Raises:
            StageError: it failed, took too long, or wrote no detector with these classes.
        """
        _stop_left_behind(out / "process")
        shutil.rmtree(out, ignore_errors=True)
        written = out / "out"
        written.mkdir(parents=True)
        dataset, count = write_dataset(out / "dataset", files, detector.classes, self.settings.format)
        epochs = max(1, round(recipe.steps * recipe.batch_size / max(count, 1)))
        places = {
            "dataset": str(dataset.absolute()),
            "weights": str(self._init(detector)) if self.needs_weights else "",
            "spec": detector.spec,
            "out": str(written.absolute()),
            "steps": str(recipe.steps),
            "epochs": str(epochs),
            "batch": str(recipe.batch_size),
            "learning_rate": f"{recipe.learning_rate:g}",
            "seed": str(seed),
            "device": device,
        }
        start = time.monotonic()
        try:
            run(filled(self.words, places), log=out / "log.txt", timeout=self.settings.timeout)
        finally:
            shutil.rmtree(out / "dataset", ignore_errors=True)
        spec = self.settings.trained.replace("{out}", places["out"])
        if self.own:
            spec += _kept_options(detector.spec)
        trained = self._loaded(spec, detector, device, out / "log.txt")
        figures = {
            "fingerprint": trained.fingerprint,
            "dataset_images": count,
            **(
                {"iterations": epochs * -(-count // recipe.batch_size)}
                if any("{epochs}" in word for word in self.words)
                else {}
            ),
            "command_seconds": round(time.monotonic() - start, 2),
        }
        return Trained(trained, spec, figures)

    def _loaded(self, spec: str, detector: Detector, device: str, log: Path) -> Detector:
        path = Path(Spec.parse(spec).name)
        if not path.exists():
            raise StageError(
                f"the trainer ended well but wrote no {path}, which --trained names; its log is {log}: "
                f"{tail(log)}"
            )
        try:
            trained = load_detector(spec, device)
        except CuratorError as error:
            raise StageError(f"the trainer's detector cannot be loaded: {one_line(error)}") from error
        if sorted(name.strip() for name in trained.classes) != sorted(c.strip() for c in detector.classes):
            raise StageError(
                f"the trainer wrote a detector of other classes: expected {', '.join(detector.classes)}, "
                f"got {', '.join(trained.classes)}"
            )
        return trained


def _kept_options(spec: str) -> str:
    """Options of a detector that hold for the trained one too, as the end of a spec."""
    options = Spec.parse(spec).options
    kept = {name: value for name, value in options.items() if name not in _OF_THE_START}
    return "?" + urlencode(kept) if kept else ""


def file_digest(name: str) -> str:
    """Hash of the file that a word names; "" where it names none."""
    path = Path(name)
    with contextlib.suppress(OSError, ValueError):
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text.partition(":")[2])
    except ValueError as error:
        raise InputError(f"--trainer: the command cannot be split into words ({error}): {text}") from error
    if not words:
        raise InputError("--trainer: expected command:PROGRAM and its arguments, got no program")
    return words


def filled(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """The words of a command with their places filled."""
    return [_PLACE.sub(lambda found: places[found.group(1)], word) for word in words]


def run(command: Sequence[str], *, log: Path, timeout: float = 0.0) -> None:
    """Run a program in a process group of its own, its output into `log`.

    Raises:
        StageError: it could not be started, did not end well, or took more than `timeout` seconds (0: any).
        KeyboardInterrupt: after it was stopped.
    """
    note = log.with_name("process")
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise StageError(f"the trainer could not be started: {command[0]}: {error.strerror}") from error
        own = os.getpid()
        note.write_text(f"{process.pid} {_started(process.pid)} {own} {_started(own)}", encoding="utf-8")
        try:
            code = process.wait(timeout=timeout or None)
        except subprocess.TimeoutExpired:
            _stop(process.pid)
            process.wait()
            raise StageError(
                f"the trainer took more than {timeout:g} s and was stopped; its log is {log}: {tail(log)}"
            ) from None
        except BaseException:
            _stop(process.pid)
            process.wait()
            raise
    note.unlink(missing_ok=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left in the background
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"
        raise StageError(f"the trainer ended with {how}; its log is {log}: {tail(log)}")


def tail(log: Path) -> str:
    """The last lines of a log, as one."""
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return " | ".join(lines[-_TAIL:])[-400:] or "(empty)"
    return "(unreadable)"


def _stop(group: int) -> None:
    """Ask a process group to stop, wait, kill what is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGINT)
        end = time.monotonic() + _GRACE
        try:
            while time.monotonic() < end:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(group, os.WNOHANG)
                os.killpg(group, 0)
                time.sleep(0.05)
        finally:  # a second Ctrl-C too
            os.killpg(group, signal.SIGKILL)
        end = time.monotonic() + _KILLED
        while time.monotonic() < end:  # until it is gone
            with contextlib.suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
            os.killpg(group, 0)
            time.sleep(0.02)


def _started(pid: int) -> str:
    """When a process started, so that another one of the same number is not taken for it; "" where the
    system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _stop_left_behind(note: Path) -> None:
    """Stop what a killed curator left running in this folder."""
    with contextlib.suppress(OSError, ValueError):
        pid, started, owner, since = note.read_text(encoding="utf-8").split(" ")
        if since and _started(int(owner)) == since and int(owner) != os.getpid():
            raise StageError(
                f"another curator (process {owner}) trains this just now; wait for it, or stop it"
            )
        if started and _started(int(pid)) == started:
            _stop(int(pid))
            note.unlink(missing_ok=True)


def stop_left_behind(training: Path) -> None:
    """Stop the programs of killed curators.

    Args:
        training: folder of a workspace's trainings.
    """
    for note in training.glob("**/process"):
        with contextlib.suppress(StageError):
            _stop_left_behind(note)
