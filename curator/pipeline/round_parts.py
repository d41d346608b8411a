"""What a round of `curator loop` looks up and writes, besides the stages that it runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator.detect.load import load_detector
from curator.diagnose.current import Current
from curator.diagnose.run_suspects import without_suspects
from curator.diagnose.selectors import FailureSelector
from curator.errors import InputError
from curator.pipeline.round_settings import Asked, LoopConfig
from curator.prove.run_rounds import STAGE
from curator.prove.trained_file import require_replaceable
from curator.registry import Spec
from store.errors import NotFoundError
from store.keys import content_key
from store.records import Selection

if TYPE_CHECKING:
    from store.store import Store


def spare_base(base: str, config: LoopConfig, suffix: str) -> None:
    """Refuse to write over the weights with which the loop begins, and over those of another architecture.

    Args:
        suffix: of a round's detector; "" where a program trains, which writes a folder.
    Raises:
        InputError: they lie where a round's detector goes.
    """
    path = Path(Spec.parse(base).name).absolute()
    places = [(config.out / f"round-{k}{suffix}").absolute() for k in range(1, config.rounds + 1)]
    if any(place == path or place in path.parents for place in places):
        raise InputError(f"loop: --out {config.out}: a round would overwrite {path}; name another folder")
    for place in places if suffix else ():
        require_replaceable(place, load_detector(base, config.device))


def asks(store: Store, config: LoopConfig, current: Current) -> bool:
    """Is there a failure to ask with?"""
    failures = FailureSelector.parse(config.failures).among(current.outcomes)
    if not failures:
        return False
    try:
        return bool(without_suspects(store, current, failures, keep=False, stage=STAGE).failures)
    except InputError:  # all of them look like label errors
        return False


def judged_images(store: Store, current: Current) -> set[int]:
    """The labelled mined images at which the detector looked."""
    mined = store.image_ids(role="mine")
    labels = store.annotations(mined, reader="diagnose")
    found = store.detections(current.model.id, mined, config_key=current.detections_key)
    return {i for i in found if i in labels and labels[i].status == "human"}


def videos(store: Store) -> dict[int, str]:
    """Mined image -> its video, where it has one."""
    members = store.memberships(store.image_ids(role="mine"))
    return {m.image_id: m.group_key for m in members if m.role == "mine" and m.group_key is not None}


def left_over(store: Store, chosen: Sequence[str]) -> set[int]:
    """Pool images that no earlier round chose."""
    return set(store.image_ids(role="pool")) - {i for name in chosen for i in store.selection(name).image_ids}


def put_union(store: Store, run_id: int, config: LoopConfig, rounds: int) -> None:
    """All that gainful rounds chose, as one selection; an older one of this name does not outlive them."""
    parts = [store.selection(f"{config.name}-{number}") for number in range(1, rounds + 1)]
    if not parts:
        try:
            parts = [replace(store.selection(config.name), hits=())]
        except NotFoundError:
            return
    hits = {hit.image_id: hit for part in parts for hit in part.hits}
    ranked = tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits.values(), start=1))
    store.put_selection(
        run_id,
        Selection(
            name=config.name,
            arm=parts[0].arm,
            hits=ranked,
            key=content_key(STAGE, [part.key for part in parts], len(ranked)),
            config={**parts[0].config, "rounds": [part.name for part in parts]},
        ),
    )


def proof(config: LoopConfig, asked: Asked, base: str, images: int) -> str:
    """The command that proves on the holdout what was chosen."""
    words = ["curator", "verify", "--selection", config.name, "--arms", "nothing,query", "--detector", base]
    words += ["--budget", str(images), "--seeds", "0,1,2", "--steps", str(config.steps)]
    words += ["--batch-size", str(config.batch_size), "--learning-rate", str(config.learning_rate)]
    words += ["--score-threshold", f"{asked.score_threshold:g}"]
    for option in ("trainer", "trained", "init", "init_detector"):
        value = getattr(config, option)
        words += [f"--{option.replace('_', '-')}", value] if value else []
    return shlex.join(words)
