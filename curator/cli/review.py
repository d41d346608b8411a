"""The command that opens the page: review."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli.app import app, open_store


@app.command()
def review(
    port: Annotated[
        int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen at; where other machines reach it, a warning says so.")
    ] = "127.0.0.1",
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    author: Annotated[
        str | None, typer.Option(help="Name that changes are recorded under; default: yours on this machine.")
    ] = None,
) -> None:
    """Go through failures, explanations, hits and samples in the browser (extra `review`)."""
    from curator.review.server import serve

    with open_store() as store:
        serve(store, host=host, port=port, author=author, browser=open_page, say=typer.echo)
