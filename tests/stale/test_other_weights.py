"""Weights that were overwritten, or a service that was changed, after its detections were stored: no stage
uses them under the old fingerprint, where their results would be found again as the old model's."""

from __future__ import annotations

import pytest

from curator.errors import InputError
from curator.query.index_work import EmbedWork
from curator.synthesize.work import SynthesisWork

SPEC = "curator:ssd?classes=a,b&size=96&channels=8,8,16,16,16&seed=5"
MESSAGE = "its weights changed since its detections were stored .* run curator detect and curator diagnose"


def test_index_refuses_them() -> None:
    work = EmbedWork(
        detector=SPEC, fingerprint="0" * 64, embedder="detector:", candidates=4, windows=0, batch_size=1
    )
    with pytest.raises(InputError, match=MESSAGE):
        work.setup("cpu")


def test_synthesize_refuses_them() -> None:
    work = SynthesisWork(
        config_key="k",
        detector=SPEC,
        fingerprint="0" * 64,
        inpainter="builtin:",
        strength=1.0,
        steps=1,
        seed=0,
        batch_size=1,
        class_map={},
    )
    with pytest.raises(InputError, match=MESSAGE):
        work.setup("cpu")
