"""Where a training of the inpainter stands, on disk: safetensors and JSON, nothing pickled.

In: parameters, optimiser, average. Out: a safetensors file in a folder, written to one side
and then renamed, so that a kill at any moment leaves one whole checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curator.errors import InputError, StageError
from curator.inpaint.exemplar import ExemplarInpaintPipeline
from curator.inpaint.pipelines import silent

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Checkpoint:
    """A training's counters and weights.

    Args:
        folder: None keeps nothing on disk. facts: what makes it this training; another one is refused.
    Attributes:
        step, spent: steps done, seconds of training. losses: of every step.
        checks: (step, held-out loss). since_best: checks since the best one.
    """

    def __init__(
        self,
        folder: Path | None,
        facts: Sequence[Any],
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: EMAModel,
    ) -> None:
        self.folder, self.facts = folder, json.loads(json.dumps(list(facts)))
        self.parameters, self.optimizer, self.average = list(parameters), optimizer, average
        self.step, self.spent = 0, 0.0
        self.losses: list[float] = []
        self.checks: list[tuple[int, float]] = []
        self.best: list[Tensor] = []

    @property
    def since_best(self) -> int:
        """Checks since the one with the lowest held-out loss."""
        found = [loss for _, loss in self.checks]
        return len(found) - 1 - found.index(min(found)) if found else 0

    def check(self, loss: float | None) -> bool:
        """Note a held-out loss (None: nothing is held out); True, and kept, where it is the best so far."""
        if loss is not None and not math.isfinite(loss):
            raise StageError(
                f"train-inpainter: the held-out loss is {loss} at step {self.step}, expected a finite one; "
                "try a lower --learning-rate"
            )
        lowest = min((found for _, found in self.checks), default=math.inf)
        better = loss is None or loss < lowest
        if loss is not None:
            self.checks.append((self.step, loss))
        if better:
            self.best = [tensor.detach().clone() for tensor in self.average.shadow_params]
        return better

    def restore_best(self) -> None:
        """Put the best averaged weights in place."""
        with torch.no_grad():
            for parameter, tensor in zip(self.parameters, self.best, strict=False):
                parameter.copy_(tensor)

    def save(self) -> None:
        """Write the checkpoint."""
        if self.folder is None:
            return
        tensors = {f"weights.{i}": p.detach() for i, p in enumerate(self.parameters)}
        tensors |= {f"average.{i}": t for i, t in enumerate(self.average.shadow_params)}
        tensors |= {f"best.{i}": t for i, t in enumerate(self.best)}
        for i, parameter in enumerate(self.parameters):
            tensors |= {f"{name}.{i}": self.optimizer.state[parameter][name] for name in _MOMENTS}
        about = {
            "facts": self.facts,
            "step": self.step,
            "spent": self.spent,
            "losses": self.losses,
            "checks": self.checks,
            "averaged": self.average.optimization_step,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / ".state.part"
        # One file, so that weights and counters are of the same step whenever it is killed.
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, part, metadata={"state": json.dumps(about)})
        os.replace(part, self.folder / "state.safetensors")

    def load(self) -> bool:
        """Read the checkpoint; False where there is none.

        Raises:
            InputError: it is of another training, or damaged.
        """
        if self.folder is None or not (file := self.folder / "state.safetensors").is_file():
            return False
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                about = json.loads(opened.metadata()["state"])
            tensors = load_file(file)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{file}: expected a checkpoint of a training ({error}); delete it to begin anew"
            ) from error
        if about["facts"] != self.facts:
            raise InputError(
                f"--out {self.folder.parent}: holds a training with other images or settings; "
                f"choose another folder, or delete {self.folder} to begin anew"
            )
        count = range(len(self.parameters))
        with torch.no_grad():
            for i in count:
                self.parameters[i].copy_(tensors[f"weights.{i}"])
                self.average.shadow_params[i].copy_(tensors[f"average.{i}"])
        moments = {i: {name: tensors[f"{name}.{i}"] for name in _MOMENTS} for i in count}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.average.optimization_step = about["averaged"]
        self.best = [tensors[f"best.{i}"].to(self.parameters[i]) for i in count if f"best.{i}" in tensors]
        self.step, self.spent, self.losses = about["step"], about["spent"], about["losses"]
        self.checks = [(int(step), float(loss)) for step, loss in about["checks"]]
        return True


def save_pipeline(pipe: ExemplarInpaintPipeline, out: Path) -> None:
    """Write a pipeline as float16 safetensors; every file is replaced as a whole.

    The weights in memory stay as they are: what is read back paints as they do, to half precision.
    """
    with silent():
        unet, encoder = (copy.deepcopy(m).to("cpu", torch.float16) for m in (pipe.unet, pipe.encoder))
    saved = ExemplarInpaintPipeline(unet, pipe.scheduler, encoder, fit=pipe.fit, predicts=pipe.predicts)
    part = out / ".part"
    saved.save_pretrained(part, safe_serialization=True)
    for file in sorted(p for p in part.rglob("*") if p.is_file()):
        place = out / file.relative_to(part)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)
    for folder in sorted((p for p in part.rglob("*") if p.is_dir()), reverse=True):
        folder.rmdir()
    part.rmdir()
