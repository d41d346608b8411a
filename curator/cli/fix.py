"""What people read of the summaries of index, groups, query and synthesize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def index_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator index`."""
    images = ", ".join(f"{count} {role}" for role, count in summary["images"].items())
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
    lines = [f"selection {summary['selection']!r}: {len(summary['hits'])} images"]
    for group in summary["groups"]:
        told = f", separation {group['separation']:.3f}" if group.get("separation") is not None else ""
        views = f" by {'+'.join(group['views'])}" if group.get("views") else ""
        lines.append(
            f"  {group['name']}: {group['failures']} failures asked{views}{told}: {group['hits']} images"
        )
    lines.append(explained_by(summary))
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += ["rank  score    group     asked by  image"]
    lines += [
        f"{h['rank']:>4}  {h['score']:>7.3f}  {h['group']:<8}  {h['outcome'] or '-':>8}  {h['uri']}"
        for h in summary["hits"]
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
    lines.append(explained_by(summary))
    lines += [f"note: {note}" for note in summary["notes"]]
    return lines
