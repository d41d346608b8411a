"""A YOLO11n, trained from scratch on the built-in example, goes through the whole loop from the command line.

    python benchmarks/yolo_loop.py [--work FOLDER] [--out FILE.json] [--epochs 24] [--seeds 0,1]

Everything is the user's own command: `curator example render`, the plain program docs/examples/train_yolo.py
for the base, then add, detect --trust-pickle, diagnose, explain, index, query, export yolo, and `verify`
twice: with `--trainer ultralytics:` and with `--trainer command:` around the same plain program. The second
is killed in the middle (SIGKILL) and run again; its table must equal that of a third run in a copy of the
workspace that was never disturbed.

Claims: every command ends with 0; the killed verification ends with the undisturbed one's figures; the export
loads in Ultralytics with as many images and objects as curator says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import commands
from commands import CURATOR
from environment import machine, versions

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "docs" / "examples" / "train_yolo.py"
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
SIZE = 192


def shell(command: list[str], folder: Path) -> str:
    """Run a command to its end, offline; its stdout."""
    return commands.shell(command, folder, **OFFLINE, YOLO_CONFIG_DIR=str(folder))


def base(folder: Path, arguments: argparse.Namespace) -> None:
    """Scenes, and a network trained on the clean ones."""
    if not (folder / "data").exists():
        sizes = {"train": 200, "mine": 100, "pool": 300, "holdout": 150}
        options = [word for name, count in sizes.items() for word in (f"--{name}", str(count))]
        shell([*CURATOR, "example", "render", "data", *options], folder)
    if (folder / "base" / "best.pt").exists():
        return
    scenes = folder / "scenes"
    shutil.rmtree(scenes, ignore_errors=True)
    shell([*CURATOR, "-w", "scenes", "init"], folder)
    shell([*CURATOR, "-w", "scenes", "add", "coco", "data/train", "--role", "train"], folder)
    shell([*CURATOR, "-w", "scenes", "export", "yolo", "plain"], folder)
    data = folder / "plain" / "data.yaml"
    shell(program("yolo11n.yaml", data, folder / "base", arguments.epochs, 0.002), folder)


def program(init: str, data: Path, out: Path, epochs: int, rate: float) -> list[str]:
    """The plain program."""
    words = {
        "--data": data,
        "--init": init,
        "--out": out,
        "--epochs": epochs,
        "--size": SIZE,
        "--learning-rate": rate,
    }
    return [sys.executable, str(PROGRAM), *(str(w) for pair in words.items() for w in pair)]


def mined(folder: Path) -> None:
    """From images to a selection and an export."""
    if (folder / "ws" / "workspace.json").exists():
        return
    curator = [*CURATOR, "-w", "ws"]
    shell([*curator, "init"], folder)
    for role in ("train", "mine", "pool", "holdout"):
        shell([*curator, "add", "coco", f"data/{role}", "--role", role], folder)
    shell([*curator, "detect", "--detector", "ultralytics:base/best.pt", "--trust-pickle"], folder)
    shell([*curator, "diagnose", "--score-threshold", "0.3"], folder)
    shell([*curator, "explain", "--failures", "FN", "--samples", "4", "--segments", "60"], folder)
    shell([*curator, "index"], folder)
    shell([*curator, "query", "--budget", "40"], folder)
    shell([*curator, "export", "yolo", "augmented", "--selection", "query"], folder)


def loaded(folder: Path) -> dict[str, int]:
    """The export as Ultralytics reads it."""
    code = (
        "import sys, json; from ultralytics.data.dataset import YOLODataset; "
        "from ultralytics.data.utils import check_det_dataset; from pathlib import Path; "
        "d = check_det_dataset(str(Path('augmented/data.yaml').absolute())); "
        "s = YOLODataset(img_path=d['train'], data=d, augment=False, task='detect'); "
        "print(json.dumps({'images': len(s), 'objects': sum(len(l['cls']) for l in s.labels)}))"
    )
    found: dict[str, int] = json.loads(shell([sys.executable, "-c", code], folder).splitlines()[-1])
    return found


def verify_words(name: str, trainer: list[str], arguments: argparse.Namespace) -> list[str]:
    """A verification's command line after the workspace."""
    common = ["--arms", "nothing,random,query", "--budget", "40", "--seeds", arguments.seeds]
    training = ["--steps", str(arguments.steps), "--batch-size", "16", "--learning-rate", "0.0005"]
    return ["verify", "--name", name, *common, *training, "--score-threshold", "0.3", *trainer, "--json"]


def killed_and_resumed(workspace: str, words: list[str], folder: Path) -> dict[str, Any]:
    """Kill a verification once its second trial is under way, then run it to its end."""
    environment = {**os.environ, **OFFLINE, "YOLO_CONFIG_DIR": str(folder)}
    process = subprocess.Popen(
        [*CURATOR, "-w", workspace, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    training, seen = folder / workspace / "training", set()
    while len(seen) < 2 and process.poll() is None:
        seen |= {path.parent.name for path in training.glob("*/process")}
        time.sleep(0.2)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed in its trial {len(seen)}", flush=True)
    found: dict[str, Any] = json.loads(shell([*CURATOR, "-w", workspace, *words], folder))
    return found


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("~/.cache/curator-bench/yolo-loop"))
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=60, help="of every retraining")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    folder = arguments.work.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    base(folder, arguments)
    mined(folder)
    manifest = json.loads((folder / "augmented" / "manifest.json").read_text())
    counted = loaded(folder)
    written = {
        "images": sum("lineage" in entry for entry in manifest["files"]),
        "objects": sum(
            len(path.read_text().splitlines()) for path in (folder / "augmented" / "labels").glob("*/*.txt")
        ),
    }
    tables: dict[str, Any] = {}
    words = verify_words("theirs", ["--trainer", "ultralytics:"], arguments)
    tables["ultralytics:"] = json.loads(shell([*CURATOR, "-w", "ws", *words], folder))
    place = "--data {dataset} --init {weights} --out {out} --epochs {epochs} --batch {batch} --seed {seed}"
    command = f"command:{sys.executable} {PROGRAM} {place} --learning-rate {{learning_rate}} --size {SIZE}"
    trainer = ["--trainer", command, "--trained", "onnx:{out}/best.onnx", "--init", "base/best.pt"]
    words = verify_words("plain", trainer, arguments)
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "ws", copy)
    tables["command:"] = killed_and_resumed("ws", words, folder)
    whole = json.loads(shell([*CURATOR, "-w", "copy", *words], folder))
    for name, found in tables.items():
        print(name)
        for row in [found["columns"], *found["rows"]]:
            print("  " + "  ".join(f"{cell:>22s}" for cell in row))
        print("  " + found.get("advice", ""))
    claims = [
        {
            "claim": "export: images and objects that Ultralytics reads",
            "value": counted,
            "ok": counted == written,
        },
        {
            "claim": "killed and resumed: the same arms",
            "value": None,
            "ok": tables["command:"]["arms"] == whole["arms"],
        },
    ]
    for claim in claims:
        print("ok  " if claim["ok"] else "MISS", claim["claim"], claim["value"])
    if arguments.out:
        facts = ("columns", "rows", "arms", "advice")
        kept = {name: {fact: table.get(fact) for fact in facts} for name, table in tables.items()}
        result = {
            "claims": claims,
            "tables": kept,
            "read": counted,
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "versions": versions(),
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
