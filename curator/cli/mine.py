"""Commands that mine failures: detect, diagnose, explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from curator.cli.app import Device, Json, Seed, app, finish, open_store


@app.command()
def detect(
    detector: Annotated[
        str,
        typer.Option(
            help="Detector spec, e.g. torchvision:ssd300_vgg16?weights=PATH, "
            "onnx:PATH?decode=yolox, curator:PATH, builtin:."
        ),
    ],
    role: Annotated[
        list[str] | None, typer.Option(help="Whose images: mine (default), train, pool; may be repeated.")
    ] = None,
    score_floor: Annotated[float, typer.Option(help="Detections that score lower are not stored.")] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 8,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run a detector over images and store what it finds."""
    from curator import pipeline
    from curator.detect.settings import DetectConfig

    config = DetectConfig(
        detector=detector,
        roles=tuple(role or ("mine",)),
        score_floor=score_floor,
        batch_size=batch_size,
        device=device,
        seed=seed,
    )
    with open_store() as store:
        finish(pipeline.detect(store, config), as_json=as_json, lines=_detection_lines)


def _detection_lines(summary: Mapping[str, Any]) -> list[str]:
    per_class = sorted(summary["per_class"].items(), key=lambda pair: -pair[1])
    silent = len(summary["classes"]) - len(per_class)
    lines = [
        f"{summary['detections']} detections on {summary['images']} images by model {summary['model']} "
        f"({len(summary['classes'])} classes)"
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
    return lines


@app.command()
def diagnose(
    detector: Annotated[
        str | None, typer.Option(help="Spec whose detections are judged; default: the last that ran.")
    ] = None,
    score_threshold: Annotated[float, typer.Option(help="A detection at or above it counts.")] = 0.5,
    iou_threshold: Annotated[float, typer.Option(help="Overlap that a match needs at least.")] = 0.5,
    low_score: Annotated[
        float | None,
        typer.Option(
            help="Below it a candidate's score says nothing; default: the "
            "99.9% quantile of the detector's scores on background."
        ),
    ] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="DETECTOR=CLASS",
            help="A detector class in "
            "terms of the data set's; may be repeated. Unnamed classes "
            "map to their own name.",
        ),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find what the detector misses and invents on the mined images, with causes."""
    from curator import pipeline
    from curator.cli.tables import parse_map
    from curator.diagnose.settings import DiagnoseConfig

    config = DiagnoseConfig(
        detector=detector,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        low_score=low_score,
        class_map=parse_map(class_map or ()),
        device=device,
        seed=seed,
    )
    with open_store() as store:
        finish(pipeline.diagnose(store, config), as_json=as_json, lines=_diagnosis_lines)


def _diagnosis_lines(summary: Mapping[str, Any]) -> list[str]:
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
    if summary["unlabelled"]:
        lines.append(f"{summary['unlabelled']} mined images without annotations were left out")
    return lines


@app.command()
def explain(
    failures: Annotated[
        str,
        typer.Option(help='Which failures: FN, FN:miss, "FP,class=Car"; several joined by ;. Default: all.'),
    ] = "",
    detector: Annotated[
        str | None, typer.Option(help="Detector spec; default: the one last diagnosed.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="e2x, e2x_kernel, lime, odam, drise ... (a wrong name lists all); sp?patch=29 sets."
        ),
    ] = "e2x",
    samples: Annotated[int, typer.Option(help="Masked images per explanation (K).")] = 16,
    segments: Annotated[int, typer.Option(help="Wanted number of segments per image.")] = 200,
    grid: Annotated[
        str, typer.Option(help="Weights of e2x: midpoint (k+0.5)/K or paper k/(K-1).")
    ] = "midpoint",
    target: Annotated[
        str,
        typer.Option(help="What is explained: probability, log_odds, or auto: log-odds where they exist."),
    ] = "auto",
    fill: Annotated[
        str,
        typer.Option(help="What hidden segments show: mean, blur, noise, local-mean ..., inpaint?spec=SPEC."),
    ] = "mean",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    successes: Annotated[
        int, typer.Option(help="True positives per class explained beside the failures.")
    ] = 20,
    aside: Annotated[
        bool, typer.Option("--aside", help="Only look: later stages keep the explanations that they use.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(help="Masked images per forward pass; 0: as many as free memory allows.")
    ] = 0,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Attribute failures to image regions and group them by cause."""
    from curator import pipeline
    from curator.explain.settings import ExplainConfig

    config = ExplainConfig.from_table(
        {
            "failures": failures,
            "method": method,
            "samples": samples,
            "segments": segments,
            "grid": grid,
            "target": target,
            "fill": fill,
            "precision": precision,
            "successes": successes,
            "aside": aside,
            "batch_size": batch_size,
            "device": device,
            "seed": seed,
            **({"detector": detector} if detector else {}),
        },
        where="explain",
    )
    with open_store() as store:
        finish(pipeline.explain(store, config), as_json=as_json, lines=_explanation_lines)


def _explanation_lines(summary: Mapping[str, Any]) -> list[str]:
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
