"""A tiny RT-DETR, trained from scratch on the built-in example, in the whole loop; its misses explained.

    python benchmarks/rtdetr_loop.py [--work FOLDER] [--steps 1500] [--seeds 0] [--out FILE.json]

Everything is the user's own command: `curator example render`, `train --trainer hf:` for the base (a model
built here from transformers' own classes, 1.4 million fresh weights), then add, detect, diagnose, explain,
index, query, export coco and `verify` with the same trainer.

Explained misses: queries are drawn from the input, so a miss is followed by its box (the similarity target of
curator/explain/target.py). For every explained miss the segments are ranked by the map; those that lower the
score most, a tenth of the object's surroundings, are replaced by the image's mean, and s is computed anew, as
it is for as many random segments. Claims: every command ends with 0; every explained miss has a finite map
that is not zero; taking away what the map blames raises s more often than random segments do, and by more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import commands
import numpy as np
import torch
from commands import CURATOR
from environment import machine, versions

from curator.detect.load import load_detector
from curator.diagnose.run_current import read_current
from curator.example.flowers import CLASSES
from curator.explain.base import Target
from curator.explain.fills.fill import MeanFill
from curator.explain.target import TargetScores
from curator.tensors import image_tensor
from store.records import SegmentMap
from store.store import Store

SIZES = {"train": 300, "mine": 100, "pool": 300, "holdout": 150}
SIDE = 192
BLAMED, DRAWS = 6, 8  # segments taken away; random draws of as many


def shell(command: list[str], folder: Path) -> str:
    """Run a command to its end, offline; its stdout."""
    return commands.shell(command, folder, HF_HUB_OFFLINE="1")


def fresh(folder: Path) -> Path:
    """A tiny RT-DETR with fresh weights."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    names = dict(enumerate(CLASSES))
    config = RTDetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        encoder_hidden_dim=64,
        encoder_in_channels=[64, 96, 128],
        decoder_in_channels=[64, 64, 64],
        feat_strides=[8, 16, 32],
        d_model=64,
        encoder_layers=1,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=192,
        decoder_ffn_dim=192,
        num_queries=40,
        num_denoising=40,
        freeze_backbone_batch_norms=False,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    model = RTDetrForObjectDetection(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M weights", flush=True)
    model.save_pretrained(folder)
    settings = {"size": {"height": SIDE, "width": SIDE}, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def loop(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The commands; what verify says."""
    if not (folder / "data").exists():
        words = [word for name, count in SIZES.items() for word in (f"--{name}", str(count))]
        shell([*CURATOR, "example", "render", "data", *words], folder)
    curator = [*CURATOR, "-w", "ws"]
    if not (folder / "ws").exists():
        shell([*curator, "init"], folder)
    for role in SIZES:
        shell([*curator, "add", "coco", f"data/{role}", "--role", role], folder)
    trainer = ["--trainer", "hf:", "--batch-size", "16"]
    base = ["--detector", f"hf:{fresh(folder / 'fresh')}", "--out", "base", "--steps", str(arguments.steps)]
    shell([*curator, "train", *trainer, *base, "--learning-rate", "0.001"], folder)
    shell([*curator, "detect", "--detector", "hf:base/model"], folder)
    shell([*curator, "diagnose", "--score-threshold", "0.3"], folder)
    shell([*curator, "explain", "--failures", "FN", "--samples", "16", "--segments", "80"], folder)
    shell([*curator, "index"], folder)
    shell([*curator, "query", "--budget", "40"], folder)
    shell([*curator, "export", "coco", f"augmented-{time.time():.0f}", "--selection", "query"], folder)
    words = ["verify", "--arms", "nothing,random,query", "--budget", "40", "--seeds", arguments.seeds]
    words += ["--steps", str(arguments.retrain), "--learning-rate", "0.0005", "--score-threshold", "0.3"]
    found: dict[str, Any] = json.loads(shell([*curator, *words, *trainer, "--json"], folder))
    return found


def explained(folder: Path) -> list[dict[str, float]]:
    """Per explained miss: s as it is, without what its map blames, and without random segments."""
    rows = []
    with Store.open(folder / "ws") as store:
        current = read_current(store, "benchmark")
        detector = load_detector(current.model.spec, "cpu")
        misses = [o for o in current.outcomes if o.kind == "FN" and o.id in current.attributions]
        maps = {found.outcome_id: found for found in store.attributions()}
        pins = store.detections(
            current.model.id, sorted({o.image_id for o in misses}), config_key=current.detections_key
        )
        images = {i.id: i for i in store.images(reader="explain", ids=sorted(pins))}
        for number, outcome in enumerate(misses):
            assert outcome.id is not None
            found = maps[outcome.id]
            assert isinstance(found.map, SegmentMap)
            assert found.segmentation_id is not None
            phi = np.asarray(found.map.phi, np.float64)
            labels = np.asarray(store.segmentation(found.segmentation_id).labels)
            stored = image_tensor(store.pixels(images[outcome.image_id], reader="explain"))
            u = detector.prepare(stored, pins[outcome.image_id].pin)
            target = Target(
                candidate=outcome.target.candidate,
                label=outcome.target.label,
                kind="log_odds",
                box=outcome.box,
            )
            score = partial(
                without,
                TargetScores(detector, pins[outcome.image_id].pin, [target]),
                u,
                MeanFill().baseline(u, detector),
                labels,
            )
            rng = np.random.default_rng(number)
            blamed = np.argsort(phi)[:BLAMED]
            others = [rng.choice(len(phi), BLAMED, replace=False) for _ in range(DRAWS)]
            before = score([])
            rows.append(
                {
                    "finite": float(np.isfinite(phi).all()),
                    "size": float(np.abs(phi).sum()),
                    "blamed": score(blamed) - before,
                    "random": float(np.mean([score(chosen) - before for chosen in others])),
                }
            )
    return rows


def without(scores: TargetScores, u: Any, fill: Any, labels: Any, segments: Any) -> float:
    """A target's score with some segments filled."""
    gone = torch.from_numpy(np.isin(labels, segments))[None]
    with torch.no_grad():
        return float(scores(torch.where(gone, fill, u)[None])[0, 0])


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("~/.cache/curator-bench/rtdetr-loop"))
    parser.add_argument("--steps", type=int, default=1500, help="of the base")
    parser.add_argument("--retrain", type=int, default=150, help="steps of every retraining")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    folder = arguments.work.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    table = loop(folder, arguments)
    for row in [table["columns"], *table["rows"]]:
        print("  " + "  ".join(f"{cell:>22s}" for cell in row))
    with contextlib.chdir(folder):  # the commands named the detector from there
        rows = explained(folder)
    blamed, drawn = (np.array([row[name] for row in rows]) for name in ("blamed", "random"))
    claims = [
        {
            "claim": "explained misses with a finite map that is not zero",
            "value": sum(row["finite"] == 1 and row["size"] > 0 for row in rows),
            "of": len(rows),
            "ok": bool(rows) and all(row["finite"] == 1 and row["size"] > 0 for row in rows),
        },
        {
            "claim": "log-odds gained without what the map blames, mean; random segments",
            "value": [float(blamed.mean()), float(drawn.mean())] if rows else None,
            "ok": bool(rows) and float(blamed.mean()) > max(0.0, float(drawn.mean())),
        },
        {
            "claim": "misses whose score rises more than without random segments, share",
            "value": float((blamed > drawn).mean()) if rows else None,
            "ok": bool(rows) and float((blamed > drawn).mean()) > 0.5,
        },
    ]
    for claim in claims:
        print("ok  " if claim["ok"] else "MISS", claim["claim"], claim["value"])
    if arguments.out:
        kept = {fact: table.get(fact) for fact in ("columns", "rows", "base", "advice")}
        result = {
            "claims": claims,
            "table": kept,
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "versions": versions(),
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
