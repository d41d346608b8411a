"""`--precision auto` is resolved before keys are made, by what the device can do and never by a stopwatch.

At 31c7fc5 failed: both (keys held "auto", and a comparison of running times decided).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from curator import pipeline
from store.store import Store
from tests.stale.loop import explaining, training

Open = Callable[[str], Store]


def test_auto_shares_the_key_of_what_it_stands_for(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, explaining(precision="auto"))
    resolved = store.runs(stage="explain")[0].config["precision"]
    assert resolved in ("fp32", "bf16")
    assert pipeline.explain(store, explaining(precision=resolved)).done == 0


def test_two_precisions_share_no_key(fresh: Open) -> None:
    store = fresh("diagnosed")
    pipeline.explain(store, explaining(precision="fp32"))
    expected = [a.key for a in store.attributions()]
    pipeline.explain(store, explaining(precision="bf16"))
    assert not {a.key for a in store.attributions()} & set(expected)


def test_training_records_the_precision(fresh: Open, tmp_path: Path) -> None:
    store, out = fresh("added"), tmp_path / "weights.safetensors"
    pipeline.train(store, training(out, precision="auto"))
    resolved = store.runs(stage="train")[0].config["precision"]
    assert resolved in ("fp32", "bf16")
    assert pipeline.train(store, training(out, precision=resolved)).done == 0


def test_the_choice_depends_on_the_device_alone(tmp_path: Path) -> None:
    from curator.precision import resolve_precision

    with_amx, without = tmp_path / "amx", tmp_path / "none"
    with_amx.write_text("flags : avx512f amx_bf16 amx_tile\n")
    without.write_text("flags : avx512f\n")
    device = torch.device("cpu")
    assert resolve_precision("auto", device, cpuinfo=with_amx) == "bf16"
    assert resolve_precision("auto", device, cpuinfo=without) == "fp32"
    assert resolve_precision("fp32", device, cpuinfo=with_amx) == "fp32"
    assert resolve_precision("bf16", device, cpuinfo=without) == "bf16"
