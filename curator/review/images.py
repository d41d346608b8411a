"""Images and crops of them, as the page may show them: never the holdout's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from curator.errors import InputError
from curator.review.desk import Desk
from store.records import BoxTuple

Side = Annotated[int, Query(ge=16, le=512)]
KEPT = {"cache-control": "private, max-age=86400, immutable"}
"""Addresses hold the server's stamp: another workspace's picture is never taken for it."""


def router(desk: Desk) -> APIRouter:
    own = APIRouter(tags=["images"])

    @own.get("/images/{image}/crop", response_class=Response)
    def crop(image: int, box: str, kind: str = "", side: Side = 192) -> Response:
        """A square JPEG round a box, which is framed in the colour of its kind."""
        return picture(desk.crop(image, parse_box(box), kind, side))

    @own.get("/images/{image}/picture", response_class=Response)
    def whole(image: int, most: Annotated[int, Query(ge=64, le=4096)] = 2048) -> Response:
        """The image as JPEG, at most this many pixels a side."""
        return picture(desk.picture(image, most))

    return own


def picture(data: bytes, kind: str = "image/jpeg") -> Response:
    """Bytes that a browser may keep."""
    return Response(data, media_type=kind, headers=KEPT)


def parse_box(text: str) -> BoxTuple:
    """Four numbers joined by commas.

    Raises:
        InputError: something else, or a box without area.
    """
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"box: expected x1,y1,x2,y2, got {text[:80]!r}") from error
    if not (-1e6 < x1 < x2 < 1e6 and -1e6 < y1 < y2 < 1e6):
        raise InputError(f"box: expected x1 < x2 and y1 < y2, got {text[:80]!r}")
    return x1, y1, x2, y2
