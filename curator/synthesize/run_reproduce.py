"""Paint a stored sample anew, from its lineage, and compare it byte by byte.

In: a sample's number. Out: the PNG, and whether it equals the stored one. What a sample is made of: the run's
settings and seed, the failure with its exemplar, the scene with its labels, the recipe, the inpainter and its
strength. When any of these is not what it was, the sample's key cannot be reached any more, and that is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curator.errors import InputError
from curator.synthesize.painting import paint
from curator.synthesize.run_prepared import prepared
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import STAGE
from curator.tensors import image_pixels
from store.images import encode_png
from store.records import RunRecord, Sample

if TYPE_CHECKING:
    from store.store import Store


def reproduce(store: Store, sample_id: int, *, device: str = "auto") -> tuple[bytes, dict[str, Any]]:
    """Paint a sample anew.

    Returns:
        the PNG, and its lineage: {"sample", "equal", "recipe", "group", "scene", "exemplar", "failure",
        "seed", "plan", "inpainter", "fingerprint", "strength", "run"}; equal: byte by byte.

    Raises:
        InputError: no such sample, or what it was made of has changed since (says what to do).
    """
    sample = next((s for s in store.samples() if s.id == sample_id), None)
    if sample is None:
        raise InputError(f"no sample {sample_id}; `curator samples` lists them")
    for run in store.runs(stage=STAGE):
        if run.scope != sample.name or "gate_blob" not in run.facts:
            continue
        if all(s.id != sample_id for s in store.samples(name=sample.name, config_key=run.config_key)):
            continue  # another configuration of the same name
        made = _again(store, sample, run, device)
        if made is not None:
            return made
    raise InputError(
        f"sample {sample_id} cannot be painted anew: its failures, scenes, labels, detector, inpainter or "
        "gate are not what they were (or an older version made it); the stored picture itself is kept"
    )


def _again(store: Store, sample: Sample, run: RunRecord, device: str) -> tuple[bytes, dict[str, Any]] | None:
    """The sample by one run's settings; None where its key is another."""
    config = SynthesizeConfig.from_table({**run.config, "device": device}, where=f"run {run.id}")
    ready = prepared(store, config)
    item = ready.items[sample.number] if sample.number < len(ready.items) else None
    if item is None or ready.work.key(item) != sample.key:
        return None
    own = tuple(scene for scene in item.scenes if scene.image.id == sample.scene_image_id)
    item = replace(item, scenes=own or item.scenes)  # that a gone file is named, not another scene painted on
    painted = paint(ready.inpainter, {0: ready.work.plan(item)}, ready.work.strength)[0]
    if isinstance(painted, Exception):
        raise painted
    png = encode_png(image_pixels(painted))
    return png, {
        "sample": sample.id,
        "equal": png == store.blob(sample.blob),
        "recipe": sample.recipe,
        "group": sample.group,
        "scene": sample.scene_image_id,
        "exemplar": sample.exemplar_image_id,
        "failure": sample.outcome_id,
        "seed": sample.seed,
        "plan": sample.number,
        "inpainter": ready.work.inpainter,
        "fingerprint": ready.inpainter.fingerprint,
        "strength": ready.work.strength,
        "run": run.id,
    }
