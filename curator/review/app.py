"""The application: its parts, its pages and its errors, put together in one place.

In: an open Store, the token and the addresses. Out: an ASGI application. The API is described at
/api/openapi.json.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from curator.errors import CuratorError, InputError, one_line
from curator.review import embedding, failures, hits, images, labels, overview, proof, samples, suspects, work
from curator.review.desk import Desk
from curator.review.guard import Guard
from store.errors import AccessError, ConflictError, NotFoundError, StoreError

if TYPE_CHECKING:
    from store.store import Store

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/failures", "/map", "/queries", "/samples", "/suspects", "/boxes", "/proof")
PARTS = (overview, failures, images, hits, samples, suspects, labels, proof, work, embedding)


def create_app(
    store: Store, *, token: str, hosts: Iterable[str], author: str, cookie: str = "curator-review"
) -> Guard:
    """The page of a workspace.

    Args:
        token, hosts, cookie: as in `Guard`. author: recorded with every change.
    """
    desk = Desk(store, author=author, stamp=secrets.token_urlsafe(6))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="curator review",
        docs_url=None,  # they load from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=life,
    )
    for part in PARTS:
        app.include_router(part.router(desk), prefix="/api")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-store"})

    for path in PAGES:
        app.get(path, include_in_schema=False)(page)
        if path != "/":
            app.get(path + "/{_:path}", include_in_schema=False)(page)

    for kind in (CuratorError, StoreError):
        app.add_exception_handler(kind, _known_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unknown_error)
    return Guard(app, hosts=hosts, token=token, cookie=cookie)


def _known_error(_: Request, error: Exception) -> Response:
    statuses = ((NotFoundError, 404), (AccessError, 403), (ConflictError, 409), (InputError, 400))
    status = next((code for kind, code in statuses if isinstance(error, kind)), 500)
    return JSONResponse({"error": one_line(error)}, status_code=status)


def _invalid(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, own['loc']))}: {own['msg']}" for own in found)
    return JSONResponse({"error": said or "the request cannot be read"}, status_code=422)


def _unknown_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": one_line(error)}, status_code=500)
