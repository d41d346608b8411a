"""What people read of the summaries of train, train-inpainter, loop and verify."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any


def train_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator train`."""
    loss = ""
    if "loss_last" in summary:
        loss = f"loss {summary['loss_first']:.3f} to {summary['loss_last']:.3f}; "
    lines = [
        f"trained on {summary['images']} images and {summary['added']} added ones: {loss}"
        f"use it as --detector {shlex.quote(summary['detector'])}",
        *(f"warning: {warning}" for warning in summary["warnings"]),
    ]
    if summary["missing_classes"]:
        lines.append(f"the detector cannot produce: {', '.join(summary['missing_classes'])} (left out)")
    return lines


def train_inpainter_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator train-inpainter`."""
    lines = [
        f"trained on {summary['images']} images for {summary['steps']} steps "
        f"({summary['seconds_per_step']:.2f} s each), stopped {summary['stopped']}",
        f"loss on {summary['held_out']} held-out images: {summary['held_out_first']:.4f} at first, "
        f"{summary['held_out_best']:.4f} at step {summary['best_step']}, whose weights are kept",
    ]
    if summary["left_out"] or summary["too_small"]:
        lines.append(
            f"left out: {summary['left_out']} images that look like the holdout, "
            f"{summary['too_small']} too small"
        )
    lines += [f"samples to look at: {shlex.quote(summary['sheets'])}"] if summary["sheets"] else []
    return [*lines, f"use it as --inpainter {shlex.quote(summary['inpainter'])}"]


def loop_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator loop`."""
    from curator.cli.tables import table_lines

    lines = table_lines(
        "failures of the mined images after every round; change with its interval over images",
        summary["columns"],
        summary["rows"],
    )
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines.append(f"stopped: {summary['stopped']}")
    lines.append(f"the best detector: {shlex.quote(summary['detector'])}")
    return [*lines, f"prove it on the holdout: {summary['next']}"] if summary["next"] else lines


def verify_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator verify`."""
    from curator.cli.tables import table_lines

    base = summary["base"]
    lines = [f"warning: {warning}" for warning in summary["warnings"]]
    if base:
        lines += table_lines(
            f"holdout: {base['images']} images, {base['objects']} objects",
            summary["columns"],
            summary["rows"],
        )
        lines.append(
            "each figure is the worse of two readings: at the base's threshold, and at the base's number of "
            "false positives (FN fixed, broken) or of found objects (FP fixed, new FP)"
        )
    if summary.get("difference_rows"):
        reference = summary["difference_rows"][0][1].partition("@")[0]
        lines += table_lines(
            f"differences from {reference}, over images and seeds (* real at 5% with Holm's correction)",
            summary["difference_columns"],
            summary["difference_rows"],
        )
        lines += [summary["difference_note"]] if summary["difference_note"] else []
    if summary.get("quality_rows"):
        lines += table_lines(
            "the detectors themselves: AP and AR over the IoU .5 to .95, how far scores are from the share "
            "that is right; intervals over seeds",
            summary["quality_columns"],
            summary["quality_rows"],
        )
    if summary.get("group_rows"):
        lines += table_lines(
            "FN fixed by class, condition and cause, of those with 30 missed objects or more",
            summary["group_columns"],
            summary["group_rows"],
        )
    if summary.get("can_show"):
        lines.append(f"{base['missed']} missed objects: {summary['can_show']}")
    lines += [f"note: {summary['drawn_from']}"] if summary.get("drawn_from") else []
    lines += [f"note: {note}" for note in [*summary.get("stopped", []), *summary.get("notes", [])]]
    if summary.get("advice"):
        lines.append(summary["advice"])
    if summary["unscored_conditions"]:
        lines.append(
            f"fewer than 30 holdout failures, not scored: {', '.join(summary['unscored_conditions'])}"
        )
    if summary["missing_classes"]:
        lines.append(f"the detector cannot produce: {', '.join(summary['missing_classes'])} (left out)")
    return lines
