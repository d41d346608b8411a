"""Render the report: one self-contained HTML file, every text escaped.

In: plain values (`ReportData`) with pictures as RGB uint8 arrays. Out: HTML text whose pictures are data
URIs and whose plot is inline SVG; it loads nothing from anywhere (a Content-Security-Policy says so too).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
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
class ReportData:
    """Everything that the report shows. `legend` stands above the failures and explains their facts."""

    title: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Bars, ...] = ()
    failures: tuple[tuple[str, tuple[FailureCard, ...]], ...] = ()
    samples: tuple[Picture, ...] = ()
    rejected: tuple[Picture, ...] = ()
    legend: str = ""


def render(data: ReportData) -> str:
    """Return the report as HTML text."""
    parts = [f"<h1>{escape(data.title)}</h1>", _list(data.facts)]
    parts += [_table(table) for table in data.tables]
    parts += [_bars(plot) for plot in data.plots]
    if data.legend:
        parts.append(f"<p class=note>{escape(data.legend)}</p>")
    for title, cards in data.failures:
        parts.append(f"<h2>{escape(title)}</h2>")
        parts += [_card(card) for card in cards]
    for title, pictures in (
        ("Synthetic samples that the gate accepted", data.samples),
        ("Synthetic samples that the gate rejected", data.rejected),
    ):
        if pictures:
            parts.append(f"<h2>{escape(title)}</h2>{_row(pictures)}")
    return _PAGE.format(title=escape(data.title), body="\n".join(parts))


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


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<h2>{escape(table.title)}</h2><table>{parts}</table>{note}"


def _picture(picture: Picture) -> str:
    encoded = base64.b64encode(thumbnail(picture.pixels, boxes=picture.boxes)).decode()
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{encoded}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _row(pictures: Sequence[Picture], missing: str = "") -> str:
    instead = f"<p class=missing>{escape(missing)}</p>" if missing else ""
    return "<div class=row>" + "".join(_picture(picture) for picture in pictures) + instead + "</div>"


def _card(card: FailureCard) -> str:
    hits = f"<h4>pool images that it asked for</h4>{_row(card.hits)}" if card.hits else ""
    pictures = _row(card.pictures, card.missing)
    return f"<section><h3>{escape(card.title)}</h3>{_list(card.facts)}{pictures}{hits}</section>"


def _bars(plot: Bars) -> str:
    width, step, left = 640, 34, 150
    scale = width - left - 60
    rows = []
    for number, (name, values) in enumerate(plot.values):
        y = number * step
        mean = sum(values) / len(values) if values else 0.0
        length = max(0.0, min(1.0, mean)) * scale
        dots = "".join(
            f'<circle cx="{left + max(0.0, min(1.0, value)) * scale:.1f}" cy="{y + 14}" r="3.5" class="dot"/>'
            for value in values
        )
        rows.append(
            f'<text x="{left - 8}" y="{y + 19}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="20" class="bar"/>{dots}'
            f'<text x="{width - 50}" y="{y + 19}">{mean:.2f}</text>'
        )
    height = len(plot.values) * step + 8
    return (
        f'<h2>{escape(plot.title)}</h2><svg role="img" aria-label="{escape(plot.title)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(rows)}</svg>'
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem; color: #1c2330; }}
h1 {{ font-size: 1.6rem; }} h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #d5dae3; }}
h3 {{ margin-bottom: .2rem; }}
h4 {{ margin: .4rem 0 0; font-weight: 600; color: #566; }}
table {{ border-collapse: collapse; }} th, td {{ padding: .25rem .8rem; border-bottom: 1px solid #e4e8ef;
  text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.row {{ display: flex; flex-wrap: wrap; gap: .8rem; }} figure {{ margin: .4rem 0; max-width: 256px; }}
figcaption {{ font-size: .8rem; color: #566; overflow-wrap: anywhere; }}
img {{ display: block; max-width: 256px; }}
section {{ margin-bottom: 1.4rem; }} ul {{ padding-left: 1.2rem; }} .note {{ color: #566; font-size: .9rem; }}
.missing {{ width: 220px; margin: .4rem 0; padding: 1rem; border: 1px dashed #b8c0cc; color: #566; }}
.bar {{ fill: #4878cf; }} .dot {{ fill: #1c2330; opacity: .7; }}
svg text {{ font: 13px system-ui, sans-serif; }}
</style></head><body>
{body}
</body></html>
"""
