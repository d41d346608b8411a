"""What people read of the summaries of evaluate-explanations, interpret and fit-patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def evaluate_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator evaluate-explanations`."""
    from curator.cli.tables import share, table_lines

    def interval(row: Mapping[str, Any]) -> str:
        if row["r_low"] is None:
            return share(row["r"])
        return f"{row['r']:.3f} [{row['r_low']:.2f}, {row['r_high']:.2f}]"

    columns = (
        "method",
        "passes",
        "s/target",
        "r [95%]",
        "r corrected",
        "rel. error",
        "deletion",
        "insertion",
        "pointing",
        "energy in box",
    )
    rows = [
        [
            row["method"],
            f"{row['passes']:.0f}",
            share(row["seconds"]),
            interval(row),
            *(
                share(row[name])
                for name in ("r_corrected", "relative_error", "deletion", "insertion", "pointing", "energy")
            ),
        ]
        for row in summary["rows"]
    ]
    drawn = ", ".join(f"{count} {kind}" for kind, count in summary["targets"].items())
    title = (
        f"{drawn} on {summary['images']} images; reference: {summary['reference_pairs']} pairs of "
        f"permutations, reliability {share(summary['reliability'])}"
    )
    return [
        *table_lines(title, columns, rows),
        f"left out, for want of evidence: {summary['without_evidence']}",
        f"{summary['out']}, {summary['plot']}",
        summary["conclusion"],
    ]


def interpret_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator interpret`."""
    from curator.cli.tables import share, table_lines

    rows = [
        [
            row["class"],
            str(row["samples"]),
            str(row["relevant"]),
            ", ".join(f"{f['layer']}:{f['channel']}" for f in row["features"]) or "-",
        ]
        for row in summary["classes"]
    ]
    return [
        *table_lines(
            f"{summary['samples']} objects, {summary['filters']} filters, mu {summary['mu']:g}: "
            f"{summary['relevant']} relevant, which tell {share(summary['accuracy'])} of the objects",
            ("class", "objects", "relevant", "strongest"),
            rows,
        ),
        f"explain with them: --method 'vebi?model={summary['model']}'",
        f"look at them: {summary['page']}",
    ]


def fit_patches_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of `curator fit-patches`."""
    return [
        f"{summary['squares']} squares of {summary['images']} images, {summary['patch']} px and "
        f"{summary['pad']} px around, for {summary['detector']}",
        f"explain with them: --method 'pda?model={summary['model']}'",
    ]
