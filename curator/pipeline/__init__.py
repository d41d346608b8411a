"""The stages as Python calls; each is what the command of the same name runs.

    from curator import pipeline
    from curator.config import DetectConfig
    with pipeline.open_workspace("ws") as store:
        pipeline.detect(store, DetectConfig(detector="torchvision:ssd300_vgg16?weights=w.safetensors"))

Functions are imported on first use, so that `import curator.pipeline` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FUNCTIONS = {
    "init_workspace": "workspace",
    "open_workspace": "workspace",
    "status": "workspace",
    "add": "imports",
    "detect": "detections",
    "diagnose": "diagnosis",
    "explain": "explanations",
    "evaluate_explanations": "evaluation",
    "interpret": "interpretation",
    "fit_patches": "patch_fitting",
    "index": "vectors",
    "query": "queries",
    "synthesize": "synthesis",
    "export": "exports",
    "train": "training",
    "verify": "verification",
    "report": "reporting",
    "run_config": "loop",
    "demo": "demonstration",
}

__all__ = sorted(_FUNCTIONS)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        value = getattr(import_module(f"curator.pipeline.{_FUNCTIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'curator.pipeline' has no attribute {name!r}")
