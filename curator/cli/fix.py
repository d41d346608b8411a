"""What people read of the summaries of index, groups, query, suspects, feedback and synthesize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def index_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator index`."""
    images = ", ".join(f"{count} {role}" for role, count in summary["images"].items())
    if summary.get("plan"):
        return [f"images: {images}", *summary["plan"]]
    return [
        f"images: {images}; views: {', '.join(summary['views'])}",
        f"culprits of {summary['culprits']} failures, {explained_by(summary)}",
    ]


def explained_by(summary: Mapping[str, Any]) -> str:
    """Whose explanations a stage used."""
    found = summary["explained_by"]
    return f"explained by {found}" if found else "nothing is explained yet (curator explain)"


def groups_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator groups`."""
    lines = [f"{summary['failures']} failures in {len(summary['groups'])} groups"]
    for group in summary["groups"]:
        typical = ", ".join(str(shown["outcome"]) for shown in group["exemplars"])
        lines.append(
            f"  {group['failures']:>5}  {group['name']}  (on {group['images']} images, median side "
            f"{group['side']:.0f} px; typical: {typical or '-'})"
        )
    told = ", ".join(f"{name} {value:.2f}" for name, value in summary["stability"].items())
    lines.append(f"agreement of groups of other samples of these failures: {told}")
    return [*lines, *(f"warning: {warning}" for warning in summary["warnings"])]


def query_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator query`."""
    lines = judged_lines(summary["judged"])
    lines += [summary["left_out"]] if summary["left_out"] else []
    if summary.get("preview"):
        lines += [f"note: {note}" for note in summary["notes"]]
        return lines + [f"warning: {warning}" for warning in summary["warnings"]]
    lines.append(f"selection {summary['selection']!r}: {len(summary['hits'])} images; {summary['scored']}")
    for group in summary["groups"]:
        holds = group.get("coverage")
        pool = (
            f", the pool holds about {holds['expected']:.0f} [{holds['low']:.0f}, {holds['high']:.0f}] if it "
            "is like the mined images"
            if holds
            else ""
        )
        asked = f"{group['failures']} failures asked{pool}: " if group["failures"] else ""  # not by a picture
        lines.append(f"  {group['name']}: {asked}{group['hits']} images")
    lines += [summary["refined"]] if summary["refined"] else []
    lines += [explained_by(summary)] if "explained_by" in summary else []
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += [f"{h['rank']:>4}  image {h['image']}  {h['uri']}: {h['reason']}" for h in summary["hits"]]
    return lines


def suspects_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator suspects`."""
    lines = [
        f"{summary['suspects_found']} suspected label errors of probability {summary['minimum']:g} or more, "
        f"looked for in {summary['labels']} labels and {summary['failures']} failures"
    ]
    for own in summary["suspects"]:
        box = ", ".join(f"{value:.0f}" for value in own["box"])
        said = f"  [{own['verdict']}]" if own["verdict"] else ""
        lines.append(
            f"{own['id']:>6}  {own['probability']:.2f}  {own['kind']:<14}  {own['uri']} ({box}): "
            f"{own['why']}{said}"
        )
    lines += [f"note: {note}" for note in summary["notes"]]
    return lines


def feedback_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator feedback`."""
    accepted, rejected = len(summary["accepted"]), len(summary["rejected"])
    lines = [f"selection {summary['selection']!r}: {accepted} accepted, {rejected} rejected"]
    lines += [
        f"{hit['rank']:>4}  image {hit['image']}  {hit['verdict']:<8}  {hit['uri']}: {hit['reason']}"
        for hit in summary["hits"]
    ]
    gone = sorted({*summary["accepted"], *summary["rejected"]} - {hit["image"] for hit in summary["hits"]})
    if gone:
        lines.append(f"judged before, no longer chosen: images {', '.join(map(str, gone))}")
    if accepted or rejected or any(hit["verdict"] == "labelled" for hit in summary["hits"]):
        lines.append(f"next: {summary['next']}")
    return lines


def judged_lines(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """How well methods rank mined images that they have not seen."""
    from curator.cli.tables import table_lines

    if not judged:
        return []
    rows = []
    for asked in judged:
        for row in asked["methods"]:
            said = "-" if row["expected"] is None else f"{row['expected']:.1f} of {row['true']}"
            rows.append(
                [
                    asked["asked"],
                    row["method"],
                    f"{row['average_precision']:.2f}",
                    f"{row['hit']:.2f}",
                    f"{row['failures_per_image']:.2f}",
                    said,
                ]
            )
        if not asked["methods"]:
            rows.append([asked["asked"], f"not judged: {asked['failing']} failing image", "", "", "", ""])
    lines = table_lines(
        "Mined images that the model has not seen (out of fold): failing ones among the first tenth",
        ("asked", "method", "AP", "hit", "failures/image", "expected"),
        rows,
    )
    lines += [
        f"{asked['asked']}: {asked['better']} ranks the mined images better (--method {asked['better']})"
        for asked in judged
        if asked["better"]
    ]
    return lines


def synthesize_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator synthesize`."""
    lines = [
        f"samples {summary['name']!r}: {summary['accepted']} accepted of {summary['budget']} wanted, "
        f"{summary['rejected']} rejected, {summary['unplaced']} without a fitting place"
    ]
    lines += [f"  {group}: {count}" for group, count in summary["per_group"].items()]
    lines += [f"  rejected, {reason}: {count}" for reason, count in summary["reasons"].items()]
    lines.append(
        f"inpainter {summary['inpainter']} at strength {summary['strength']:g}; the gate refuses of your own "
        "untouched objects: "
        + ", ".join(
            f"{name} {bound['refused']:.0%}" for name, bound in summary["gate"].items() if bound["refused"]
        )
    )
    lines += places_lines(summary["context"])
    lines.append(explained_by(summary))
    lines += [f"note: {note}" for note in summary["notes"]]
    return lines


def places_lines(context: Mapping[str, Any]) -> list[str]:
    """Of `curator synthesize`: what decides where objects are put."""
    if not context["objects"]:
        return []
    ranks = [
        f"{share:.2f} by {means}"
        for share, means in ((context["rank"], "what was learnt"), (context["rank_alike"], "likeness alone"))
        if share is not None
    ]
    decides = "learnt from" if context["decides"] == "trees" else "chosen by likeness, measured on"
    told = f"; of other places there a true one outranks {', '.join(ranks)} (chance 0.50)" if ranks else ""
    return [f"places: {decides} {context['objects']} labelled objects{told}"]
