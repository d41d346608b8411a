"""What a configuration of `synthesize` means in this workspace: its work, its plans and what they rest on.

In: the Store and a `SynthesizeConfig`. Out: `Prepared`, the same whenever nothing that it depends on has
changed: `synthesize` works its plans off, `reproduce` finds one of them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.detect.load import load_same
from curator.diagnose.current import Current
from curator.diagnose.run_current import read_current
from curator.errors import InputError
from curator.inpaint.base import Inpainter
from curator.inpaint.run_train import train_inpainter
from curator.inpaint.settings import TrainInpainterConfig
from curator.synthesize.convention import is_modal
from curator.synthesize.gate.judge import Judge
from curator.synthesize.painting import choose_inpainter, load_inpainter
from curator.synthesize.run_context import learnt_context
from curator.synthesize.run_plans import labelled, labelled_scenes, mined_failures, plan_items, wanted_of
from curator.synthesize.settings import TRAIN, SynthesizeConfig, own_inpainter
from curator.synthesize.work import STAGE, Failure, SceneImage, SynthesisItem, SynthesisWork, config_key
from curator.tensors import resolve_device

if TYPE_CHECKING:
    from curator.detect.base import Detector
    from store.store import Store


@dataclass(frozen=True)
class Prepared:
    """A configuration's work (without a gate yet) and what it was made of.

    Attributes:
        fingerprints: of the detector, the inpainter and the judge. mined: labelled mined images.
        context_blob: name of the blob that keeps `work.context`; "" where no recipe asks for it.
    """

    current: Current
    work: SynthesisWork
    items: list[SynthesisItem]
    failures: list[Failure]
    scenes: list[SceneImage]
    mined: list[SceneImage]
    detector: Detector
    inpainter: Inpainter
    fingerprints: tuple[str, str, str]
    context_blob: str = ""


def prepared(store: Store, config: SynthesizeConfig, *, train: bool = False) -> Prepared:
    """Read and load all that a configuration names, what may be refused first.

    Args:
        train: train the workspace's own inpainter, or go on with it, where that is the one meant.
    Raises:
        InputError: no failure matches, no labelled scene, no recipe for them, an inpainter that does not suit
            the detector, or what `train_inpainter` refuses.
    """
    trains = train and config.inpainter == TRAIN
    config = config.with_trained(store.path)
    current = read_current(store, STAGE, config.detector)
    model, class_map = current.model, dict(current.class_map)
    spec, strength = choose_inpainter(config, model.classes)
    failures, scenes = mined_failures(store, config, current), labelled_scenes(store, config)
    items = plan_items(failures, scenes, config, wanted_of(failures, current.outcomes))
    mined = labelled(store, store.image_ids(role="mine"))
    detector = load_same(model.spec, model.fingerprint, config.device)
    judge = Judge(config.judge, detector, resolve_device(config.device))
    if trains:
        _train(store, config)
    inpainter = load_inpainter(spec, config.steps, config.device)
    fingerprints = (model.fingerprint, inpainter.fingerprint, judge.fingerprint)
    key = config_key(
        config, fingerprints, class_map, failures, scenes, mined, strength, current.criteria.score
    )
    blob = learnt_context(store, config, key, scenes, mined)
    work = SynthesisWork(
        config_key=key,
        detector=model.spec,
        fingerprint=model.fingerprint,
        inpainter=spec,
        strength=strength,
        judge=config.judge,
        threshold=current.criteria.score,
        steps=config.steps,
        seed=config.seed,
        batch_size=config.batch_size,
        class_map=class_map,
        modal=is_modal(scene.annotations for scene in scenes),
        context=store.blob(blob) if blob else b"",
    )
    return Prepared(current, work, items, failures, scenes, mined, detector, inpainter, fingerprints, blob)


def _train(store: Store, config: SynthesizeConfig) -> None:
    """Train the workspace's own inpainter, or go on with it."""
    folder = own_inpainter(store.path)
    try:
        train_inpainter(
            store, TrainInpainterConfig(out=folder, minutes=config.train_minutes, device=config.device)
        )
    except InputError as error:
        raise InputError(
            f"--inpainter train: {error} (what lies there is used as it is by --inpainter curator:{folder}; "
            "without the folder a new one is trained)"
        ) from error
