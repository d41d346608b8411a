"""Fidelity against cost as a picture: one line per method, an interval at each point.

In: series of points. Out: SVG text that needs nothing else to be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = (
    "#4878cf",
    "#d65f5f",
    "#3f9b5c",
    "#956cb4",
    "#b8860b",
    "#17859b",
    "#c2559d",
    "#555555",
    "#8c613c",
    "#82a82c",
)
_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 170, 40, 50


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """One setting of a method: its cost (above 0), a value and its interval (nan: none is drawn)."""

    cost: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """A method and its points."""

    name: str
    points: tuple[PlotPoint, ...]


def cost_plot(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> str:
    """Draw values (up to 1) over cost, the cost on a logarithmic axis; points that are nan are left out."""
    drawn = [
        Series(s.name, tuple(sorted((p for p in s.points if not math.isnan(p.value)), key=lambda p: p.cost)))
        for s in series
    ]
    points = [point for s in drawn for point in s.points]
    bounds = [v for p in points for v in (p.value, p.low, p.high) if not math.isnan(v)]
    low = math.floor(10 * min([0.0, *bounds])) / 10
    high = math.ceil(10 * max([1.0, *bounds])) / 10
    costs = [p.cost for p in points] or [1.0]
    first, last = math.log10(min(costs)) - 0.1, math.log10(max(costs)) + 0.1
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(cost: float) -> float:
        return _LEFT + (math.log10(cost) - first) / (last - first) * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">',
        "<style>text{font:13px system-ui,sans-serif;fill:#1c2330} .grid{stroke:#e4e8ef}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-weight="600">{escape(title)}</text>',
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text transform="translate(16 {(_TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for tenth in range(round(10 * low), round(10 * high) + 1, 2):
        at = y(tenth / 10)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for tick in _ticks(first, last):
        at = x(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:,}</text>')
    for number, s in enumerate(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{x(p.cost):.1f},{y(p.value):.1f}" for p in s.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for p in s.points:
            if not (math.isnan(p.low) or math.isnan(p.high)):
                parts.append(
                    f'<line x1="{x(p.cost):.1f}" x2="{x(p.cost):.1f}" y1="{y(p.low):.1f}" '
                    f'y2="{y(p.high):.1f}" stroke="{colour}" opacity=".5"/>'
                )
            parts.append(f'<circle cx="{x(p.cost):.1f}" cy="{y(p.value):.1f}" r="4" fill="{colour}"/>')
        row = _TOP + 14 + 20 * number
        parts.append(f'<circle cx="{right + 20}" cy="{row - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{right + 32}" y="{row}">{escape(s.name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _ticks(first: float, last: float) -> list[int]:
    """Round costs 1, 2, 5 x 10^n between two logarithms; only powers of ten where the range is wide."""
    digits = (1, 2, 5) if last - first < 2.5 else (1,)
    powers = range(max(0, math.floor(first)), math.ceil(last) + 1)
    found = [digit * 10**power for power in powers for digit in digits]
    return [tick for tick in found if first <= math.log10(tick) <= last]
