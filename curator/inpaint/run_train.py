"""`train-inpainter`: train the exemplar-conditioned inpainter on the workspace's own images.

In: a `TrainInpainterConfig`; images of role train, with `pool` those of the pool too, never their labels, and
none that equals or looks like a holdout image. Out: a folder that `curator:DIR` reads, with sample sheets,
the figures (`training.json`) and the checkpoint from which the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curator.errors import InputError
from curator.inpaint.examples import SMALLEST
from curator.inpaint.exemplar import build_pipeline
from curator.inpaint.settings import TrainInpainterConfig
from curator.inpaint.training import train_inpainter as train
from curator.jobs.outputs import require_folder
from curator.jobs.stage import StageResult, recorded_run
from curator.progress import say
from store.errors import StoreError
from store.images import read_pixels
from store.keys import content_key
from store.records import ImageRecord, Role

if TYPE_CHECKING:
    from store.store import Store

STAGE = "train-inpainter"
STAGE_VERSION = 1


class Decoded(Sequence[NDArray[np.uint8]]):
    """Images that are decoded when asked for; one that cannot be read is stood in for by the next."""

    def __init__(self, images: Sequence[ImageRecord]) -> None:
        self.images = images
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        for i in range(len(self.images)):
            image = self.images[(index + i) % len(self.images)]
            try:
                return read_pixels(image.uri, sha256=image.sha256)
            except StoreError as error:
                self.unreadable[image.uri] = " ".join(str(error).split())
        raise InputError(
            f"expected readable images to train the inpainter on, got none of {len(self.images)}; the first: "
            f"{next(iter(self.unreadable.values()), '')}"
        )

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))


def train_inpainter(store: Store, config: TrainInpainterConfig) -> StageResult:
    """Train and write `config.out`.

    Returns:
        with the summary {"out", "inpainter" (its spec), "images", "held_out", "left_out", "too_small",
        "steps", "loss_first", "loss_last", "held_out_first", "held_out_best", "best_step",
        "seconds_per_step", "stopped", "sheets"}; unreadable images are failures.
    Raises:
        InputError: fewer than two usable images, an output that cannot be written, or a folder that holds
            another training.
    """
    require_folder(config.out, f"train-inpainter --out {config.out}")
    images, facts = _usable(store, config)
    key = content_key(STAGE, STAGE_VERSION, config.results(), [image.sha256 for image in images])
    seen, unseen = _split(images, config.held_out)
    with recorded_run(store, STAGE, config) as (run_id, counts):
        decoded, measured = Decoded(seen), Decoded(unseen)
        trained = train(
            decoded,
            config.out,
            held_out=measured,
            steps=config.steps,
            batch_size=config.batch_size,
            crops_per_image=config.crops,
            learning_rate=config.learning_rate,
            seed=config.seed,
            device=config.device,
            minutes=config.minutes,
            check_every=config.check_every,
            patience=config.patience,
            sheet_every=config.sheet_every,
            key=key,
            pipeline=build_pipeline(
                size=config.size,
                width=config.width,
                channels=config.channels,
                fold=config.fold,
                seed=config.seed,
            ),
            log=partial(_told, config.out),
        )
        failures = tuple(sorted({**decoded.unreadable, **measured.unreadable}.items()))
        best = min(trained.checks, key=lambda check: check[1])
        summary = {
            "out": str(config.out),
            "inpainter": f"curator:{config.out}",
            "images": len(seen),
            "held_out": len(unseen),
            **facts,
            "steps": len(trained.losses),
            "loss_first": float(np.mean(trained.losses[:50])),
            "loss_last": float(np.mean(trained.losses[-100:])),
            "held_out_first": trained.checks[0][1],
            "held_out_best": best[1],
            "best_step": best[0],
            "seconds_per_step": trained.spent / len(trained.losses),
            "stopped": trained.stopped,
            "sheets": str(config.out / "sheets") if config.sheet_every else "",
        }
        _write(config.out / "training.json", {**summary, "checks": trained.checks})
        counts.update(done=1, skipped=0, failed=len(failures))
    return StageResult(
        stage=STAGE, run_id=run_id, done=1, failed=len(failures), failures=failures, summary=summary
    )


def _usable(store: Store, config: TrainInpainterConfig) -> tuple[list[ImageRecord], dict[str, int]]:
    """The images in the order of their hashes, and how many were left out for what."""
    roles: tuple[Role, ...] = ("train", "pool") if config.pool else ("train",)
    found = {image.sha256: image for role in roles for image in store.images(reader="train", role=role)}
    leaks = store.leaks([image.id for image in found.values()], roles=("holdout",))
    large = [image for image in found.values() if min(image.width, image.height) >= SMALLEST]
    usable = sorted((image for image in large if image.id not in leaks), key=lambda image: image.sha256)
    if len(usable) < 2:
        raise InputError(
            f"expected at least 2 images of at least {SMALLEST} pixels a side with the role "
            f"{' or '.join(roles)} that do not look like the holdout, got {len(usable)} of {len(found)}; add "
            f"some: curator add images FOLDER --role train{'' if config.pool else ', or say --pool'}"
        )
    return usable, {"left_out": len(leaks), "too_small": len(found) - len(large)}


def _split(images: Sequence[ImageRecord], share: float) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """(to train on, to measure on), by the images' hashes; neither is empty."""
    unseen = [image for image in images if int(image.sha256[:8], 16) < share * 2**32]
    unseen = (unseen or list(images[:1]))[: len(images) - 1]
    hidden = {image.sha256 for image in unseen}
    return [image for image in images if image.sha256 not in hidden], unseen


def _told(out: Path, line: str) -> None:
    say(f"{out}: {line}")


def _write(place: Path, value: dict[str, Any]) -> None:
    part = place.with_name(f".{place.name}.part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(place)
