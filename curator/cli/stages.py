"""The stages as commands, in the loop's order; their options are the fields of their settings."""

from __future__ import annotations

from curator.cli.data import add_failed, add_lines, export_lines, leak_lines
from curator.cli.derive import stage_command
from curator.cli.explanations import evaluate_lines, fit_patches_lines, interpret_lines
from curator.cli.fix import (
    feedback_lines,
    groups_lines,
    index_lines,
    query_lines,
    suspects_lines,
    synthesize_lines,
)
from curator.cli.mine import detect_lines, diagnose_lines, explain_lines
from curator.cli.prove import loop_lines, train_inpainter_lines, train_lines, verify_lines
from curator.config import ReportConfig
from curator.data.settings import AddConfig, ExportConfig
from curator.detect.settings import DetectConfig
from curator.diagnose.settings import DiagnoseConfig, SuspectsConfig
from curator.explain.settings import EvaluateConfig, ExplainConfig, FitPatchesConfig, InterpretConfig
from curator.inpaint.settings import TrainInpainterConfig
from curator.pipeline.round_settings import LoopConfig
from curator.prove.settings import TrainConfig, VerifyConfig
from curator.query.settings import FeedbackConfig, GroupsConfig, IndexConfig, QueryConfig
from curator.synthesize.settings import SynthesizeConfig

stage_command(
    "add",
    AddConfig,
    lines=add_lines,
    warnings=leak_lines,
    failed=add_failed,
    without=("device", "seed"),
    help="Add images and labels; a corrected file added again gives its images new labels.\n\n"
    "Broken items are listed and skipped (exit code 3); equal images and leaks are named.",
)
stage_command(
    "detect",
    DetectConfig,
    lines=detect_lines,
    spread=True,
    help="Run a detector over images and store what it finds.",
)
stage_command(
    "diagnose",
    DiagnoseConfig,
    lines=diagnose_lines,
    help="Find what the detector misses and invents on the mined images, with causes.",
)
stage_command(
    "suspects",
    SuspectsConfig,
    lines=suspects_lines,
    without=("device",),
    help="List labels of the mined images that more likely are wrong than the detector; queries leave their "
    "failures out.\n\nSay of each whether it is: --confirm IDS, --clear IDS.",
)
stage_command(
    "explain",
    ExplainConfig,
    lines=explain_lines,
    spread=True,
    help="Attribute failures to image regions and group them by cause.",
)
stage_command(
    "evaluate-explanations",
    EvaluateConfig,
    lines=evaluate_lines,
    help="Measure which explanation method is faithful for this detector and these images.",
)
stage_command(
    "interpret",
    InterpretConfig,
    lines=interpret_lines,
    help="Find the internal features that speak for each class, and show what they respond to (VEBI).",
)
stage_command(
    "fit-patches",
    FitPatchesConfig,
    lines=fit_patches_lines,
    help="Fit the Gaussian over image patches that --method pda draws from, on training images alone.",
)
stage_command(
    "index",
    IndexConfig,
    lines=index_lines,
    spread=True,
    without=("seed",),
    help="Store compact vectors of failures, successes and the pool, to be queried.",
)
stage_command(
    "groups",
    GroupsConfig,
    lines=groups_lines,
    without=("device",),
    help="Group the failures by what they look like and what the detector says there; name the groups.",
)
stage_command(
    "query",
    QueryConfig,
    lines=query_lines,
    without=("device",),
    help="Select the pool images that are expected to hold most of the asked failures.",
)
stage_command(
    "feedback",
    FeedbackConfig,
    lines=feedback_lines,
    without=("device", "seed"),
    help="Say which hits show what was asked for; curator query --refine learns from it.\n\n"
    "Without ids it lists the hits with what was said.",
)
stage_command(
    "train-inpainter",
    TrainInpainterConfig,
    lines=train_inpainter_lines,
    help="Train an inpainter on the training images, without labels: synthesize --inpainter curator:OUT.\n\n"
    "A stopped training continues with the same command; the best weights by the held-out loss are kept.",
)
stage_command(
    "synthesize",
    SynthesizeConfig,
    lines=synthesize_lines,
    spread=True,
    help="Paint the conditions of failures into labelled scenes; a gate accepts or rejects each sample.",
)
stage_command(
    "export",
    ExportConfig,
    lines=export_lines,
    without=("device", "seed"),
    help="Write the training set with selected images and accepted samples, in the trainer's format.\n\n"
    "Images that cannot be read are left out and named (exit code 3); the same command tries them again.",
)
stage_command(
    "train",
    TrainConfig,
    lines=train_lines,
    help="Fine-tune a detector on the training images, selections and accepted samples.",
)
stage_command(
    "verify",
    VerifyConfig,
    lines=verify_lines,
    help="Retrain on every arm's images and measure on the holdout what that fixes and breaks.",
)
stage_command(
    "loop",
    LoopConfig,
    call="loop_rounds",
    lines=loop_lines,
    help="Round by round: query what the detector fails on, retrain with it, diagnose the new detector; "
    "until a round gains no more than chance on the mined images.",
)
stage_command(
    "report",
    ReportConfig,
    lines=lambda summary: [f"report: {summary['path']} ({summary['bytes']} bytes)"],
    without=("device", "seed"),
    help="Write one self-contained HTML file: failures, heat maps, hits, samples, verification.",
)
