"""The gate's calibration from the Store: which of the user's pictures it learns on, and the stored result.

In: labelled training and mined images. Out: a `Gate` as bytes, kept as a blob that the run's facts name, so
that the same command again finds it. It learns on training and mined images; bounds are read off mined
images, out of fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.progress import progress
from curator.synthesize.gate.base import Look
from curator.synthesize.gate.calibrate import Gate, calibrate
from curator.synthesize.gate.judge import Judge
from curator.synthesize.gate.looks import untouched
from curator.synthesize.run_prepared import Prepared
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import STAGE, SceneImage, detect
from curator.tensors import image_tensor, resolve_device
from store.images import read_pixels
from store.keys import content_key

if TYPE_CHECKING:
    from curator.detect.base import Detector
    from store.store import Store

_BATCH = 8


def calibrated(store: Store, config: SynthesizeConfig, ready: Prepared) -> tuple[Gate, str]:
    """The gate of a configuration and the name of its blob: an earlier run's, or a new one."""
    for run in store.runs(stage=STAGE):
        if run.config_key == ready.work.config_key and run.facts.get("gate_blob"):
            return Gate.from_bytes(store.blob(run.facts["gate_blob"])), run.facts["gate_blob"]
    gate = calibrate_on(ready.detector, ready.work.class_map, ready.scenes, ready.mined, config)
    return gate, store.put_blob(gate.to_bytes())


def calibrate_on(
    detector: Detector,
    class_map: dict[str, str],
    training: Sequence[SceneImage],
    mined: Sequence[SceneImage],
    config: SynthesizeConfig,
) -> Gate:
    """A gate that is calibrated on labelled training and mined images."""
    learning, held = divided(training, mined, config.gate_images, config.seed)
    rng = np.random.default_rng([config.seed, 11])
    with progress("gate: untouched pictures", len(learning) + len(held)) as advance:
        parts = [_looks(part, detector, class_map, config, rng, advance) for part in (learning, held)]
    judge = Judge(config.judge, detector, resolve_device(config.device))
    known = [look for looks in parts[0] for look in looks]
    return calibrate(known, parts[1], judge, refused=config.refused, seed=config.seed)


def divided(
    training: Sequence[SceneImage], mined: Sequence[SceneImage], most: int, seed: int
) -> tuple[list[SceneImage], list[SceneImage]]:
    """Images that are learnt on alone, and images that bounds are read off too; none is in both.

    Bounds come from mined images, which the detector has not seen; where they are few, training images fill
    up, at most half of them. `most`: in both together.
    """
    wanted = -(-most // 2)

    def shuffled(scenes: Iterable[SceneImage]) -> list[SceneImage]:
        return sorted(scenes, key=lambda scene: content_key("gate", seed, scene.image.sha256))

    held = shuffled({scene.image.sha256: scene for scene in mined}.values())[:wanted]
    known = {scene.image.sha256 for scene in mined}
    train = [scene for scene in shuffled(training) if scene.image.sha256 not in known]
    spare = min(max(wanted // 2 - len(held), 0), len(train) // 2)
    return train[spare:][: most - wanted], [*held, *train[:spare]]


def _looks(
    scenes: Sequence[SceneImage],
    detector: Detector,
    class_map: dict[str, str],
    config: SynthesizeConfig,
    rng: np.random.Generator,
    advance: Any,
) -> list[list[Look]]:
    """Looks of images, per image; one that cannot be read is left out."""
    device, looks = resolve_device(config.device), []
    for start in range(0, len(scenes), _BATCH):
        part = []
        for scene in scenes[start : start + _BATCH]:
            advance()
            try:
                part.append((scene, image_tensor(read_pixels(scene.image.uri, sha256=scene.image.sha256))))
            except Exception:  # the stage itself reports what it cannot read
                continue
        found = detect(detector, [image for _, image in part], device, class_map)
        for (scene, image), detections in zip(part, found, strict=True):
            if not isinstance(detections, Exception):
                labels = [(a.category, a.box) for a in scene.annotations if not a.crowd]
                looks.append(untouched(image, labels, detections, rng))
    return looks
