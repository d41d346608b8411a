"""A plain training program for `curator verify --trainer command:`; it knows nothing of curator.

    python train_yolo.py --data data.yaml --init base.pt --out FOLDER --epochs 10 --batch 16 [--size 640]

Needs the package ultralytics (AGPL-3.0). Writes FOLDER/best.pt and FOLDER/best.onnx.
"""

import argparse
import shutil
from pathlib import Path

from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--init", required=True, help="a .pt, or a .yaml to begin with fresh weights")
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--size", type=int, default=640)
parser.add_argument("--learning-rate", type=float, default=0.001)
given = parser.parse_args()

model = YOLO(given.init)
model.train(
    data=given.data,
    epochs=given.epochs,
    batch=given.batch,
    imgsz=given.size,
    seed=given.seed,
    optimizer="AdamW",
    lr0=given.learning_rate,
    warmup_bias_lr=0.0,
    nbs=given.batch,
    val=False,
    plots=False,
    amp=False,
    workers=0,
    project=str(given.out.absolute() / "runs"),
    name="train",
)
given.out.mkdir(parents=True, exist_ok=True)
best = given.out / "best.pt"
shutil.copy(given.out / "runs" / "train" / "weights" / "last.pt", best)
YOLO(best).export(format="onnx", imgsz=given.size, opset=17)
shutil.rmtree(given.out / "runs")
