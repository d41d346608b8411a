"""What people read of the summaries of add and export."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any


def leak_lines(summary: Mapping[str, Any]) -> list[str]:
    """Images that are in two roles that must stay apart, for stderr."""
    lines = [f"leak: {leak}" for leak in summary["leaks"][:20]]
    if summary["leak_pairs"] > 20:
        lines.append(f"leak: ... {summary['leak_pairs']} in all (--json names up to 200)")
    return lines


def add_failed(summary: Mapping[str, Any], failed: int) -> str:
    """What failed in `curator add`: images and objects apart, since its number counts both."""
    known = {
        "broken_images": ("image failed", "images failed"),
        "dropped_objects": ("object left out", "objects left out"),
        "incomplete_images": ("image without its labels", "images without their labels"),
    }
    counts = {name: int(summary[name]) for name in known}
    parts = [f"{counts[name]} {words[counts[name] != 1]}" for name, words in known.items() if counts[name]]
    other = failed - sum(counts.values())
    parts += [f"{other} {'copy' if other == 1 else 'copies'} with other labels"] if other > 0 else []
    return ", ".join(parts) or "0 failed"


def add_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator add`."""
    splits = {name: count for name, count in summary["splits"].items() if name}
    parts = f" ({', '.join(f'{name} {count}' for name, count in splits.items())})" if splits else ""
    lines = [
        f"{summary['dataset']} as {summary['role']}: {summary['images']} images{parts}, "
        f"{summary['new_images']} new; {summary['objects']} objects, "
        f"{summary['new_annotation_versions']} images with new labels, {summary['unlabelled']} without labels"
    ]
    counted = {
        "dropped_objects": "objects dropped",
        "incomplete_images": "images without their labels, as these are incomplete or may be another image's",
        "changed_objects": "objects or images read otherwise than written (clipped, listed twice, ...)",
        "duplicate_count": f"images equal or nearly equal to others ({_pairs(summary['duplicate_pairs'])})",
        "leak_count": "images equal or nearly equal to images of a role that must stay apart "
        f"({_pairs(summary['leak_pairs'])}, leaks, named on stderr): queries, exports and trainings leave "
        "such images out",
        "passed_over": "synthetic images of an export passed over",
        "still_pre_annotated": "images still marked as pre-annotations: their boxes were not taken as labels "
        "(correct them and remove the mark, or add with --reviewed)",
    }
    lines += [f"{summary[name]} {text}" for name, text in counted.items() if summary[name]]
    lines += returned_lines(summary.get("returned") or {})
    if summary["near_count"]:
        lines.append(
            f"{summary['near_count']} of these pairs are nearly equal (--near-duplicates "
            f"{summary['near_duplicates']:g}); where they show other things: --near-duplicates 0"
        )
    lines += [f"  note: {note}" for note in summary["notes"][:10]]
    lines += [f"  duplicate: {pair}" for pair in summary["duplicates"][:10]]
    if summary["duplicate_pairs"] > 10:
        lines.append(
            f"  ... {summary['duplicate_pairs']} in all (--json lists up to {len(summary['duplicates'])})"
        )
    return lines


def returned_lines(told: Mapping[str, Any]) -> list[str]:
    """What a labelling tool changed on the images of an export that came back."""
    lines = []
    if told.get("version"):
        ways = {
            "by_picture": "written anew or resized, known by name and picture",
            "by_name": "without their files, known by name",
        }
        how = "".join(f", {told[way]} {text}" for way, text in ways.items() if told[way])
        lines.append(f"{told['images']} images of the export {told['version']!r} came back{how}")
        lines += [f"  {line}" for line in _changes(told)]
    if told.get("unlike"):
        lines.append(
            f"{told['unlike']} images bear the name of an exported one and show another picture (cut, "
            "mirrored or changed by the tool): they are images of their own here"
        )
    if told.get("repeated"):
        lines.append(
            f"{told['repeated']} files show an exported image that came back already: left out, named on "
            "stderr"
        )
    return lines


def _changes(told: Mapping[str, Any]) -> list[str]:
    """A line for each kind of change."""
    lines = []
    if told["rounded"]:
        by = f"{told['rounded_by']:g} pixels at most"
        lines.append(f"moved by rounding: {told['rounded']} objects, by {by}")
    for name, text in (("attributes_lost", "attributes lost"), ("classes_renamed", "classes renamed")):
        if told[name]:
            parts = [f"{what} ({count})" for what, count in told[name].items()]
            lines.append(f"{text}: {_some(parts)}")
    if told["classes_missing"]:
        lines.append(f"classes that came back nowhere: {_some(told['classes_missing'])}")
    if told["classes_new"]:
        lines.append(f"classes that were not sent out: {_some(told['classes_new'])}")
    if told["not_returned"]:
        empty = f", {told['not_returned_empty']} of them had no objects" * bool(told["not_returned_empty"])
        lines.append(f"images that did not come back: {told['not_returned']}{empty}")
    kinds = ("moved", "added", "removed", "relabelled")
    if corrected := [f"{told[kind]} {kind}" for kind in kinds if told[kind]]:
        lines.append(f"corrected: {', '.join(corrected)} objects in {told['corrected_images']} images")
    return lines


def _some(parts: Sequence[str]) -> str:
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"


def export_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator export`."""
    images = summary["images"]
    lines = [
        f"{summary['out']}: {images['train']} training images, {images['pool']} selected, "
        f"{images['sample']} samples, {sum(summary['objects'].values())} objects ({summary['format']}, "
        f"version {summary['version_number']}, {summary['version']!r}; manifest.json lists every file)"
    ]
    if summary["pre_annotated"]:
        lines.append(
            f"{summary['pre_annotated']} selected images have no labels yet, the detector's boxes at most: "
            f"correct them, then `curator add {summary['format']} {shlex.quote(summary['out'])} --role pool "
            "--reviewed`"
        )
    if summary["without_detections"]:
        lines.append(
            f"{summary['without_detections']} of these have no stored detections: "
            "`curator detect --role pool` first would give them boxes"
        )
    lines += [f"  note: {note}" for note in summary["notes"]]
    lines += [f"warning: {warning}" for warning in summary["warnings"]]
    return lines
