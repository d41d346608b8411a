"""Render the report: one self-contained HTML file, every text escaped.

In: plain values (`ReportData`) with pictures as RGB uint8 arrays. Out: HTML text whose pictures are data
URIs and whose plot is inline SVG; it loads nothing from anywhere (a Content-Security-Policy says so too).
The page itself stands in `templates/`.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from store.records import BoxTuple

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture with its caption. `boxes`: (box in picture pixels, colour name or hex)."""

    pixels: Pixels
    caption: str
    boxes: tuple[tuple[BoxTuple, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCard:
    """One failure: its title, facts, its pictures (image, heat map) and the pool images it asked for.

    Attributes:
        missing: stands beside the pictures where one is missing, and says why.
    """

    title: str
    facts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    hits: tuple[Picture, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; the first column is text, the others are right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A plot: one bar per arm (mean) with a dot per seed; values in [0, 1]."""

    title: str
    values: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A plot: a line per arm with a band; values in any range.

    Attributes:
        lines: per arm its points (x, mean, low, high), x upwards; bounds that are no number give no band.
    """

    title: str
    x: str
    lines: tuple[tuple[str, tuple[tuple[float, float, float, float], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that the report shows. `legend` stands above the failures and explains their facts."""

    title: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Bars, ...] = ()
    curves: tuple[Curves, ...] = ()
    failures: tuple[tuple[str, tuple[FailureCard, ...]], ...] = ()
    galleries: tuple[tuple[str, tuple[Picture, ...]], ...] = ()
    samples: tuple[Picture, ...] = ()
    rejected: tuple[Picture, ...] = ()
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """An arm's row: px from the plot's top and left, as the template writes them."""

    name: str
    top: int
    length: str
    dots: tuple[str, ...]
    mean: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _BarPlot:
    """`Bars` laid out, px. `left`: where the bars begin."""

    title: str
    bars: tuple[_Bar, ...]
    width: int
    height: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An arm's line: "x,y x,y" in px, its band likewise ("" for none), and where its name stands."""

    name: str
    colour: str
    points: str
    band: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _CurvePlot:
    """`Curves` laid out, px. `ticks`: (px, text) along each axis."""

    title: str
    x: str
    width: int
    height: int
    left: int
    bottom: int
    lines: tuple[_Line, ...]
    x_ticks: tuple[tuple[str, str], ...]
    y_ticks: tuple[tuple[str, str], ...]


PALETTE = ("#4878cf", "#d65f5f", "#6acc65", "#b47cc7", "#c4ad66", "#77bedb", "#555555", "#e377c2")


def render(data: ReportData) -> str:
    """Return the report as HTML text."""
    return (
        _templates()
        .get_template("page.html")
        .render(data=data, plots=[_laid_out(p) for p in data.plots], curves=[_drawn(c) for c in data.curves])
    )


@cache
def _templates() -> Environment:
    """The templates beside this module. Every value is escaped; a name that is not given is an error."""
    found = Environment(
        loader=PackageLoader("curator"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["data_uri"] = _data_uri
    return found


def thumbnail(pixels: Pixels, longest: int = 256, *, boxes: Sequence[tuple[BoxTuple, str]] = ()) -> bytes:
    """Scale (H, W, 3) so that its longer side is at most `longest` px, draw `boxes`, encode as JPEG."""
    image = Image.fromarray(pixels)
    factor = longest / max(image.size)
    if factor < 1 or max(image.size) < longest / 2:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    else:
        factor = 1.0
    draw = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), colour in boxes:
        left, right = sorted((x1 * factor, x2 * factor))
        top, bottom = sorted((y1 * factor, y2 * factor))
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _data_uri(picture: Picture) -> str:
    encoded = base64.b64encode(thumbnail(picture.pixels, boxes=picture.boxes)).decode()
    return f"data:image/jpeg;base64,{encoded}"


def _laid_out(plot: Bars, *, width: int = 640, step: int = 34, left: int = 150) -> _BarPlot:
    def length(value: float) -> str:
        return f"{max(0.0, min(1.0, value)) * (width - left - 60):.1f}"

    bars = []
    for number, (name, values) in enumerate(plot.values):
        mean = sum(values) / len(values) if values else 0.0
        bars.append(
            _Bar(
                name=name,
                top=number * step,
                length=length(mean),
                dots=tuple(f"{left + float(length(value)):.1f}" for value in values),
                mean=f"{mean:.2f}",
            )
        )
    return _BarPlot(
        title=plot.title, bars=tuple(bars), width=width, height=len(plot.values) * step + 8, left=left
    )


def _drawn(
    plot: Curves, *, width: int = 640, height: int = 260, left: int = 60, right: int = 190
) -> _CurvePlot:
    bottom, top = height - 40, 12
    points = [point for _, line in plot.lines for point in line]
    known = [value for _, *values in points for value in values if math.isfinite(value)]
    xs = sorted({point[0] for point in points})
    low, high = min([0.0, *known]), max([*known, 0.0])
    span, reach = (xs[-1] - xs[0] or 1.0) if xs else 1.0, (high - low) or 1.0

    def at(x: float) -> float:
        return left + (x - xs[0]) / span * (width - left - right)

    def up(y: float) -> float:
        return bottom - (y - low) / reach * (bottom - top)

    def place(x: float, y: float) -> str:
        return f"{at(x):.1f},{up(y):.1f}"

    lines, label = [], top + 8.0
    for number, (name, line) in enumerate(plot.lines):
        shown = [p for p in line if math.isfinite(p[1])]
        banded = [p for p in shown if math.isfinite(p[2]) and math.isfinite(p[3])]
        edge = [place(x, above) for x, _, _, above in banded]
        edge += [place(x, below) for x, _, below, _ in reversed(banded)]
        lines.append(
            _Line(
                name=name,
                colour=PALETTE[number % len(PALETTE)],
                points=" ".join(place(x, mean) for x, mean, _, _ in shown),
                band=" ".join(edge) if len(banded) > 1 else "",
                label=f"{label + 18 * number:.1f}",
            )
        )
    marks = [low + reach * k / 4 for k in range(5)]
    return _CurvePlot(
        title=plot.title,
        x=plot.x,
        width=width,
        height=max(height, int(label) + 18 * len(lines) + 12),
        left=left,
        bottom=bottom,
        lines=tuple(lines),
        x_ticks=tuple((f"{at(x):.1f}", f"{x:g}") for x in xs),
        y_ticks=tuple((f"{up(y):.1f}", f"{y:.2f}") for y in marks),
    )
