"""A user's training program, as `--trainer command:` runs it: YOLO data in, a safetensors detector out.

python own_program.py DATA.yaml WEIGHTS OUT STEPS SEED [--fail-once FILE | --sleep S | --nothing]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curator.prove.trainers.fine_tune import Example


class Folder:
    """Images and labels of a YOLO data set."""

    def __init__(self, file: Path) -> None:
        import yaml

        table = yaml.safe_load(file.read_text())
        assert table["val"] == table["train"]
        self.images = sorted((Path(table["path"]) / table["train"]).iterdir())
        self.weights = [1.0] * len(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        import numpy as np
        from PIL import Image

        from curator.prove.trainers.fine_tune import Example

        path = self.images[index]
        pixels = np.asarray(Image.open(path).convert("RGB"))
        label = path.parents[2] / "labels" / path.parent.name / f"{path.stem}.txt"
        rows = np.array([line.split() for line in label.read_text().splitlines()], np.float32).reshape(-1, 5)
        scale = np.array([pixels.shape[1], pixels.shape[0]] * 2, np.float32)
        centre, size = rows[:, 1:3] * scale[:2], rows[:, 3:5] * scale[:2]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
        return Example(pixels=pixels, boxes=boxes, labels=rows[:, 0].astype(np.int64))


def main() -> None:
    data, weights, out, steps, seed, *rest = sys.argv[1:]
    option = rest[0] if rest else ""
    print("reading", data, flush=True)
    if option == "--fail-once" and not Path(rest[1]).exists():
        Path(rest[1]).touch()
        print("first line of trouble\nlast line of trouble", file=sys.stderr)
        sys.exit(3)
    if option == "--sleep":
        Path(out, "started").touch()
        time.sleep(float(rest[1]))
    if option == "--nothing":
        return
    import torch

    from curator.detect.load import load_detector
    from curator.prove.trainers.fine_tune import FineTuneConfig, fine_tune

    torch.set_num_threads(1)
    config = FineTuneConfig(steps=int(steps), batch_size=2, seed=int(seed), device="cpu", zoom=0.0)
    trained, _ = fine_tune(load_detector(f"curator:{weights}", "cpu"), Folder(Path(data)), config)
    trained.save(Path(out) / "best.safetensors")
    print("images", len(Folder(Path(data))), flush=True)


if __name__ == "__main__":
    main()
