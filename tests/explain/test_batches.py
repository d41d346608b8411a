"""Batch sizes from memory: counted on a real forward pass, bounded, and without effect on results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curator.detect.load import load_detector
from curator.explain.batches import MOST, MOST_KEPT, fitting_batch, free_bytes, saved_bytes
from curator.explain.settings import ExplainConfig
from curator.explain.work import ExplainState
from store.records import Pin
from tests.explain.tiny_detectors import TinyDetector

SPEC = "curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5"
CPU = torch.device("cpu")


class Squares(nn.Module):
    """u (B, 3, h, w) -> sum of u^2 (B, 1, 1): keeps exactly its input."""

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return (u**2).sum((1, 2, 3)).view(-1, 1, 1)


def pin(size: tuple[int, int]) -> Pin:
    return Pin(image_size=size, input_size=size, scale=(1.0, 1.0), offset=(0.0, 0.0))


def test_counts_what_autograd_keeps() -> None:
    detector = TinyDetector(Squares(), size=(8, 10), values="probability")
    kept = saved_bytes(detector, torch.rand(3, 8, 10), pin((8, 10)))
    assert 3 * 8 * 10 * 4 <= kept <= 3 * 3 * 8 * 10 * 4


def test_counts_a_real_detectors_activations() -> None:
    detector = load_detector(SPEC, "cpu")
    small = saved_bytes(detector, torch.rand(3, 96, 96), pin((96, 96)))
    image = 3 * 96 * 96 * 4
    assert 2 * image < small < 200 * image


@pytest.mark.parametrize(
    ("per_image", "free", "expected"),
    [(0, 1, 16), (1 << 20, 1 << 40, 16), (1 << 30, 1 << 20, 1), (1 << 20, 64 << 20, 8)],
)
def test_fits_a_quarter_of_the_free_memory(per_image: int, free: int, expected: int) -> None:
    assert fitting_batch(per_image, free, CPU) == expected
    assert MOST["cpu"] == 16


def test_a_batch_keeps_no_more_than_stated_however_much_is_free() -> None:
    for per_image in (1, 50 << 20, 102 << 20, 300 << 20):
        batch = fitting_batch(per_image, 1 << 60, CPU)
        assert batch * per_image <= MOST_KEPT["cpu"]
        assert batch == MOST["cpu"] or (batch + 1) * per_image > MOST_KEPT["cpu"]
    assert fitting_batch(2 << 30, 1 << 60, CPU) == 1  # one image at least
    assert fitting_batch(102 << 20, 1 << 60, torch.device("cuda")) == MOST["cuda"]


def test_reads_free_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 100 kB\nMemAvailable:   42 kB\n", encoding="ascii")
    assert free_bytes(CPU, meminfo=path) == 42 << 10
    assert free_bytes(CPU, meminfo=tmp_path / "absent") == free_bytes(torch.device("mps"))


def test_the_stage_builds_one_method_per_input_size() -> None:
    detector = load_detector(SPEC, "cpu")
    state = ExplainState(detector, None, ExplainConfig(samples=2))  # type: ignore[arg-type]
    image = torch.from_numpy(np.zeros((3, 96, 96), np.float32))
    first = state.method(image, pin((96, 96)))
    assert first is state.method(image, pin((96, 96)))
    assert 1 <= first.options.batch_size <= MOST["cpu"]  # type: ignore[attr-defined]
    fixed = ExplainState(detector, None, ExplainConfig(samples=2, batch_size=3))  # type: ignore[arg-type]
    assert fixed.method(image, pin((96, 96))).options.batch_size == 3  # type: ignore[attr-defined]
