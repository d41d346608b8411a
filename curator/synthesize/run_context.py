"""The context of places from the Store: what labelled training and mined images teach, kept as a blob.

In: the Store, labelled images. Out: the name of a blob with a `Context`, an earlier run's of the same
configuration or a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from curator.progress import progress
from curator.synthesize.context import learn
from curator.synthesize.settings import SynthesizeConfig
from curator.synthesize.work import STAGE, SceneImage
from curator.tensors import image_tensor
from store.images import read_pixels
from store.keys import content_key
from store.records import NewAnnotation

if TYPE_CHECKING:
    from store.store import Store

ASKING = ("object",)  # recipes that ask for places
IMAGES = 400  # that are learnt from at most


def learnt_context(
    store: Store,
    config: SynthesizeConfig,
    config_key: str,
    scenes: Sequence[SceneImage],
    mined: Sequence[SceneImage],
) -> str:
    """The name of the blob; "" where no recipe of the configuration asks for places."""
    if not set(ASKING) & set(config.recipes):
        return ""
    for run in store.runs(stage=STAGE):
        if run.config_key == config_key and run.facts.get("context_blob"):
            return str(run.facts["context_blob"])
    by_content = {scene.image.sha256: scene for scene in (*scenes, *mined) if scene.annotations}
    drawn = sorted(by_content, key=lambda sha256: content_key("context", config.seed, sha256))[:IMAGES]
    return store.put_blob(learn(_pictures([by_content[name] for name in drawn]), config.seed).to_bytes())


def _pictures(scenes: Sequence[SceneImage]) -> Iterator[tuple[Tensor, Sequence[NewAnnotation]]]:
    with progress("context: labelled pictures", len(scenes)) as advance:
        for scene in scenes:
            advance()
            try:
                pixels = read_pixels(scene.image.uri, sha256=scene.image.sha256)
            except Exception:  # the stage itself reports what it cannot read
                continue
            yield image_tensor(pixels), scene.annotations
