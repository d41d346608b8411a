"""The report is one self-contained, escaped HTML file."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from curator.page import Bars, Curves, FailureCard, Picture, ReportData, Table, render, thumbnail

EVIL = '<script>alert("x")</script>&"\' onload=alert(1) {{ 7 * 7 }}{% raw %}'


class Reader(HTMLParser):
    """Collects tags, texts and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


NAN = float("nan")
CURVES = Curves(
    title=EVIL,
    x=EVIL,
    lines=(
        (EVIL, ((10, 0.2, 0.1, 0.3), (40, 0.4, 0.2, 0.6))),
        ("one seed", ((10, 0.1, NAN, NAN), (40, 0.2, NAN, NAN))),
        ("unknown", ((10, NAN, NAN, NAN),)),
    ),
)


def page() -> str:
    pixels = np.full((40, 60, 3), 200, np.uint8)
    picture = Picture(pixels=pixels, caption=EVIL, boxes=(((5, 5, 30, 30), "#d62728"),))
    card = FailureCard(title=EVIL, facts=(EVIL,), pictures=(picture,), hits=(picture,))
    return render(
        ReportData(
            title=EVIL,
            facts=(EVIL,),
            tables=(Table(title=EVIL, columns=(EVIL, "b"), rows=((EVIL, "1"),), note=EVIL),),
            plots=(Bars(title=EVIL, values=((EVIL, (0.25, 0.75)), ("empty", ()))),),
            curves=(CURVES,),
            failures=((EVIL, (card,)),),
            samples=(picture,),
            rejected=(picture,),
        )
    )


def test_every_text_is_escaped() -> None:
    reader = Reader()
    reader.feed(page())
    assert "script" not in reader.tags
    assert reader.text.count('<script>alert("x")</script>') >= 10


def test_no_text_leaves_its_attribute_or_runs_as_a_template() -> None:
    reader = Reader()
    reader.feed(page())
    assert {name for name, _ in reader.attributes} & {"onload", "alert(1)"} == set()
    assert [value for name, value in reader.attributes if name in ("alt", "aria-label")] == [EVIL] * 6
    assert reader.text.count("{{ 7 * 7 }}{% raw %}") >= 10
    assert "49" not in reader.text


def test_the_page_loads_nothing_from_elsewhere() -> None:
    reader = Reader()
    reader.feed(page())
    assert len(reader.addresses) == 4
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert not re.search(r"https?://", page())


def test_bars_show_the_mean_and_a_dot_per_seed() -> None:
    html = page()
    assert ">0.50<" in html
    assert html.count("<circle") == 2


def test_curves_have_a_band_where_there_is_an_interval() -> None:
    html = page()
    assert html.count("<polyline") == 3
    (band,) = re.findall(r'<polygon points="([^"]+)"', html)
    corners = [tuple(float(v) for v in corner.split(",")) for corner in band.split()]
    assert len(corners) == 4
    (line, other, nothing) = re.findall(r'<polyline points="([^"]*)"', html)
    assert len(other.split()) == 2
    assert nothing == ""
    first, last = (tuple(float(v) for v in p.split(",")) for p in line.split())
    assert first[0] < last[0]
    assert first[1] > last[1]  # upwards on the page
    assert corners[0][1] < first[1] < corners[3][1]
    assert "nan" not in html


def test_thumbnails_draw_their_boxes_at_scale() -> None:
    pixels = np.full((400, 800, 3), 255, np.uint8)
    image = Image.open(io.BytesIO(thumbnail(pixels, 200, boxes=(((200, 100, 600, 300), "#ff0000"),))))
    assert image.size == (200, 100)
    red, _, blue = image.getpixel((50, 50))  # type: ignore[misc]
    assert red > 150 > blue


def test_pictures_decode() -> None:
    encoded = re.findall(r"base64,([^\"]+)", page())
    assert all(Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG" for data in encoded)
