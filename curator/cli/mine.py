"""What people read of the summaries of detect, diagnose and explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def detect_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator detect`."""
    per_class = sorted(summary["per_class"].items(), key=lambda pair: -pair[1])
    silent = len(summary["classes"]) - len(per_class)
    lines = [
        f"{summary['detections']} detections on {summary['images']} images by model {summary['model']} "
        f"({len(summary['classes'])} classes)"
        + (f", read as {summary['read_as']}" if summary["read_as"] else "")
    ]
    lines += [f"  {name}: {count}" for name, count in per_class[:20]]
    if len(per_class) > 20:
        lines.append(f"  ... and {len(per_class) - 20} more classes (--json lists all)")
    lines += [f"  never detected: {silent} of the classes"] if silent else []
    if summary["dropped_boxes"]:
        lines.append(
            f"{summary['dropped_boxes']} boxes were dropped: sides under one pixel, or outside the image"
            + ("" if summary["detections"] else "; are they fractions? Boxes are expected in pixels")
        )
    if summary["clipped_boxes"]:
        lines.append(f"{summary['clipped_boxes']} boxes reached beyond the image and were clipped to it")
    return [*lines, *(f"warning: {warning}" for warning in summary["warnings"])]


def diagnose_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator diagnose`."""
    from curator.cli.tables import share, table_lines

    rows = [
        [
            row["class"],
            str(row["objects"]),
            str(row["tp"]),
            str(row["fp"]),
            str(row["fn"]),
            share(row["precision"]),
            share(row["recall"]),
            share(row["ap"]),
        ]
        for row in summary["classes"]
    ]
    delta = summary["tide_delta_ap"]
    causes = [
        [
            name,
            str(count),
            share(delta.get(name.partition(":")[2]) if name.startswith("FP") else None),
        ]
        for name, count in summary["causes"].items()
    ]
    overlap = f"AP{summary['iou_threshold'] * 100:.0f}"
    lines = table_lines(
        f"{summary['images']} images, score at least {summary['score_threshold']}, IoU at least "
        f"{summary['iou_threshold']}",
        ("class", "objects", "found", "false", "missed", "precision", "recall", overlap),
        rows,
    )
    lines += [f"mean {overlap}: {share(summary['mean_ap'])}"]
    lines += table_lines(
        "Causes; TIDE: AP gained were the cause mended", ("cause", "number", "TIDE delta AP"), causes
    )
    lines.append(
        f"TIDE: without its missed objects the AP would gain {share(delta['all missed objects'])}, "
        f"without its false positives {share(delta['all false positives'])}"
    )
    if summary["missing_classes"]:
        lines.append(
            f"the detector cannot produce: {', '.join(summary['missing_classes'])} (left out of the misses; "
            "--map DETECTOR=CLASS says what means them)"
        )
    if summary["dropped_detections"]:
        lines.append(
            f"{summary['dropped_detections']} detections of classes that the data set lacks were dropped"
        )
    lines += summary["not_judged"]
    if summary["unlabelled"]:
        lines.append(f"{summary['unlabelled']} mined images without annotations were left out")
    return lines


def explain_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator explain`."""
    explained = ", ".join(f"{count} {kind}" for kind, count in summary["explained"].items()) or "nothing"
    lines = [
        f"{summary['method']}: {explained} explained in {summary['groups']} groups, "
        f"{summary['without_evidence']} without evidence"
    ]
    if summary["aside"]:
        lines.append("only a look: later stages keep the explanations that they use")
    if summary["gap_median"] is not None:
        lines.append(
            f"gap |F(1) - F(0) - sum(phi)|: median {summary['gap_median']:.4f}, "
            f"largest {summary['gap_largest']:.4f}"
        )
    if summary["seconds_per_outcome"] is not None:
        lines.append(f"{summary['seconds']:.1f} s, {1000 * summary['seconds_per_outcome']:.0f} ms each")
    return lines
