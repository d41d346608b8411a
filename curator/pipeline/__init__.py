"""The stages as Python calls; each is what the command of the same name runs.

    from curator import pipeline
    with pipeline.open_workspace("ws") as store:
        config = pipeline.DetectConfig(detector="torchvision:ssd300_vgg16?weights=w.safetensors")
        pipeline.detect(store, config)

Functions and settings are imported on first use, so that `import curator.pipeline` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "init_workspace": "curator.pipeline.workspace",
    "open_workspace": "curator.pipeline.workspace",
    "status": "curator.pipeline.workspace",
    "add": "curator.data.run_add",
    "AddConfig": "curator.data.settings",
    "detect": "curator.detect.run",
    "DetectConfig": "curator.detect.settings",
    "diagnose": "curator.diagnose.run",
    "DiagnoseConfig": "curator.diagnose.settings",
    "explain": "curator.explain.run",
    "ExplainConfig": "curator.explain.settings",
    "evaluate_explanations": "curator.explain.run_evaluate",
    "EvaluateConfig": "curator.explain.settings",
    "interpret": "curator.explain.run_interpret",
    "fit_patches": "curator.explain.run_fit_patches",
    "index": "curator.query.run_index",
    "IndexConfig": "curator.query.settings",
    "query": "curator.query.run",
    "QueryConfig": "curator.query.settings",
    "suspects": "curator.diagnose.run_suspects",
    "SuspectsConfig": "curator.diagnose.settings",
    "feedback": "curator.query.run_feedback",
    "FeedbackConfig": "curator.query.settings",
    "groups": "curator.query.run_groups",
    "GroupsConfig": "curator.query.settings",
    "synthesize": "curator.synthesize.run",
    "SynthesizeConfig": "curator.synthesize.settings",
    "train_inpainter": "curator.inpaint.run_train",
    "TrainInpainterConfig": "curator.inpaint.settings",
    "export": "curator.pipeline.exporting",
    "ExportConfig": "curator.data.settings",
    "versions": "curator.data.run_versions",
    "compare_versions": "curator.data.run_versions",
    "export_version": "curator.data.run_versions",
    "VersionExportConfig": "curator.data.settings",
    "train": "curator.prove.run_train",
    "TrainConfig": "curator.prove.settings",
    "verify": "curator.pipeline.proving",
    "VerifyConfig": "curator.prove.settings",
    "report": "curator.report.run",
    "ReportConfig": "curator.config",
    "plan_removal": "curator.pipeline.removing",
    "remove": "curator.pipeline.removing",
    "RemoveConfig": "curator.data.settings",
    "collect": "curator.pipeline.collecting",
    "CollectConfig": "curator.pipeline.collecting",
    "loop_rounds": "curator.pipeline.rounds",
    "LoopConfig": "curator.pipeline.round_settings",
    "run_config": "curator.pipeline.loop",
    "demo": "curator.pipeline.demonstration",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        value = getattr(import_module(_PLACES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'curator.pipeline' has no attribute {name!r}")
